"""Load overrides: settings that came with a load request and replace the model's config.pbtxt and model.yaml, and
perhaps files that replace its directory. They are in force until the model is loaded without any, or unloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from inferd.server.compat.text_format import TextFormatError
from inferd.server.compat.triton_json import read_triton_json
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ModelConfig
from inferd.server.config.triton import DEFAULT_FILES
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.state import PublishedOverride
from inferd.server.repository.disk import Listing, ModelOnDisk, VersionOnDisk
from inferd.server.repository.layout import is_hidden, is_partial
from inferd.server.repository.tree import read_tree
from inferd.server.repository.uploads import Files, Uploads, checked_files

SOURCE = "'config' of the load"

ResolveRequest = Callable[[str, Mapping[str, Any]], tuple[ModelConfig, tuple[str, ...]]]
"""Takes a model's name and the mapping of Triton's ModelConfig; gives the settings with the server's layers applied,
and notes. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a load request brings. `config`: Triton's ModelConfig as JSON; `files`: contents by "<version>/<path>"."""

    config: str
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class LoadOverride:
    """A replacement that was read, and whose files were written to disk.

    config, notes   the model's settings, and settings that are not honoured
    by, at          who brought it, and when (wall-clock seconds)
    upload          the model that its files make, None without files
    """

    config: ModelConfig
    notes: tuple[str, ...]
    by: str
    at: float
    upload: ModelOnDisk | None = None

    @property
    def shown(self) -> PublishedOverride:
        """The load override as the status shows it."""
        return PublishedOverride("config" if self.upload is None else "upload", "", self.by, self.at, persistent=False)

    def over(self, found: ModelOnDisk | None) -> ModelOnDisk | None:
        """The model as it counts while the repository holds `found`. None: there is no such model."""
        # Triton's settings say nothing of labels, of the order in which versions come and go, and of the process in
        # which a model runs; and they may not name its file.
        own = found.config if found is not None else None
        kept: dict[str, Any] = {}
        if own is not None:
            kept = {key: getattr(own, key) for key in ("labels", "transition", "isolation", "worker")}
            if own.artefact is not None and self.upload is None and self.config.artefact is None:
                kept |= {"artefact": own.artefact, "backend": self.config.backend or own.backend}
        config = self.config.model_copy(update=kept)
        if self.upload is not None:
            return replace(self.upload, config=config)
        if found is None or found.ambiguous:
            return found
        error = found.error if found.config is not None or not found.versions else ""
        return replace(found, config=config, error=error, held="", notes=self.notes)


_PROGRAMS: Final = ("cc_model_filenames", "model_repository_agents", "model_operations", "runtime")


def check_replacement(name: str, config: str, own: ModelConfig | None) -> tuple[str, ...]:
    """Checks the settings of a load before anything is done: they may describe the model and how it runs, and may name
    no file and no program. Those are for whoever can write into the model's directory. `own`: the settings of the
    version that is served, whose files may be repeated.

    Returns the models of the steps if the settings are those of an ensemble. Raises InvalidRequest."""
    try:
        given = read_triton_json(config)
    except TextFormatError as error:
        raise InvalidRequest(f"load failed for model '{name}': {SOURCE}: {error}") from None
    values = given.values
    known = {own.artefact} if own is not None else set()
    labels = {t.labels for s in own.signatures for t in s.outputs} if own is not None else set()
    named = [key for key in _PROGRAMS if values.get(key)]
    named += [key for key in given.unknown if key.partition(".")[0] in _PROGRAMS]
    if values.get("default_model_filename") and values["default_model_filename"] not in DEFAULT_FILES | known:
        named.append("default_model_filename")
    if any(
        output.get("label_filename") and output["label_filename"] not in labels for output in values.get("output", ())
    ):
        named.append("output.label_filename")
    samples = values.get("model_warmup", ())
    if any(tensor.get("input_data_file") for sample in samples for tensor in (sample.get("inputs") or {}).values()):
        named.append("model_warmup.inputs.input_data_file")
    if named:
        raise InvalidRequest(
            f"load failed for model '{name}': {SOURCE}: expected settings that name no files and no programs, got "
            f"{', '.join(named)}: set them in the model's config.pbtxt"
        )
    steps = (values.get("ensemble_scheduling") or {}).get("step", ())
    return tuple(dict.fromkeys(str(step["model_name"]) for step in steps if step.get("model_name")))


