"""The scheduler of an ensemble: it has no model and submits each step to the scheduler of that step's model.

A request holds a handle on every model that it needs from admission to its answer, so that a swap or an unload of a
step's model does not affect it. A step runs as soon as its inputs are ready, in parallel with other steps where
possible, and shares batches with other requests to its model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from inferd.backends.api import Array, Signature
from inferd.server.config.schema import Queue
from inferd.server.errors import InvalidRequest, Overloaded, ServingError, Unavailable
from inferd.server.scheduling.ensemble.run import EnsembleRun, Held
from inferd.server.scheduling.ensemble.step_graph import GraphStep, StepGraph
from inferd.server.scheduling.observer import BatchObserver, NullObserver
from inferd.server.scheduling.policies.fair_share import FairShare, Who
from inferd.server.scheduling.rejection import QueueFigures, Reason, Rejection, invalid
from inferd.server.scheduling.request import InferenceRequest, Route

_REMEMBERED = 64  # cached sets of wanted outputs
_RETRY = 0.05  # seconds; an ensemble cannot estimate how long its requests will take


Acquire = Callable[[str, int | None], Held]
"""Takes a model name and a version (None: the default one) and returns a handle. Raises ServingError."""


class StepAccess(Protocol):
    """Whether the caller of an ensemble may use its steps' models. Thread-safe."""

    def permit(self, call: Any, ensemble: str, steps: Sequence[GraphStep]) -> None:
        """Raises Forbidden or Unauthenticated, which names no step's model, unless the caller of `call` may predict
        with the models of all steps. `ensemble` is for the message."""
        ...

    def sees(self, call: Any, model: str) -> bool:
        """Whether an error for the caller of `call` may name a model. Never raises."""
        ...


Check = Callable[[Any, Signature, Mapping[str, Array], Sequence[str]], None]
"""Checks the inputs and wanted outputs of a servable's signature. Raises InvalidRequest."""


