"""Finds out what a source is, and prepares it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import git_of
from inferd.server.publishing.rows import read_rows
from inferd.server.publishing.sources.copies import ARTEFACTS, copy_directory, copy_file
from inferd.server.publishing.sources.material import SourceMaterial, SourceOptions
from inferd.server.publishing.staging import Staging

Say = Callable[[str], None]


def prepare(source: str, staging: Staging, options: SourceOptions, say: Say) -> SourceMaterial:
    """Puts the files of `source` into the staging directory, converted if need be. Raises PublishError, OSError."""
    path = Path(source)
    if path.is_dir():
        material = SourceMaterial(copy_directory(path, staging.version))
    elif not path.exists():
        raise PublishError(f"{path} does not exist")
    elif not path.is_file():
        raise PublishError(f"{path} is neither a file nor a directory")
    elif path.suffix.lower() in ARTEFACTS:
        material = SourceMaterial(copy_file(path, staging.version))
    else:
        raise PublishError(f"{path}: expected a directory, or a file that ends in {', '.join(ARTEFACTS)}", usage=True)
    made = material.provenance
    if not made.git:
        made.git = git_of(path if path.is_dir() else path.parent) or git_of(Path.cwd())
    if options.sample is not None and material.sample is None:
        material.sample = options.sample
        material.labels = read_rows(options.sample).expected
    return material
