"""The loader: one version is opened, placed on its devices, started, warmed up and proven; then it is a servable.

Everything runs on a thread of the load pool. Whatever goes wrong is a LoadError with a message for operators, and
leaves nothing open.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from inferd.backends.api import (
    Array,
    Backend,
    IncompleteArtefact,
    LoadError,
    MissingFramework,
    Model,
    OpenRequest,
    Placement,
)
from inferd.backends.functions.source import KIND
from inferd.backends.functions.steps import open_with_steps
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.ensemble.load import compose
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.class_labels import class_labels
from inferd.server.lifecycle.loading.declared import declared_samples
from inferd.server.lifecycle.loading.load_errors import first_line, load_errors
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.placement import placements
from inferd.server.lifecycle.loading.predecessor import check_successor
from inferd.server.lifecycle.loading.reshape import own_signatures, reshaped
from inferd.server.lifecycle.loading.version_code import VersionCode, inner_signatures, version_code
from inferd.server.lifecycle.loading.warmup_requests import Recorded, checked, warmup_requests
from inferd.server.lifecycle.resources.memory import ProcessMemory
from inferd.server.lifecycle.resources.memory_budget import ESTIMATE, MemoryBudget
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.observability.events import event, get
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.provenance import origin_of, read_provenance
from inferd.server.repository.tree import read_tree
from inferd.server.scheduling.ensemble.scheduler import Acquire, StepAccess
from inferd.server.scheduling.inline import InlineLoop
from inferd.server.scheduling.observer import BatchObserver, NullObserver
from inferd.server.scheduling.policies.fair_share import Who
from inferd.server.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from inferd.server.isolation.process import WorkerProcess
    from inferd.server.isolation.proxy import IsolatedModel

log = get("lifecycle")


class Registry(Protocol):
    """What the loader needs of the registry of backends. Thread-safe."""

    def artefact_names(self) -> frozenset[str]:
        """The names of the files and directories that the backends look for."""
        ...

    def detect(self, directory: Path, wanted: str | None, allow: Collection[str]) -> tuple[Backend, Path]:
        """The backend for a version directory and the artefact in it. `allow`: the kinds of code that are allowed.
        Raises LoadError."""
        ...

    def get(self, name: str) -> Backend:
        """The backend with this name. Raises LoadError."""
        ...

    def named(self, wanted: str) -> Backend:
        """The backend with this name or this Triton platform name. Raises LoadError."""
        ...

    def value(self, name: str) -> str:
        """Where another process finds the backend with this name. Raises LoadError."""
        ...


class LoaderLike(Protocol):
    """What the manager needs of a loader. Thread-safe."""

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        """Loads a version and warms it up. Raises LoadError, or LoadCancelled soon after the cancellation."""
        ...

    def unload(self, servable: Servable) -> None:
        """Closes a servable that no handle refers to, and returns its memory. Never raises."""
        ...

    def preload(self, backends: Sequence[str]) -> None:
        """Imports these frameworks now. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class _Opened:
    """A version that is open. `where`: the placements of its instances; `isolated`: its proxy when it lives in a worker
    process."""

    model: Model
    backend: Backend
    where: tuple[Placement, ...]
    isolated: IsolatedModel | None

    @property
    def worker(self) -> WorkerProcess | None:
        return self.isolated.worker if self.isolated is not None else None

    def end(self) -> None:
        """Ends the worker process, whatever it is doing."""
        if self.isolated is not None:
            self.isolated.worker.end()


