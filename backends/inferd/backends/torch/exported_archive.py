"""Opens a torch.export program (`model.pt2`) as data: nothing in the file runs, unless the settings allow it.

Torch's own loader unpickles constants and samples, evaluates expressions, and loads compiled libraries where it finds
them. So the file is read with torch's own reader first, by the names and the bytes that the loader will use, and a file
with anything else than tensors and a description that passes `exported_content` is refused.

    repository.allow: [custom_ops]   operators of installed libraries, and their custom objects
    repository.allow: [python]       pickled constants, weights and samples: any code
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from inferd.backends.api import LoadError
from inferd.backends.torch.archive_names import check_entries, check_names
from inferd.backends.torch.errors import reason
from inferd.backends.torch.exported_content import ContentRules

_LARGEST_TEXT: Final = 512 * 2**20  # bytes of a description
_PROGRAM: Final = "models/model.json"
_LEGACY_PROGRAM: Final = "serialized_exported_program.json"
_TENSOR, _CUSTOM, _PICKLED = "tensor_", "custom_obj_", "opaque_obj_"
_EXPORT_AGAIN: Final = "export the model with plain dense tensors"


def load_program(torch: Any, data: bytes, name: str, allow: Collection[str]) -> Any:
    """The program in a file with these bytes, on the CPU. `name` is for messages; `allow` is `OpenRequest.allow`.
    Raises LoadError."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_entries(name, archive.infolist())
        names = archive.namelist()
        legacy = _LEGACY_PROGRAM in names
        parts = {entry: archive.read(entry) for entry in names} if legacy else {}
    if legacy:
        return _load_legacy(torch, parts, name, allow)
    try:
        from torch.export.pt2_archive._package import load_pt2
    except ImportError:
        raise LoadError(f"torch {torch.__version__} cannot load {name}: it needs torch 2.8 or newer") from None
    check_program(torch, data, name, allow)
    programs = load_pt2(io.BytesIO(data)).exported_programs
    return programs["model"]


def check_program(torch: Any, data: bytes, name: str, allow: Collection[str]) -> None:
    """Raises LoadError unless the archive with these bytes is a description and its tensors, by the names and the bytes
    that torch's own reader finds in it. The arguments are those of `load_program`."""
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        records = list(reader.get_all_records())
        check_names(name, records)
        _check_records(torch, reader, records, name, allow)
    except (RuntimeError, UnicodeDecodeError) as error:  # the second for a name
        raise LoadError(f"torch {torch.__version__} cannot read {name}: {reason(error)[1]}") from None


def _check_records(torch: Any, reader: Any, records: list[str], name: str, allow: Collection[str]) -> None:
    """Raises LoadError for a file that is more than a description and its tensors."""
    unknown = [record for record in records if record.casefold().startswith("data/aotinductor/")]
    if unknown:
        raise LoadError(f"{name} holds a program and compiled code ({unknown[0]}); expected one of them")
    models = [record for record in records if record.casefold().startswith("models/")]
    if models != [_PROGRAM]:
        raise LoadError(f"{name} holds the programs {', '.join(models[:4]) or 'none'}; expected {_PROGRAM} alone")
    if "python" in allow:
        return
    ContentRules(custom="custom_ops" in allow).check(_json(reader, _PROGRAM, name))
    for record in records:
        folded = record.casefold()
        if folded.endswith("_config.json") and folded.startswith(("data/weights/", "data/constants/")):
            _check_payloads(_json(reader, record, name), folded.startswith("data/weights/"), name, allow)
        elif folded.endswith(".pt"):
            _check_unpickled(torch, reader.get_record(record), record, name)


def _check_payloads(config: Any, weights: bool, name: str, allow: Collection[str]) -> None:
    """Raises LoadError for tensors that are pickled, and for constants that are no tensors."""
    payloads = config.get("config") if isinstance(config, Mapping) else None
    if not isinstance(payloads, Mapping) or not all(isinstance(payload, Mapping) for payload in payloads.values()):
        raise LoadError(f"{name}: expected tensors by name in its configuration of weights and constants")
    pickled = sorted(key for key, payload in payloads.items() if payload.get("use_pickle"))
    for key, payload in payloads.items():
        path = payload.get("path_name")
        if not isinstance(path, str) or "/" in path or ".." in path:
            raise LoadError(f"{name}: {key!r} is in {path!r}; expected the name of an entry")
        if weights or path.startswith(_TENSOR):
            continue
        if path.startswith(_CUSTOM):
            if "custom_ops" in allow:
                pickled = [other for other in pickled if other != key]  # read by torch's own classes, not by Python
                continue
            raise LoadError(
                f"{name} holds a custom object ({path}), which is code of a library; "
                "it is loaded only where repository.allow names custom_ops"
            )
        what = "a pickled constant" if path.startswith(_PICKLED) else "a constant of unknown kind"
        raise LoadError(
            f"{name} holds {what} ({path}), which is loaded only where repository.allow names python; {_EXPORT_AGAIN}"
        )
    if pickled:
        raise LoadError(
            f"{name} holds pickled tensors ({', '.join(pickled[:4])}), which are loaded only where repository.allow "
            f"names python; {_EXPORT_AGAIN}"
        )


def _check_unpickled(torch: Any, data: bytes, entry: str, name: str) -> Any:
    """The samples or weights in an entry that torch unpickles, read by torch's restricted unpickler, which knows only
    tensors and plain containers. Raises LoadError where that does not suffice: torch would then unpickle any object."""
    if not data:
        return None
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise LoadError(
            f"{name} needs unpickling ({entry}), which is done only where repository.allow names python: "
            f"{reason(error)[1]}"
        ) from None


def _json(reader: Any, record: str, name: str) -> Any:
    if hasattr(reader, "get_record_size") and reader.get_record_size(record) > _LARGEST_TEXT:
        raise LoadError(f"{name}: {record} is larger than {_LARGEST_TEXT} bytes")
    return parsed(bytes(reader.get_record(record)), record, name)


def parsed(text: bytes, entry: str, name: str) -> Any:
    """As torch reads it, but a key that is given twice is an error: readers differ in which one they take."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{name}: {entry} is no valid JSON: {error or 'nested too deep'}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _load_legacy(torch: Any, parts: Mapping[str, bytes], name: str, allow: Collection[str]) -> Any:
    """A program in the format of torch before 2.8: the entries are at the top of the archive."""
    from torch._export.serde.serialize import SerializedArtifact, deserialize

    program = parts[_LEGACY_PROGRAM]
    read: Callable[[str], Any]
    if "python" in allow:
        read = lambda entry: parts.get(entry, b"")  # noqa: E731
    else:
        ContentRules(custom="custom_ops" in allow).check(parsed(program, _LEGACY_PROGRAM, name))
        read = lambda entry: _check_unpickled(torch, parts.get(entry, b""), entry, name) or {}  # noqa: E731
    state, constants, samples = (
        read(next((e for e in (f"{stem}.pt", f"{stem}.json") if e in parts), f"{stem}.pt"))
        for stem in ("serialized_state_dict", "serialized_constants", "serialized_example_inputs")
    )
    return deserialize(SerializedArtifact(program, state, constants, samples))


def private_copy(torch: Any, program: Any) -> Any:
    """An independent copy of a program that this process has loaded. copy.deepcopy warns about parts of a program and
    fails on others."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0, os.SEEK_SET)
    return torch.export.load(buffer)
