"""The Source scans the repository again and again, and delivers a full listing to the manager after each scan.

Every listing is complete, so the manager needs no earlier one, and a lost listing does no harm. The source's thread
polls; file events only make the next scan come earlier.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from inferd.server.config.schema import Repository
from inferd.server.observability.events import event, get
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels
from inferd.server.repository.disk import Listing, ModelOnDisk
from inferd.server.repository.misplaced import Artefacts, Misplaced
from inferd.server.repository.model_scanner import ModelScanner
from inferd.server.repository.model_settings import Resolve, SettingsReader
from inferd.server.repository.scanner import ConfiguredModelScanner, RootScanner
from inferd.server.repository.settle import Settle

log = get("lifecycle")

Clock = Callable[[], float]


class RepositoryScanner:
    """Scans all roots and all configured models. One thread only."""

    def __init__(
        self,
        config: Repository,
        resolve: Resolve,
        *,
        named: ConfiguredModels | None = None,
        artefacts: Artefacts = frozenset,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """`named`: the configured models, which may be replaced between two scans. `artefacts`: gives the names of the
        files that backends serve."""
        self._settle = Settle(config.settle, clock, wall_clock)
        self._settings = SettingsReader(resolve, self._settle)
        self._scanner = ModelScanner(self._settings, self._settle, Misplaced(artefacts), config.ready_file)
        self._allowed = tuple(config.allowed_link_targets)
        self._roots = [
            RootScanner(Path(root), self._scanner, name=config.model_name, allowed_link_targets=self._allowed)
            for root in dict.fromkeys(os.path.abspath(root) for root in config.roots)
        ]
        self._configured_models = named or ConfiguredModels()
        self._followed: Mapping[str, ConfiguredModel] = {}  # as in the last scan
        self._model_scanners: dict[str, ConfiguredModelScanner] = {}

    @property
    def due(self) -> float | None:
        """The monotonic time at which the next change found by the last scan will have settled. None if all have."""
        return self._settle.due

    def scan(self, sequence: int = 0) -> Listing:
        """Scans everything. Problems on disk do not raise; they are part of the listing."""
        self._settle.begin()
        self._scanner.begin()
        self._follow(self._configured_models.current)
        for root in self._roots:
            root.scan()
        for scanner in self._model_scanners.values():
            scanner.scan()
        self._settle.keep(self._scanner.keys)
        found = [
            *(model for root in self._roots for model in root.models.values()),
            *(scanner.model for scanner in self._model_scanners.values()),
        ]
        self._settings.keep(model.directory for model in found)
        models: dict[str, ModelOnDisk] = {}
        for model in found:
            other = models.get(model.name)
            models[model.name] = model if other is None or _same_directory(other, model) else _ambiguous(other, model)
        return Listing(
            dict(sorted(models.items())),
            errors=(
                *(root.error for root in self._roots if root.error),
                *(scanner.model.error for scanner in self._model_scanners.values() if not scanner.read_once),
            ),
            complete=all(root.read_once for root in self._roots)
            and all(scanner.read_once for scanner in self._model_scanners.values()),
            sequence=sequence,
            directories=tuple(dict.fromkeys(self._scanner.directories)),
        )

    def _follow(self, configured: Mapping[str, ConfiguredModel]) -> None:
        """From now on scans these configured models."""
        if configured is self._followed:
            return
        before, self._followed = self._followed, configured
        scanners = self._model_scanners
        for name in [name for name in scanners if name not in configured]:
            del scanners[name]
        for name, model in configured.items():
            if name not in scanners or scanners[name].directory != model.base_path:
                scanners[name] = ConfiguredModelScanner(
                    name, model.base_path, self._scanner, allowed_link_targets=self._allowed
                )
            if before.get(name) != model:
                self._settings.forget(model.base_path)


def _same_directory(a: ModelOnDisk, b: ModelOnDisk) -> bool:
    """Whether both are one model: a configured model's base path may lie in a root."""
    try:
        return os.path.samefile(a.directory, b.directory)
    except OSError:
        return a.directory == b.directory  # one of them is gone


def _ambiguous(one: ModelOnDisk, other: ModelOnDisk) -> ModelOnDisk:
    # It is unknown which of the two is meant, so neither is loaded. Versions that are served already stay.
    where = f"{one.directory} and {other.directory}"
    return replace(
        one,
        config=None,
        held="",
        error=f"model {one.name!r} is in two repositories, {where}: keep one of them",
        ambiguous=True,
    )


class SourceLike(Protocol):
    """The part of a source that the manager uses."""

    def start(self, deliver: Callable[[Listing], None]) -> None:
        """Starts to scan. `deliver` is called on the source's thread with every listing."""
        ...

    def request_scan(self) -> int:
        """Requests a scan now. Returns a sequence number: a listing with this number or a higher one comes from a scan
        that began after this call."""
        ...

    def stop(self) -> None:
        """Stops scanning. Waits for a running scan, but not for ever."""
        ...


class Source:
    """Scans on its own thread: every `poll` seconds, when a change will have settled, and when woken. Thread-safe."""

    def __init__(self, scanner: RepositoryScanner, *, poll: float, clock: Clock = time.monotonic) -> None:
        self._scanner = scanner
        self._poll = max(poll, 0.01)
        self._clock = clock
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._begun = 0  # scans begun
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[Listing], None]) -> None:
        """See SourceLike."""
        self._thread = threading.Thread(target=self._run, args=(deliver,), name="inferd-source", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Makes the next scan start at once instead of at the next poll."""
        self._wake.set()

    def request_scan(self) -> int:
        """See SourceLike."""
        with self._lock:
            # A running scan may already have passed the directory that the caller has changed.
            sequence = self._begun + 1
        self._wake.set()
        return sequence

    def stop(self) -> None:
        """See SourceLike."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)  # a dead network mount blocks a scan for ever; the thread is a daemon

    def _run(self, deliver: Callable[[Listing], None]) -> None:
        errors: tuple[str, ...] = ()
        while not self._stopped:
            self._wake.clear()
            with self._lock:
                self._begun += 1
                sequence = self._begun
            try:
                listing = self._scanner.scan(sequence)
            except Exception as error:
                event(log, logging.ERROR, "the repository scan failed; what is served stays as it is", error=error)
                self._wake.wait(self._poll)
                continue
            for problem in listing.errors:
                if problem not in errors:
                    event(log, logging.ERROR, "repository problem", reason=problem)
            errors = listing.errors
            deliver(listing)
            wait = self._poll
            if self._scanner.due is not None:
                wait = min(wait, max(0.0, self._scanner.due - self._clock()))
            self._wake.wait(wait)