class Loader:
    """Loads through the backends and the scheduler. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        *,
        cpu_threads: int,
        memory: ProcessMemory | None = None,
        observer_for: Callable[[ServableId], BatchObserver] | None = None,
        loop: InlineLoop | None = None,
        recorded: Recorded | None = None,
        budget: MemoryBudget | None = None,
        who: Who | None = None,
        trust: CodeTrust | None = None,
        step_access: StepAccess | None = None,
        largest_answer: int | None = None,
    ) -> None:
        """`cpu_threads`: threads that the instances of a model share. `recorded` reads the warm-up requests that
        TensorFlow Serving's users record beside a version. `budget`: a version that does not fit into it is not loaded.
        `who` tells the clients of a queue apart. `trust`: the code that versions may bring along; None: none.
        `largest_answer`: bytes of the outputs that a worker process may give for one run.
        `step_access` decides who may use the steps of ensembles; None: nobody needs credentials."""
        self._step_access = step_access
        self._largest_answer = largest_answer
        self._who = who
        self._trust = trust or CodeTrust({})
        self._budget = budget
        self._registry = registry
        self._cpu_threads = cpu_threads
        self._memory = memory or ProcessMemory()
        self._observer_for = observer_for
        self._loop = loop
        self._recorded = recorded
        self._acquire: Acquire | None = None

    def connect(self, acquire: Acquire) -> None:
        """Sets the function by which ensembles acquire the models that they are made of. Call it before the first
        load."""
        self._acquire = acquire

    def estimate(self, version: VersionOnDisk) -> int:
        """Bytes of memory that the version will take, estimated from the size of its files."""
        return int(version.tree.size * ESTIMATE)

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        """See LoaderLike."""
        with load_errors(request), cancellation.instead_of_errors():
            if request.config.ensemble:
                assert self._acquire is not None
                return compose(request, self._acquire, self._observer(request.id), self._who, self._step_access)
            if self._budget is None:
                return self._load(request, cancellation)
            self._budget.reserve(request)
            try:
                servable = self._load(request, cancellation)
                self._budget.loaded(request, elsewhere=servable.worker is not None)
            except BaseException:
                self._budget.release(request.id, request.generation)
                raise
            return servable

    def _load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        began = time.monotonic()
        config = request.config
        cancellation.check()
        opened = self._open(request, cancellation)
        model = opened.model
        scheduler = self._scheduler(request, opened)
        notes: tuple[str, ...] = ()
        declared: tuple[str, ...] = ()
        if config.stateful is False and model.traits.stateful:
            declared = ("stateful: false is declared, although its graph keeps state between runs",)
        try:
            cancellation.check()
            scheduler.start()
            cancellation.check()
            if config.warmup.mode != "off":
                refusals = scheduler.warm_up(config.warmup.runs)
                cancellation.check()
                if refusals and self._acquire is not None and not request.insisted:
                    check_successor(request.id, refusals, self._acquire, cancellation)
                notes = tuple(f"{r.signature}: no warm-up, it fails on seeded data: {r.reason}" for r in refusals)
                scheduler.replay(self.warmup(request, model))
                cancellation.check()
            scheduler.prove()
            if opened.isolated is not None:
                opened.isolated.serving(time.monotonic() - began)
            # Files that changed while they were read may load well and still be a mixture of two versions.
            if read_tree(request.version.path, request.version.rule) != request.version.tree:
                raise IncompleteArtefact("its files changed while it was being loaded")
            servable = Servable(
                request.id,
                request.generation,
                backend=opened.backend.name,
                signatures={signature.name: signature for signature in model.signatures},
                scheduler=scheduler,
                default_priority=config.default_priority,
                nbytes=self.estimate(request.version),
                load_seconds=time.monotonic() - began,
                notes=(*request.notes, *model.traits.notes, *declared, *notes),
                origin=tuple(origin_of(read_provenance(request.version.path, request.version.rule)).items()),
                class_labels=class_labels(config, request.version.model_directory, request.version.rule),
                worker=opened.worker,
                settings=config,
            )
            cancellation.disarm()
            return servable
        except BaseException:
            scheduler.close()
            opened.end()
            raise

    def warmup(self, request: LoadRequest, model: Model) -> list[tuple[str, str, Mapping[str, Array], int]]:
        """The requests that the version answers before it takes traffic, in the scheduler's form: name, signature,
        inputs, runs. Raises LoadError for one that does not fit the model."""
        signatures = {signature.name: signature for signature in model.signatures}
        return list(checked(warmup_requests(request, self._recorded), request.id, signatures))

    def _observer(self, id: ServableId) -> BatchObserver:  # noqa: A002
        return self._observer_for(id) if self._observer_for else NullObserver()

    def _scheduler(self, request: LoadRequest, opened: _Opened, where: Sequence[Placement] | None = None) -> Scheduler:
        """The scheduler of an opened model. It closes the model in the end, and at once when this raises."""
        config = request.config
        try:
            return Scheduler(
                str(request.id),
                opened.model,
                opened.where if where is None else where,
                batching=config.batching,
                queue=config.queue,
                stateful=config.stateful,
                samples=declared_samples(config, request.version),
                observer=self._observer(request.id),
                loop=self._loop,
                on_loop=config.instances.on_loop,
                who=self._who,
            )
        except BaseException:
            opened.model.close()
            raise

    @contextmanager
    def placed(self, request: LoadRequest) -> Iterator[tuple[Model, Backend]]:
        """Opens the version, checks its settings against it and starts one instance on each of its devices: all that a
        load does before the model runs. Closes everything in the end. Errors, also those raised within, become
        LoadError."""
        with load_errors(request):
            opened = self._open(request, Cancellation())
            scheduler = self._scheduler(request, opened, tuple(dict.fromkeys(opened.where)))
            try:
                scheduler.start()
                yield opened.model, opened.backend
            finally:
                scheduler.close()
                opened.end()

    def _open(self, request: LoadRequest, cancellation: Cancellation) -> _Opened:
        config = request.config
        path = request.version.path
        allow = self._trust.kinds(path)
        backend, artefact = self._artefact(path, config, allow)
        code = version_code(backend, artefact, path)
        code.check(allow, self._trust.setting(path, request.version.rule.root, KIND))
        if config.isolation == "process" or (config.isolation == "auto" and code.python):
            return self._open_isolated(request, backend, artefact, code, cancellation)
        return self._open_with(request, backend, artefact, code)

    def _open_isolated(
        self, request: LoadRequest, backend: Backend, artefact: Path, code: VersionCode, cancellation: Cancellation
    ) -> _Opened:
        # Imported here, because only servers that isolate a model need it.
        from inferd.server.isolation.process import WorkerLimits
        from inferd.server.isolation.proxy import IsolatedBackend, IsolatedModel

        worker = request.config.worker
        limits = WorkerLimits(worker.start, worker.hang, worker.memory, self._largest_answer)
        subject = f"model {request.id.name!r} version {request.id.version}"
        fields = {"model": request.id.name, "version": request.id.version, "generation": request.generation}
        threads = None
        if code.python:
            own = request.config.instances
            threads = min(self._cpu_threads, own.threads * own.count) if own.threads else self._cpu_threads
        value = self._registry.value(backend.name)
        isolated = IsolatedBackend(backend, value, subject, limits, fields, worker.python, threads)
        cancellation.arm(isolated.cut)
        try:
            return self._open_with(request, isolated, artefact, code, IsolatedModel)
        except BaseException as error:
            isolated.close()
            if isinstance(error, MissingFramework) and worker.python is not None:
                raise LoadError(f"in {worker.python}: {error}") from None
            raise

    def _open_with(
        self,
        request: LoadRequest,
        backend: Backend,
        artefact: Path,
        code: VersionCode,
        proxy: type[IsolatedModel] | None = None,
    ) -> _Opened:
        config = request.config
        missing = backend.complete(artefact)
        if missing:
            raise IncompleteArtefact(missing)
        where = placements(config.instances, backend.devices, self._cpu_threads)
        self._memory.settle_imports()
        opening = OpenRequest(
            model=request.id.name,
            version=request.id.version,
            directory=request.version.path,
            artefact=artefact,
            signatures=own_signatures(config),
            options=config.options,
            allow=self._trust.kinds(request.version.path),
            files=request.version.rule,
            steps=code.steps,
            inner=inner_signatures(config, code.steps),
        )
        # A worker process puts the steps around the model itself.
        model = open_with_steps(backend, opening) if proxy is None else backend.open(opening)
        if not model.signatures:
            model.close()
            raise LoadError("the model has no signature")
        self._memory.settle_imports()
        isolated = model if proxy is not None and isinstance(model, proxy) else None
        return _Opened(reshaped(model, config), backend, where, isolated)

    def _artefact(self, directory: Path, config: ModelConfig, allow: Collection[str]) -> tuple[Backend, Path]:
        if config.artefact is None:
            return self._registry.detect(directory, config.backend, allow)
        if config.backend is None:
            raise LoadError(f"artefact: {config.artefact!r} needs a backend beside it, to say what it is")
        parts = Path(config.artefact).parts
        if os.path.isabs(config.artefact) or ".." in parts:
            raise LoadError(f"artefact: expected a name inside the version's directory, got {config.artefact!r}")
        artefact = directory / config.artefact
        if not artefact.exists():
            there = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
            raise IncompleteArtefact(f"artefact: {config.artefact!r} is not there; the version holds {there}")
        return self._registry.named(config.backend), artefact

    def unload(self, servable: Servable) -> None:
        """See LoaderLike."""
        try:
            servable.scheduler.close()
        except Exception as error:
            event(log, logging.ERROR, "closing failed", error=error, servable=str(servable.id))
        if servable.worker is not None:
            servable.worker.end()  # also when the model hangs: then no thread waits for it any more
        self._memory.after_unload()
        if self._budget is not None:
            self._budget.release(servable.id, servable.generation)

    def preload(self, backends: Sequence[str]) -> None:
        """See LoaderLike."""
        for name in backends:
            try:
                self._registry.get(name).devices()
            except Exception as error:
                event(log, logging.ERROR, "preload failed", backend=name, reason=first_line(error))
        self._memory.settle_imports()