class OverrideReader:
    """Reads replacements. Thread-safe; it writes files, so not for the manager's thread."""

    def __init__(self, resolve: ResolveRequest, uploads: Uploads) -> None:
        self.uploads = uploads
        self._resolve = resolve

    def make(self, name: str, replacement: Replacement, by: str, at: float) -> LoadOverride:
        """The load override of a replacement. Raises InvalidRequest, Overloaded or ExecutionFailed, and then leaves no
        file behind."""
        try:
            triton = read_triton_json(replacement.config)
            config, notes = self._resolve(name, triton.values)
        except (TextFormatError, ConfigError) as error:
            raise InvalidRequest(f"load failed for model '{name}': {SOURCE}: {error}") from None
        if triton.unknown:
            notes = (f"{SOURCE}: not honoured: {triton.unknown_text}", *notes)
        upload = self._upload(name, checked_files(replacement.files), notes) if replacement.files else None
        return LoadOverride(config, notes, by, at, upload)

    def _upload(self, name: str, files: Files, notes: tuple[str, ...]) -> ModelOnDisk:
        if not name or not name.isprintable() or "/" in name or is_hidden(name) or is_partial(name):
            raise InvalidRequest(f"expected a name that a model's directory could have, got {name[:200]!r}")
        directory = self.uploads.write(files)
        numbers = sorted({int(path[0]) for path in files}, reverse=True)
        versions = tuple(
            VersionOnDisk(number, directory / str(number), read_tree(directory / str(number))) for number in numbers
        )
        held = next((version.tree.held for version in versions if version.tree.held), "")
        if held:
            self.uploads.remove(directory)
            raise InvalidRequest(f"load failed for model '{name}': {held}")
        return ModelOnDisk(name, directory, versions=versions, notes=notes)


class LoadOverrides:
    """The load overrides in force, by model. The manager's thread only."""

    def __init__(self) -> None:
        self._current: dict[str, LoadOverride] = {}
        self._unused: list[tuple[str, Path]] = []

    def get(self, name: str) -> LoadOverride | None:
        """The load override in force for a model, None when there is none."""
        return self._current.get(name)

    def put(self, name: str, load_override: LoadOverride | None) -> None:
        """Puts a load override in force; None: the model's own settings and files count again. The one before may come
        back, until it is passed to `discard`."""
        self._current.pop(name, None)
        if load_override is not None:
            self._current[name] = load_override

    def drop(self, name: str) -> bool:
        """The model's own settings and files count again, for good. Whether that changes anything."""
        before = self._current.pop(name, None)
        self.discard(name, before)
        return before is not None

    def discard(self, name: str, load_override: LoadOverride | None) -> None:
        """A load override will not come back: its files are not needed any more."""
        if load_override is not None and load_override.upload is not None:
            self._unused.append((name, load_override.upload.directory))

    def over(self, listing: Listing) -> Listing:
        """The listing with the load overrides applied."""
        if not self._current:
            return listing
        models = dict(listing.models)
        for name, load_override in self._current.items():
            model = load_override.over(models.get(name))
            if model is not None:
                models[name] = model
        return replace(listing, models=dict(sorted(models.items())))

    def shown(self, name: str) -> tuple[PublishedOverride, ...]:
        """The load override in force as the status shows it; empty when there is none."""
        load_override = self._current.get(name)
        return () if load_override is None else (load_override.shown,)

    def unused(self, models: Mapping[str, ModelState]) -> list[Path]:
        """Directories of discarded files that no load reads any more; each is returned once."""
        if not self._unused:
            return []
        read = [(n, d) for n, d in self._unused if n in models and models[n].loading]
        gone = [entry[1] for entry in self._unused if entry not in read]
        self._unused = read
        return gone
