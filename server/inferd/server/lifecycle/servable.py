"""A loaded version, and the handles by which requests keep it loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from inferd.backends.api import Signature
from inferd.server.lifecycle.state import ServableId

if TYPE_CHECKING:
    from inferd.server.config.ensemble_schema import Step
    from inferd.server.config.schema import ModelConfig
    from inferd.server.isolation.process import WorkerProcess
    from inferd.server.scheduling.ensemble.scheduler import EnsembleScheduler
    from inferd.server.scheduling.scheduler import Scheduler


class Servable:
    """One version of one model, loaded and warmed up. Thread-safe; its attributes never change.

    The reference count is the size of a set of handles. To add to and to remove from a set of such objects are single,
    atomic steps of the interpreter: taking and giving back need no lock, and a second release of a handle removes
    nothing.

    signatures          by name, the default one first
    default_signature   its name
    max_batch_size      rows in one batch at most; 0: unbatched
    stateful            answers depend on earlier calls: a retry is not safe
    default_priority    of requests that name none
    devices             where the instances run
    nbytes              estimate of the memory that the version takes
    load_seconds        time that the load took, warm-up included
    notes               what an operator should know
    origin              where the version comes from: pairs of key and value, see repository.provenance
    class_labels        names of classes by output, None when there are none
    settings            the settings with which it was loaded, None when they are not kept
    ensemble            the steps of an ensemble, () for every other model
    worker              the process in which it lives, None: this one
    plans               what the front end has found out about requests to it, for it to look up; it bounds them
    """

    __slots__ = (
        "_held", "_on_idle", "_retired", "backend", "batching", "class_labels", "default_priority", "default_signature",
        "devices", "ensemble", "generation", "id", "load_seconds", "max_batch_size", "nbytes", "notes", "origin",
        "plans", "scheduler", "settings", "signatures", "stateful", "worker",
    )  # fmt: skip

    def __init__(
        self,
        id: ServableId,  # noqa: A002
        generation: int,
        *,
        backend: str,
        signatures: dict[str, Signature],
        scheduler: Scheduler | EnsembleScheduler,
        default_priority: int = 1,
        nbytes: int = 0,
        load_seconds: float = 0.0,
        notes: tuple[str, ...] = (),
        origin: tuple[tuple[str, str], ...] = (),
        ensemble: tuple[Step, ...] = (),
        class_labels: Mapping[str, Sequence[str]] | None = None,
        worker: WorkerProcess | None = None,
        settings: ModelConfig | None = None,
    ) -> None:
        self.id: Final = id
        self.generation: Final = generation
        self.backend: Final = backend
        self.signatures: Final = signatures
        self.default_signature: Final = next(iter(signatures))
        self.scheduler: Final = scheduler
        self.max_batch_size: Final = scheduler.max_batch_size
        self.stateful: Final = scheduler.stateful
        self.batching: Final = scheduler.batching
        self.devices: Final = tuple(scheduler.devices)
        self.default_priority: Final = default_priority
        self.nbytes: Final = nbytes
        self.load_seconds: Final = load_seconds
        self.notes: Final = notes
        self.origin: Final = origin
        self.ensemble: Final = ensemble
        self.class_labels: Final = class_labels or None
        self.worker: Final = worker
        self.settings: Final = settings
        self.plans: Final[dict[object, Any]] = {}
        self._held: set[ServableHandle] = set()
        self._retired = False
        self._on_idle: Callable[[Servable], None] | None = None

    def acquire(self) -> ServableHandle | None:
        """A handle, None when the servable has been retired: then there is a newer serving map."""
        handle = ServableHandle(self)
        self._held.add(handle)
        # Added before looking: either `retire` sees the handle, or this sees that the servable is retired.
        if self._retired:
            handle.release()
            return None
        return handle

    @property
    def serves(self) -> bool:
        """Whether it can answer: not when the process in which it lives has ended."""
        return self.worker is None or not self.worker.lost

    @property
    def handles(self) -> int:
        """The number of handles that are out."""
        return len(self._held)

    def retire(self, on_idle: Callable[[Servable], None]) -> None:
        """Gives out no more handles, and calls `on_idle(self)` when the last one is back: at once, or on the thread
        that releases it, and more than once when releases coincide. Call it after the servable has left the map."""
        self._on_idle = on_idle
        self._retired = True
        if not self._held:
            on_idle(self)

    def _released(self, handle: ServableHandle) -> None:
        try:
            self._held.remove(handle)
        except KeyError:
            return
        if self._retired and not self._held and self._on_idle is not None:
            self._on_idle(self)

    def __repr__(self) -> str:
        return f"<Servable {self.id} generation {self.generation}>"


class ServableHandle:
    """Keeps a servable loaded until it is released. Thread-safe. Release it in a `finally`, or use it as a context
    manager."""

    __slots__ = ("servable",)

    def __init__(self, servable: Servable) -> None:
        self.servable: Final = servable

    def another(self) -> ServableHandle:
        """A second handle on the servable, whether it has been retired or not. To be called before this one is
        released."""
        handle = ServableHandle(self.servable)
        self.servable._held.add(handle)
        return handle

    def release(self) -> None:
        """Gives the servable back. Thread-safe; only the first call does anything."""
        self.servable._released(self)

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
