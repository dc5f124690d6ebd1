"""The Source: looks at the repository, again and again, and hands the whole of what is there to the manager.

Every listing is complete: nothing has to be remembered between two of them, and a lost one costs nothing. The thread
polls; file events only make it look earlier.
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
from inferd.server.repository.model_scanner import ModelScanner
from inferd.server.repository.model_settings import Resolve, SettingsReader
from inferd.server.repository.scanner import ConfiguredModelScanner, RootScanner
from inferd.server.repository.settle import Settle

log = get("lifecycle")

Clock = Callable[[], float]


class RepositoryScanner:
    """All roots and all named models together. One thread only."""

    def __init__(
        self,
        config: Repository,
        resolve: Resolve,
        *,
        named: ConfiguredModels | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """`named`: the models that are named one by one; may be replaced between two scans."""
        self._settle = Settle(config.settle, clock, wall_clock)
        self._settings = SettingsReader(resolve, self._settle)
        self._scanner = ModelScanner(self._settings, self._settle, config.ready_file)
        self._allowed = tuple(config.allowed_link_targets)
        self._roots = [
            RootScanner(Path(root), self._scanner, allowed_link_targets=self._allowed)
            for root in dict.fromkeys(os.path.abspath(root) for root in config.roots)
        ]
        self._named = named or ConfiguredModels()
        self._seen: Mapping[str, ConfiguredModel] = {}
        self._own: dict[str, ConfiguredModelScanner] = {}

    @property
    def due(self) -> float | None:
        """Monotonic time at which something seen in the last scan will have settled."""
        return self._settle.due

    def scan(self, sequence: int = 0) -> Listing:
        """Looks at everything. Never raises for what it finds: problems are part of the listing."""
        self._settle.begin()
        self._scanner.keys = set()
        self._follow(self._named.current)
        for root in self._roots:
            root.scan()
        for own in self._own.values():
            own.scan()
        self._settle.keep(self._scanner.keys)
        found = [
            *(model for root in self._roots for model in root.models.values()),
            *(own.model for own in self._own.values()),
        ]
        self._settings.keep(model.directory for model in found)
        models: dict[str, ModelOnDisk] = {}
        for model in found:
            twin = models.get(model.name)
            models[model.name] = model if twin is None or _same(twin, model) else _twice(twin, model)
        return Listing(
            dict(sorted(models.items())),
            errors=(
                *(root.error for root in self._roots if root.error),
                *(own.model.error for own in self._own.values() if not own.read_once),
            ),
            complete=all(root.read_once for root in self._roots) and all(own.read_once for own in self._own.values()),
            sequence=sequence,
        )

    def _follow(self, named: Mapping[str, ConfiguredModel]) -> None:
        """Looks from now on at these named models."""
        if named is self._seen:
            return
        before, self._seen = self._seen, named
        for name in [name for name in self._own if name not in named]:
            del self._own[name]
        for name, model in named.items():
            if name not in self._own or self._own[name].directory != model.base_path:
                self._own[name] = ConfiguredModelScanner(
                    name, model.base_path, self._scanner, allowed_link_targets=self._allowed
                )
            if before.get(name) != model:
                self._settings.forget(model.base_path)


def _same(one: ModelOnDisk, other: ModelOnDisk) -> bool:
    """Whether a named model is one that lies in a root."""
    return os.path.realpath(one.directory) == os.path.realpath(other.directory)


def _twice(one: ModelOnDisk, other: ModelOnDisk) -> ModelOnDisk:
    # Which of the two is meant cannot be known, so neither is loaded; what is served already stays.
    where = f"{one.directory} and {other.directory}"
    return replace(
        one,
        config=None,
        held="",
        error=f"model {one.name!r} is in two repositories, {where}: keep one of them",
        ambiguous=True,
    )


class SourceLike(Protocol):
    """What the manager needs of a source."""

    def start(self, deliver: Callable[[Listing], None]) -> None:
        """Begins to look; `deliver` is called on the source's thread with every listing."""
        ...

    def request_scan(self) -> int:
        """Asks for a look now. Gives the sequence number of the first listing that is sure to be newer than this
        call."""
        ...

    def stop(self) -> None:
        """Ends the looking. Waits for a look under way, but not for ever."""
        ...


class Source:
    """Scans on its own thread: every `poll` seconds, when something will have settled, and when woken. Thread-safe."""

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
        """Looks at once instead of at the next poll."""
        self._wake.set()

    def request_scan(self) -> int:
        """See SourceLike."""
        with self._lock:
            # A scan under way may have passed the place that the caller means.
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