class EnsembleScheduler:
    """Runs requests through the steps of an ensemble. Has the interface of Scheduler. Thread-safe."""

    def __init__(
        self,
        name: str,
        signature: Signature,
        wiring: StepGraph,
        *,
        acquire: Acquire,
        check: Check,
        queue: Queue,
        max_batch_size: int = 0,
        stateful: bool = False,
        devices: tuple[str, ...] = (),
        observer: BatchObserver | None = None,
        who: Who | None = None,
        access: StepAccess | None = None,
        trusted: bool = False,
    ) -> None:
        """
        wiring           the ensemble's graph
        acquire, check   see Acquire and Check
        queue            bounds requests and bytes in flight in the ensemble; the queues of its steps have other bounds
        max_batch_size   most rows of a request; 0: no limit and no batch axis
        who              returns the client of a call, for fair shares; None: first come, first served
        access           decides about the steps; None: nobody needs credentials
        trusted          who may call the ensemble may use its steps through it
        """
        self.name = name
        self.signature = signature
        self.wiring = wiring
        self.max_batch_size = max_batch_size
        self.stateful = stateful
        self.devices = devices
        self.acquire = acquire
        self.check = check
        self.access = access
        self._permits = access.permit if access is not None and not trusted else None
        self.observer = NullObserver() if observer is None else observer
        self._most = queue.requests
        self._most_bytes = queue.bytes
        self._lock = threading.Condition(threading.Lock())
        self._runs: dict[InferenceRequest, EnsembleRun] = {}
        self._nbytes = 0
        self._who = who if queue.fair else None
        self._shares: FairShare | None = None
        self._refusal = ""
        self._needed: dict[tuple[str, ...] | None, frozenset[int]] = {None: wiring.only(wiring.outputs)}

    # -- serving -------------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[InferenceRequest], *, alike: bool = False) -> list[Rejection]:
        """Admits requests in this order. Returns the refused ones, each with its reason; every other request gets
        exactly one outcome. Never blocks on a model. `alike`: not used, see Scheduler.
        """
        rejected = []
        for request in requests:
            if request.finished:
                continue
            try:
                self._start(request)
            except ServingError as error:
                rejected.append(invalid(request, error))
        return rejected

    def route(self, signature: str, wanted: tuple[str, ...] | None, inputs: Mapping[str, Array]) -> Route | None:
        """None: requests to an ensemble go to the queues of its steps."""
        return None

    def _start(self, request: InferenceRequest) -> None:
        if request.signature != self.signature.name:
            raise InvalidRequest(f"{self.name} has no signature {request.signature!r}; it has {self.signature.name}")
        if self.max_batch_size:
            request.route = Route(request.signature, request.wanted, rows=self._rows(request.inputs))
        request.enqueued_at = monotonic()
        stages = self._stages(request.wanted)
        if self._permits is not None and request.call is not None:  # no call: the server's own request
            self._permits(request.call, self.name, [self.wiring.stages[index] for index in sorted(stages)])
        run = EnsembleRun(self, request, stages)
        self._enter(run)
        try:
            run.start()
        except BaseException:
            self.leave(run)
            raise
        run.started = True  # from now on another client's request may evict it
        if self._shares is not None:
            with self._lock:
                if self._shares is not None and request in self._runs:
                    self._shares.join(request)

    def _rows(self, inputs: Mapping[str, Array]) -> int:
        sizes = {
            name: inputs[name].shape[0]
            for name in (spec.name for spec in self.signature.inputs)
            if name in inputs and inputs[name].ndim
        }
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
            raise InvalidRequest(f"{self.name}: expected as many rows in every input, got: {found}")
        rows = next(iter(sizes.values()), 1)
        if rows > self.max_batch_size:
            raise InvalidRequest(
                f"{self.name}: expected at most {self.max_batch_size} rows (max_batch_size), got {rows}"
            )
        return rows

    def _stages(self, wanted: tuple[str, ...] | None) -> frozenset[int]:
        found = self._needed.get(wanted)
        if found is None:
            found = self.wiring.only(wanted or ())
            if len(self._needed) < _REMEMBERED:
                self._needed[wanted] = found
        return found

    def _enter(self, run: EnsembleRun) -> None:
        request = run.request
        evicted: list[EnsembleRun] = []
        with self._lock:
            if self._refusal:
                raise Unavailable(self._refusal)
            if len(self._runs) >= self._most or self._nbytes + request.nbytes > self._most_bytes:
                evicted = self._evict(request)
                if not evicted:
                    self.observer.dropped("full")
                    raise Overloaded(
                        f"{self.name} is full: {len(self._runs)} of {self._most} requests in flight (queue.requests), "
                        f"{self._nbytes} of {self._most_bytes} bytes (queue.bytes)",
                        retry_after=_RETRY,
                    )
            self._runs[request] = run
            self._nbytes += request.nbytes
        for other in evicted:
            self.observer.dropped("full")
            figures = QueueFigures(0, self._most, 0, self._most_bytes, _RETRY)
            eviction = Rejection([other.request], Reason.GAVE_WAY, self.name, figures, accepted=True)
            other.fail(eviction.error())

    def _evict(self, request: InferenceRequest) -> list[EnsembleRun]:
        """Takes the runs off the count that fair shares evict for a request, so that it fits. Empty: it may evict none.
        The caller fails the runs, and holds the lock."""
        if self._who is None:
            return []
        if self._shares is None:
            self._shares = FairShare(self._who, (running for running, run in self._runs.items() if run.started))
        places = len(self._runs) + 1 - self._most
        evicted = self._shares.give_way(request, places, self._nbytes + request.nbytes - self._most_bytes)
        return [self._uncount(other) for other in evicted]

    def _uncount(self, request: InferenceRequest) -> EnsembleRun:
        self._nbytes -= request.nbytes
        return self._runs.pop(request)

    def leave(self, run: EnsembleRun) -> None:
        """Takes a run that has ended off the count. Idempotent."""
        with self._lock:
            if run.request in self._runs:
                self._uncount(run.request)
                if self._shares is not None:
                    self._shares.leave((run.request,))
                    if self._shares.dispersed:
                        self._shares = None
                if not self._runs:
                    self._lock.notify_all()

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def batching(self) -> str:
        """How requests share batches, as text for operators."""
        return "each step batches in its own model"

    @property
    def basis(self) -> str:
        """As Scheduler.basis: the models of the steps decide."""
        return "steps"

    @property
    def queue_depth(self) -> tuple[int, int]:
        """Requests in flight in the ensemble, and their bytes."""
        return len(self._runs), self._nbytes

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self, timeout: float | None) -> bool:
        """Refuses new requests with Unavailable and waits up to `timeout` seconds for the requests in flight (None:
        without limit). Returns whether all have ended."""
        with self._lock:
            self._refusal = self._refusal or f"{self.name} is being unloaded"
            return self._lock.wait_for(lambda: not self._runs, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Fails the requests in flight with Unavailable. Idempotent. Closes no model: the steps' models are loaded and
        closed by themselves."""
        with self._lock:
            self._refusal = f"{self.name} is closed"
            runs = list(self._runs.values())
        for run in runs:
            run.fail(Unavailable(self._refusal, accepted=True))
