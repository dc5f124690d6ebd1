"""Finds out what a source is, and prepares it."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from inferd.backends.api import Array
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import Provenance, git_of
from inferd.server.publishing.rows import read_rows
from inferd.server.publishing.sources import dvc, mlflow
from inferd.server.publishing.sources.archives import TEMPLATE, unpack
from inferd.server.publishing.sources.conversion import convert
from inferd.server.publishing.sources.copies import ARTEFACTS, copy_directory, copy_file
from inferd.server.publishing.sources.material import SourceMaterial, SourceOptions
from inferd.server.publishing.sources.snapshots import is_snapshot, named, only_file, snapshot_file
from inferd.server.publishing.staging import Staging
from inferd.server.repository.provenance import DIRECTORY

Say = Callable[[str], None]

_SKLEARN: Final = (".skops", ".joblib", ".pkl", ".pickle")
_PICKLES: Final = (".joblib", ".pkl", ".pickle")
_BOOSTERS: Final = (".ubj", ".xgb", ".json", ".txt", ".lgb")
_KERAS: Final = (".keras", ".h5", ".hdf5")
_TORCH: Final = (".pth", ".ckpt", ".safetensors", ".bin")
SUFFIXES: Final = (*ARTEFACTS, *_KERAS, *_SKLEARN, *_BOOSTERS, *_TORCH)


def prepare(source: str, staging: Staging, options: SourceOptions, say: Say) -> SourceMaterial:
    """Puts the files of `source` into the staging directory, converted if need be. Raises PublishError, OSError."""
    if options.file and Path(source).is_file():
        raise PublishError(f"--file {options.file}: {source} is a file already", usage=True)
    if mlflow.is_uri(source):
        directory, made = mlflow.download(source, staging, options, say)
        material = _from_mlflow(directory, staging, options, say, made)
    else:
        path = Path(os.path.abspath(source))
        made = Provenance(source={"kind": "directory" if path.is_dir() else "file", "uri": source})
        if dvc.is_tracked(path, options):
            say("asks DVC for the file")
            path, told = dvc.fetch(path, staging.work, options)
            commit = told.pop("commit", "")
            made.source = told
            if commit:
                made.git = {"commit": commit}
        material = _from_path(path, source, staging, options, say, made)
    made = material.provenance
    if not made.git and not mlflow.is_uri(source):  # what MLflow keeps was trained elsewhere
        made.git = _git(source)
    if options.sample is not None and material.sample is None:
        material.sample = options.sample
        material.labels = read_rows(options.sample).expected
        material.sample_source = {"from": str(options.sample)}
    return material


def _git(source: str) -> dict[str, Any]:
    """The commit of the code beside the source, else of the working directory."""
    path = Path(os.path.abspath(source))
    beside = path if path.is_dir() else path.parent
    return (git_of(beside) if beside.is_dir() else {}) or git_of(Path.cwd())


def _from_path(
    path: Path, source: str, staging: Staging, options: SourceOptions, say: Say, made: Provenance
) -> SourceMaterial:
    if not path.exists():
        found = list(path.parent.glob(f"{path.name}.index")) if path.parent.is_dir() else []
        if found:  # a checkpoint is named without an ending
            return from_file(found[0], staging, options, say, made)
        raise PublishError(f"{source} does not exist")
    if path.is_dir():
        return _from_directory(path, staging, options, say, made)
    if not path.is_file():
        raise PublishError(f"{source} is neither a file nor a directory")
    if path.suffix.lower() == ".mar":
        return _from_archive(path, staging, options, say, made)
    return from_file(path, staging, options, say, made)


def _from_directory(path: Path, staging: Staging, options: SourceOptions, say: Say, made: Provenance) -> SourceMaterial:
    if (path / "MLmodel").is_file():
        made.source["kind"] = "mlflow"
        return _from_mlflow(path, staging, options, say, made)
    if is_snapshot(path):
        file, told = snapshot_file(path, options)
        made.source |= told
        return _from_path(file, str(file), staging, options, say, made)
    single = named(path, options.file) if options.file else only_file(path)
    if single is not None:
        return _from_path(single, str(single), staging, options, say, made)
    copied = copy_directory(path, staging.version, made)
    return SourceMaterial(copied)


def _from_mlflow(
    directory: Path, staging: Staging, options: SourceOptions, say: Say, made: Provenance
) -> SourceMaterial:
    path, sample = mlflow.model_of(directory, made, staging.work)
    say(f"MLflow's flavour {made.source['flavour']}: {path.name}")
    if path.is_dir():
        return SourceMaterial(copy_directory(path, staging.version, made), sample=sample)
    return from_file(path, staging, options, say, made, sample)


def _from_archive(path: Path, staging: Staging, options: SourceOptions, say: Say, made: Provenance) -> SourceMaterial:
    target = staging.work / "archive"
    target.mkdir()
    archive = unpack(path, target)
    made.source |= {"kind": "torchserve", "name": archive.name, "version": archive.version}
    notes: tuple[str, ...] = ()
    if archive.handler is not None:
        if not options.model_only:
            raise PublishError(
                f"{path} has a handler of its own ({archive.handler.name}), which prepares inputs and outputs around "
                "the model: --model-only publishes the model alone, with the handler and a template for Python steps "
                "in <version>/.inferd"
            )
        hidden = staging.version / DIRECTORY
        hidden.mkdir()
        shutil.copyfile(archive.handler, hidden / "handler.py")
        (hidden / "steps.template.py").write_text(TEMPLATE)
        notes = (f"the handler {archive.handler.name} is not run: .inferd/steps.template.py is where its steps go",)
    if archive.code is not None and not options.module:
        if not options.trust:
            raise PublishError(
                f"{path} holds the model's code ({archive.code.name}), which runs when it is converted: publish it "
                "with --trust, if you trust where it comes from"
            )
        options = replace(options, module=f"{archive.code}:{archive.class_name}")
    material = from_file(archive.model, staging, options, say, made)
    material.notes = (*notes, *material.notes)
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
    if suffix in _KERAS or _is_checkpoint(path):
        return convert("keras_models", path, staging, options, say, provenance=provenance, sample=sample)
    if suffix in _TORCH or (suffix == ".pt" and not _is_torchscript(path)):
        return convert("torch_models", path, staging, options, say, provenance=provenance, sample=sample)
    if suffix in ARTEFACTS:
        copy_file(path, staging.version)
        return SourceMaterial(provenance, sample=options.sample or sample, labels=_labels(options))
    known = ", ".join(SUFFIXES)
    raise PublishError(f"{path}: expected a directory, or a file that ends in {known}", usage=True)


def _labels(options: SourceOptions) -> Array | None:
    return read_rows(options.sample).expected if options.sample is not None else None


def _is_torchscript(path: Path) -> bool:
    """Whether a .pt file holds a program; else it holds weights, or a pickled module."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        with open(path, "rb") as file:
            return not file.read(2).startswith(b"\x80")  # an old pickle; anything else is for the check to name


def _is_checkpoint(path: Path) -> bool:
    """Whether this is the index of a TensorFlow checkpoint."""
    return path.suffix == ".index" and path.with_name(f"{path.stem}.data-00000-of-00001").exists()
