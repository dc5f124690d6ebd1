"""Converts requests, signatures, traits and errors to plain values, for messages between server and worker."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inferd.backends.api import (
    BackendError,
    BrokenContract,
    IncompleteArtefact,
    Independence,
    InvalidInput,
    LoadError,
    MissingFramework,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.backends.files import FileRule
from inferd.wire.dtypes import dtype_named

Plain = dict[str, Any]
# Derived classes before their bases: the first match decides.
_KINDS: dict[str, type[BackendError]] = {
    "missing": MissingFramework,
    "incomplete": IncompleteArtefact,
    "load": LoadError,
    "invalid": InvalidInput,
    "contract": BrokenContract,
    "backend": BackendError,
}
_LONGEST = 100_000


def signature_to_plain(signature: Signature) -> Plain:
    """A signature; element types by name."""
    return {
        "name": signature.name,
        "method": signature.method_name,
        "aliases": list(signature.aliases),
        "inputs": [_spec_to_plain(spec) for spec in signature.inputs],
        "outputs": [_spec_to_plain(spec) for spec in signature.outputs],
    }


def signature_from_plain(value: Plain) -> Signature:
    """The inverse of signature_to_plain."""
    inputs, outputs = (tuple(map(_spec_from_plain, value[key])) for key in ("inputs", "outputs"))
    return Signature(value["name"], inputs, outputs, value["method"], tuple(value["aliases"]))


def _spec_to_plain(spec: TensorSpec) -> Plain:
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": spec.shape, "optional": spec.optional}


def _spec_from_plain(value: Plain) -> TensorSpec:
    shape = None if value["shape"] is None else tuple(value["shape"])
    return TensorSpec(value["name"], dtype_named(value["dtype"]), shape, optional=value["optional"])


def request_to_plain(request: OpenRequest) -> Plain:
    """A request to open a version."""
    return {
        "model": request.model,
        "version": request.version,
        "directory": str(request.directory),
        "artefact": str(request.artefact),
        "signatures": [signature_to_plain(signature) for signature in request.signatures],
        "options": dict(request.options),
        "allow": sorted(request.allow),
        "steps": None if request.steps is None else str(request.steps),
        "inner": [signature_to_plain(signature) for signature in request.inner],
        "files": None if request.files is None else [request.files.root, request.files.allowed],
    }


def request_from_plain(value: Plain) -> OpenRequest:
    """The inverse of request_to_plain, in the worker process."""
    return OpenRequest(
        model=value["model"],
        version=value["version"],
        directory=Path(value["directory"]),
        artefact=Path(value["artefact"]),
        signatures=tuple(map(signature_from_plain, value["signatures"])),
        options=value["options"],
        allow=frozenset(value["allow"]),
        files=_rule_from_plain(value["files"]),
        isolated=True,
        steps=None if value["steps"] is None else Path(value["steps"]),
        inner=tuple(map(signature_from_plain, value["inner"])),
    )


def _rule_from_plain(value: list[Any] | None) -> FileRule | None:
    if value is None:
        return None
    root, allowed = value
    return FileRule(root, None if allowed is None else tuple(allowed))


def traits_to_plain(traits: Traits) -> Plain:
    return asdict(traits)


def traits_from_plain(value: Plain) -> Traits:
    return Traits(**{**value, "notes": tuple(value["notes"])})


def independence_to_plain(finding: Independence | None) -> Plain | None:
    return None if finding is None else asdict(finding)


def independence_from_plain(value: Plain | None) -> Independence | None:
    """The inverse of independence_to_plain."""
    if value is None:
        return None
    equal = tuple(tuple((name, axis) for name, axis in group) for group in value["equal"])
    return Independence(**{**value, "equal": equal})


def placement_to_plain(placement: Placement) -> Plain:
    return asdict(placement)


def placement_from_plain(value: Plain) -> Placement:
    return Placement(**value)


def error_to_plain(error: BaseException) -> Plain:
    """An error, so that it can be raised again on the other side with the same text."""
    value: Plain = {"kind": "other", "type": type(error).__name__, "text": _text(error)}
    kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), None)
    if kind is not None:
        value["kind"] = kind
    elif isinstance(error, OSError):
        value |= {"kind": "os", "errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    elif isinstance(error, MemoryError):
        value["kind"] = "memory"
    if kind is None:
        value["trace"] = "".join(traceback.format_exception(error))[-_LONGEST:]
    return value


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST]
    except Exception:
        return "it cannot say what"


def error_from_plain(value: Plain) -> Exception:
    """The inverse of error_to_plain. An unexpected error becomes an exception of a class with the same name, with the
    worker's traceback as a note for the log."""
    kind, text = str(value.get("kind")), str(value.get("text", ""))
    found: Exception
    if kind in _KINDS:
        found = _KINDS[kind].__new__(_KINDS[kind])
        Exception.__init__(found, text)
    elif kind == "os" and value.get("errno") is not None:
        found = OSError(value["errno"], value["strerror"], value["filename"])
    elif kind == "memory":
        found = MemoryError(text)
    else:
        found = type(str(value.get("type", "Exception")), (Exception,), {})(text)
    if value.get("trace"):
        found.add_note(f"in the worker process:\n{value['trace']}")
    return found
