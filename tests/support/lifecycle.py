"""Fakes for the lifecycle that the test steps: a clock that stands still, a pool that waits, a simple loader."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from inferd.backends.api import LoadError, Signature, TensorSpec
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.lifecycle.assemble import request_resolver, resolver, uploads_of
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.operations.load_overrides import OverrideReader
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ModelStatus, ServableId, State, StateChange, VersionStatus
from inferd.server.repository.configured_models import ConfiguredModels
from inferd.server.repository.disk import Listing, ModelOnDisk, VersionOnDisk
from inferd.server.repository.source import RepositoryScanner
from inferd.server.repository.tree import FileStat, Tree
from inferd.wire.dtypes import DType

Job = Callable[[], None]
SIGNATURE = Signature("serving_default", (TensorSpec("x", DType.FP32, (-1, 2)),), (TensorSpec("y", DType.FP32, (-1,)),))


class FakeClock:
    """Monotonic and wall-clock time that move only when the test advances them."""

    def __init__(self, now: float = 1000.0, wall: float = 4e9) -> None:
        self.now = now
        # Far in the future, so that files which were just written count as old in `RepositoryScanner`'s first scan.
        self.offset = wall - now

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def advance(self, seconds: float) -> None:
        self.now += seconds


class StepPool:
    """Keeps jobs until the test runs them. Jobs whose key is in `held` are not run, as if they hung."""

    def __init__(self) -> None:
        self.urgent: list[tuple[Hashable, Job]] = []
        self.later: list[tuple[Hashable, Job]] = []
        self.held: set[Hashable] = set()
        self.stopped = False

    def submit(self, key: Hashable, job: Job, *, urgent: bool = True) -> None:
        (self.urgent if urgent else self.later).append((key, job))

    def stop(self) -> None:
        self.stopped = True
        self.urgent.clear()
        self.later.clear()

    def step(self) -> bool:
        """Runs one job. False if there is none."""
        for jobs in (self.urgent, self.later):
            for number, (key, job) in enumerate(jobs):
                if key not in self.held:
                    del jobs[number]
                    job()
                    return True
        return False


class FakeScheduler:
    """The part of a scheduler that a servable uses. `closed` counts the calls of `close`."""

    max_batch_size = 0
    stateful = False
    batching = "unbatched: a fake"
    devices = ("cpu",)

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def fake_servable(name: str = "m", version: int = 1, generation: int = 1) -> Servable:
    return Servable(
        ServableId(name, version),
        generation,
        backend="fake",
        signatures={SIGNATURE.name: SIGNATURE},
        scheduler=cast(Any, FakeScheduler()),
    )


class FakeLoader:
    """Loads a version by reading its file `model`. A text that starts with "bad" is the error with which the load
    fails; any other text loads.

    `loads` and `unloads` record the calls, in order; `on_load` is called in the middle of a load.
    """

    def __init__(self) -> None:
        self.loads: list[tuple[str, int, str]] = []
        self.unloads: list[tuple[str, int, int]] = []
        self.requests: list[LoadRequest] = []
        self.on_load: Callable[[LoadRequest], None] = lambda request: None
        self.texts: dict[int, str] = {}  # by generation
        self.preloaded: tuple[str, ...] = ()

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        try:
            text = (request.version.path / "model").read_text()
        except OSError as error:
            text = f"bad: no model file ({error.strerror})"
        self.loads.append((request.id.name, request.id.version, text))
        self.requests.append(request)
        self.on_load(request)
        cancellation.check()
        if text.startswith("bad"):
            raise LoadError(text)
        self.texts[request.generation] = text
        return Servable(
            request.id,
            request.generation,
            backend="fake",
            signatures={SIGNATURE.name: SIGNATURE},
            scheduler=cast(Any, FakeScheduler()),
            notes=request.notes,
        )

    def unload(self, servable: Servable) -> None:
        self.unloads.append((servable.id.name, servable.id.version, servable.generation))
        servable.scheduler.close()

    def preload(self, backends: Sequence[str]) -> None:
        self.preloaded = tuple(backends)


class FakeSource:
    """A source that delivers a listing only when the test calls `deliver`."""

    def __init__(self) -> None:
        self.deliver: Callable[[Listing], None] = lambda listing: None
        self.sequence = 0
        self.requested = 0
        self.stopped = False

    def start(self, deliver: Callable[[Listing], None]) -> None:
        self.deliver = deliver

    def request_scan(self) -> int:
        self.requested += 1
        return self.sequence + 1

    def stop(self) -> None:
        self.stopped = True


class SteppedManager:
    """A manager of a repository on disk that the test steps: it runs on the test's thread, with a fake clock."""

    def __init__(self, root: Path, barrier: ActivationBarrier | None = None, **sections: Any) -> None:
        self.root = root
        self.root.mkdir(exist_ok=True)
        repository = {"roots": (str(root),), "settle": 2.0, "poll": 1.0} | sections.pop("repository", {})
        self.config = ServerConfig(repository=repository, **sections)
        self.clock = FakeClock()
        self.pool = StepPool()
        self.loader = FakeLoader()
        self.source = FakeSource()
        self.spawned: list[Job] = []
        self.hold_closing = False
        self.named = ConfiguredModels.of(self.config)
        self.uploads = uploads_of(self.config)
        self.scanner = RepositoryScanner(
            self.config.repository,
            resolver(self.config, self.named),
            named=self.named,
            artefacts=lambda: {"model"},
            clock=self.clock,
            wall_clock=self.clock.wall,
        )
        self.manager = Manager(
            self.config,
            self.source,
            self.loader,
            configured=self.named,
            override_reader=OverrideReader(request_resolver(self.config, self.named), self.uploads),
            barrier=barrier,
            pool=self.pool,
            spawn=lambda name, job: self.spawned.append(job),
            clock=self.clock,
            wall_clock=self.clock.wall,
        )
        self.changes: list[StateChange] = []
        self.manager.subscribe(self.changes.append)

    def write(self, path: str, text: str = "good") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def scan(self) -> Listing:
        self.source.sequence += 1
        listing = self.scanner.scan(self.source.sequence)
        self.manager.deliver(listing)
        return listing

    def run(self) -> None:
        """Runs everything that can run now."""
        while True:
            busy = self.manager.turn() == 0.0
            if self.pool.step():
                continue
            if self.spawned and not self.hold_closing:
                self.spawned.pop(0)()
            elif not busy:
                return

    def see(self) -> None:
        """Scans the repository, and runs everything that follows."""
        self.scan()
        self.run()

    def settle(self) -> None:
        """Scans, waits for the settle time, and scans again: then all files on disk count as completely written."""
        self.see()
        self.clock.advance(self.config.repository.settle)
        self.see()

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.run()

    def do(self, future: Future[ModelStatus]) -> ModelStatus:
        """Runs an operator's command to its end. Returns its result or raises its error."""
        self.scan()
        self.run()
        if not future.done():
            self.clock.advance(self.config.repository.settle)
            self.see()
        return future.result(timeout=0)

    def serves(self, name: str = "m") -> dict[int, str]:
        """The versions that answer requests, each with the text of its model file."""
        found = {}
        model = self.status(name)
        for version in model.versions:
            try:
                with self.manager.acquire(name, version.id.version) as servable:
                    found[version.id.version] = self.loader.texts[servable.generation]
            except Exception:
                continue
        return found

    def default(self, name: str = "m") -> int:
        with self.manager.acquire(name) as servable:
            return servable.id.version

    def status(self, name: str = "m") -> ModelStatus:
        return self.manager.status(name)

    def version(self, number: int, name: str = "m") -> VersionStatus:
        return next(version for version in self.status(name).versions if version.id.version == number)

    def story(self, name: str = "m") -> list[tuple[int, State]]:
        """The announced states of a model's versions, in order."""
        return [(c.status.id.version, c.status.state) for c in self.changes if c.status.id.name == name]


def on_disk(
    name: str, versions: dict[int, str], config: ModelConfig | None = None, *, directory: Path = Path("nowhere")
) -> ModelOnDisk:
    """A model as a source would list it, without a disk. `versions`: the content by version."""
    return ModelOnDisk(
        name,
        directory / name,
        config or ModelConfig(),
        tuple(
            VersionOnDisk(number, directory / name / str(number), Tree((FileStat(text, 1, 1, 1, 1),)))
            for number, text in sorted(versions.items(), reverse=True)
        ),
    )
