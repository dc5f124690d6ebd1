"""Names of classes for classifications, one a line, in a file of the model's directory."""

from __future__ import annotations

from pathlib import Path

from inferd.backends.api import LoadError
from inferd.backends.files import FileRule
from inferd.server.config.schema import ModelConfig

_MAX_BYTES = 16 * 2**20
_MAX_LABELS = 200_000


def class_labels(config: ModelConfig, directory: Path, rule: FileRule) -> dict[str, tuple[str, ...]]:
    """The names of classes by output of the default signature. Raises LoadError for a file that cannot be read or that
    `rule` does not allow."""
    if not config.signatures:
        return {}
    outputs = config.signatures[0].outputs
    return {o.name: _read(o.name, o.labels, directory, rule) for o in outputs if o.labels is not None}


def _read(output: str, name: str, directory: Path, rule: FileRule) -> tuple[str, ...]:
    where = f"labels of output {output!r}: {name}"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise LoadError(f"{where}: expected a file in the model's directory")
    try:
        data = rule.read(directory / name, _MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise LoadError(f"{where} cannot be read: {reason}") from None
    if data.count(b"\n") > _MAX_LABELS:
        raise LoadError(f"{where}: expected at most {_MAX_LABELS} labels, got more")
    return tuple(line.strip() for line in data.decode(errors="replace").splitlines())
