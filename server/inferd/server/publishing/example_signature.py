"""Finds out what a model takes and gives from examples of its inputs, by running it on them in a subprocess."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferd.backends.api import CODE_KINDS, TensorSpec
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.tasks import run_task
from inferd.server.repository.layout import version_number
from inferd.wire.dtypes import DType

_MODULE: Final = "inferd.server.publishing.example_worker"


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where a model lies.

    version   the version's directory, or the file itself
    settings  the model.yaml that belongs to it; None: a file that is in no repository
    """

    version: Path
    settings: Path | None


@dataclass(frozen=True, slots=True)
class ExampleSignature:
    """What the model takes and gives on the examples.

    complete   the file tells the same without a declaration
    rows_vary  it takes any number of rows: dimension 0 is -1
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    complete: bool
    rows_vary: bool


def find_model(path: Path) -> ModelPlace:
    """The place of a model: a model's directory in a repository (its highest version), a version's directory, or a
    file. Raises PublishError."""
    if path.is_file():
        inside = version_number(path.absolute().parent.name) is not None
        if inside:
            return ModelPlace(path.absolute().parent, path.absolute().parent.parent / "model.yaml")
        return ModelPlace(path, None)
    if not path.is_dir():
        raise PublishError(f"{path} does not exist; expected a model's directory, a version's directory or a file")
    place = path.absolute()
    versions = {number: child for child in place.iterdir() if (number := version_number(child.name)) is not None}
    if versions:
        return ModelPlace(versions[max(versions)], place / "model.yaml")
    if version_number(place.name) is not None:
        return ModelPlace(place, place.parent / "model.yaml")
    raise PublishError(f"{path} holds no version; expected a model's directory with versions such as {path}/1")


def signature_of(
    place: ModelPlace,
    examples: Sequence[Path],
    settings: ProbeSettings,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> ExampleSignature:
    """Runs the model on every example. `inputs`, `outputs`: names, where the file tells none, or to replace them; an
    output may have its type, NAME:DTYPE, without which the results of some models (dictionaries) cannot be read.
    `options`: the backend's own, as in model.yaml. Raises PublishError."""
    with tempfile.TemporaryDirectory(prefix="inferd-signature-") as work:
        directory = place.version
        if directory.is_file():
            directory = Path(work, place.version.stem, "1")
            directory.mkdir(parents=True)
            shutil.copyfile(place.version, directory / f"model{place.version.suffix}")
        request = {
            "parent": os.getpid(),
            "directory": str(directory),
            "real": str(place.version.absolute()),
            "config": str(settings.config.absolute()) if settings.config is not None else None,
            "set": list(settings.sets),
            "allow": sorted(CODE_KINDS) if settings.trust else None,
            "options": dict(options or {}),
            "examples": [str(example.absolute()) for example in examples],
            "inputs": list(inputs),
            "outputs": [_name_and_type(output) for output in outputs],
        }
        found = run_task(
            [sys.executable, "-P", "-m", _MODULE],
            request,
            what=f"running {place.version}",
            directory=Path(work),
            limits=settings.limits,
            progress=settings.progress,
            output=settings.output,
        )
    return ExampleSignature(
        str(found["name"]),
        tuple(map(_spec, found["inputs"])),
        tuple(map(_spec, found["outputs"])),
        bool(found["complete"]),
        bool(found["rows_vary"]),
    )


def as_yaml(signature: ExampleSignature) -> str:
    """The `signatures:` of a model.yaml."""
    lines = ["signatures:", f"  - name: {_quoted(signature.name)}"]
    for kind, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        lines.append(f"    {kind}:")
        for spec in specs:
            shape = "" if spec.shape is None else f", shape: [{', '.join(map(str, spec.shape))}]"
            lines.append(f"      - {{name: {_quoted(spec.name)}, dtype: {spec.dtype.name}{shape}}}")
    return "\n".join(lines) + "\n"


def _name_and_type(text: str) -> tuple[str, str]:
    name, _, dtype = text.rpartition(":")
    return (name, dtype) if name and dtype in DType.__members__ else (text, "")


def _quoted(text: str) -> str:
    """A text for YAML, quoted where it could be read as something else."""
    import yaml

    return yaml.safe_dump(text, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _spec(value: Mapping[str, Any]) -> TensorSpec:
    shape = value["shape"]
    return TensorSpec(value["name"], DType[value["dtype"]], None if shape is None else tuple(shape))
