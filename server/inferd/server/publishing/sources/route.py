"""Finds out what a source is, and prepares it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import Provenance, git_of
from inferd.server.publishing.rows import read_rows
from inferd.server.publishing.sources.conversion import convert
from inferd.server.publishing.sources.copies import ARTEFACTS, copy_directory, copy_file
from inferd.server.publishing.sources.material import SourceMaterial, SourceOptions
from inferd.server.publishing.staging import Staging

Say = Callable[[str], None]

_SKLEARN: Final = (".skops", ".joblib", ".pkl", ".pickle")
_PICKLES: Final = (".joblib", ".pkl", ".pickle")
_BOOSTERS: Final = (".ubj", ".xgb", ".json", ".txt", ".lgb")
_KERAS: Final = (".keras", ".h5", ".hdf5")
_TORCH: Final = (".pth", ".ckpt", ".safetensors", ".bin")
SUFFIXES: Final = (*ARTEFACTS, *_KERAS, *_SKLEARN, *_BOOSTERS, *_TORCH)


def prepare(source: str, staging: Staging, options: SourceOptions, say: Say) -> SourceMaterial:
    """Puts the files of `source` into the staging directory, converted if need be. Raises PublishError, OSError."""
    path = Path(source)
    if path.is_dir():
        material = SourceMaterial(copy_directory(path, staging.version))
    elif not path.exists():
        raise PublishError(f"{path} does not exist")
    elif not path.is_file():
        raise PublishError(f"{path} is neither a file nor a directory")
    else:
        material = from_file(path, staging, options, say, Provenance(source={"kind": "file", "uri": source}))
    made = material.provenance
    if not made.git:
        made.git = git_of(path if path.is_dir() else path.parent) or git_of(Path.cwd())
    if options.sample is not None and material.sample is None:
        material.sample = options.sample
        material.labels = read_rows(options.sample).expected
        material.sample_source = {"from": str(options.sample)}
    return material


def from_file(
    path: Path, staging: Staging, options: SourceOptions, say: Say, provenance: Provenance, sample: Path | None = None
) -> SourceMaterial:
    """Prepares one file, by what its name says. `sample`: rows that came with it. Raises PublishError, OSError."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES and not options.trust:
        raise PublishError(
            f"{path} is a pickle, which runs code from the file when it is read: publish it with --trust, if you trust "
            "where it comes from, or save the model with skops.io.dump"
        )
    if suffix in _SKLEARN:
        return convert("sklearn_models", path, staging, options, say, provenance=provenance, sample=sample)
    if suffix in _BOOSTERS:
        return convert("boosters", path, staging, options, say, provenance=provenance, sample=sample)
    if suffix in ARTEFACTS:
        copy_file(path, staging.version)
        return SourceMaterial(provenance, sample=sample)
    known = ", ".join(SUFFIXES)
    raise PublishError(f"{path}: expected a directory, or a file that ends in {known}", usage=True)
