"""Names of classes for classifications, one a line, in a file of the model's directory."""

from __future__ import annotations

from pathlib import Path

from inferd.backends.api import LoadError
from inferd.server.config.schema import ModelConfig

_MAX_BYTES = 16 * 2**20


def class_labels(config: ModelConfig, directory: Path) -> dict[str, tuple[str, ...]]:
    """The names of classes by output of the default signature. Raises LoadError for a file that cannot be read."""
    if not config.signatures:
        return {}
    return {o.name: _read(o.name, o.labels, directory) for o in config.signatures[0].outputs if o.labels is not None}


def _read(output: str, name: str, directory: Path) -> tuple[str, ...]:
    where = f"labels of output {output!r}: {name}"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise LoadError(f"{where}: expected a file in the model's directory")
    try:
        with open(directory / name, "rb") as source:
            data = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise LoadError(f"{where} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise LoadError(f"{where} is larger than {_MAX_BYTES} bytes: not a file of labels")
    return tuple(line.strip() for line in data.decode(errors="replace").splitlines())
