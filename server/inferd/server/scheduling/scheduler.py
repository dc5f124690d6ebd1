"""The scheduler of one servable: queues, batches and instances behind one small face."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from inferd.backends.api import Array, Instance, LoadError, Model, Placement, Signature
from inferd.server.config.schema import Batching, Queue
from inferd.server.errors import InvalidRequest, Unavailable
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.bucket import ALONE, BucketKeys
from inferd.server.scheduling.double_buffer import share
from inferd.server.scheduling.execution import Executor
from inferd.server.scheduling.inline import InlineBudget, InlineLoop, InlineQueue
from inferd.server.scheduling.inline_executor import LARGE, InlineExecutor, fits, make_inline_queue, may_run_inline
from inferd.server.scheduling.instances import InstanceGroup
from inferd.server.scheduling.observer import BatchObserver, NullObserver
from inferd.server.scheduling.padding import Padding, unknown_names
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.policies.fair_share import Who
from inferd.server.scheduling.qualification.probe import Verdict
from inferd.server.scheduling.qualification.samples import Samples
from inferd.server.scheduling.qualification.warmup import ModelWarmup
from inferd.server.scheduling.queue import SignatureQueue
from inferd.server.scheduling.refusals import overflow
from inferd.server.scheduling.request import InferRequest
from inferd.server.scheduling.request_splitter import RequestSplitter
from inferd.server.scheduling.worker_slot import WorkerSlot

_log = logging.getLogger("inferd.scheduling")
Take = Callable[[WorkerSlot], Batch | None]


class Scheduler:
    """Runs requests on a model. Made once per load: `start`, `warm_up`, `prove`, then `submit` from any thread, at
    last `drain` and `close`. The first submit opens the queues; until `prove` has run, nothing but `batching.mode:
    trusted` is batched.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        placements: Sequence[Placement],
        *,
        batching: Batching,
        queue: Queue,
        stateful: bool = False,
        samples: Mapping[str, Mapping[str, np.ndarray[Any, Any]]] | None = None,
        observer: BatchObserver | None = None,
        loop: InlineLoop | None = None,
        on_loop: Literal["auto", "short", "never"] = "auto",
        who: Who | None = None,
    ) -> None:
        """`samples` by signature and input; `loop`: the front end's, `on_loop`: what may run there; `who` tells the
        callers of requests apart, None: nobody does. Takes the model over: `close` closes it. Raises LoadError for
        settings that do not fit the model.
        """
        self._name = name
        self._model = model
        self._batching = batching
        self._observer = NullObserver() if observer is None else observer
        self.stateful = stateful or model.traits.stateful
        self._signatures = {signature.name: signature for signature in model.signatures}
        for unknown in unknown_names(batching.padding, model.signatures):
            _log.warning("%s: batching.padding names %r, which is no input of the model", name, unknown)
        self._paddings = {s.name: Padding(s, batching.padding) for s in model.signatures}
        tried = {s.name: Samples(s, self._paddings[s.name], (samples or {}).get(s.name)) for s in model.signatures}
        self._rehearsal = ModelWarmup(name, model, batching, tried, stateful=self.stateful)
        self._queues = {
            s.name: SignatureQueue(
                s.name,
                BucketKeys(s, self._paddings[s.name]),
                max_requests=queue.requests,
                max_bytes=queue.bytes,
                timeout=queue.timeout,
                who=who if queue.fair else None,
                outputs=frozenset(spec.name for spec in s.outputs),
            )
            for s in model.signatures
        }
        self._batcher = Batcher(
            name,
            tuple(self._queues.values()),
            delay=batching.max_queue_delay,
            observer=self._observer,
            outlook=DeadlineAdmission() if queue.admission == "deadline" else None,
            cut=batching.size == "auto",
        )
        self._overflows = {
            queue.name: partial(overflow, name, queue, self._observer) for queue in self._queues.values()
        }
        # Two copies of a stateful model would answer from two different pasts.
        self._group = InstanceGroup(name, model, tuple(placements)[:1] if self.stateful else placements)
        self._lock = threading.Lock()
        self._loop = loop
        self._on_loop = on_loop
        self._lane: InlineQueue | None = None
        self._express: InlineExecutor | None = None
        self._pace = InlineBudget(name, max(placement.threads for placement in placements) if placements else 1)
        self._called = partial((loop or InlineLoop()).called, self._pace)
        self._serving = False
        self._closed = False
        self._parkings: list[WorkerSlot] = []
        for signature in model.signatures:
            self._settle(signature, self._rehearsal.without_proof(signature) or Verdict(0, "not proven"))
        if batching.mode == "trusted" and self.max_batch_size:
            _log.warning("%s: batched without proof (batching.mode: trusted)", name)

    # -- loading -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes the instances, each on its own thread. Raises LoadError, with everything closed."""
        try:
            self._group.start()
        except LoadError:
            self.close()
            raise

    def warm_up(self, runs: int = 1) -> None:
        """Runs every signature `runs` times on every instance. Raises LoadError when a declared sample fails; seeded
        data may.
        """
        self._rehearsal.warm(self._group.workers, runs)
        if self.stateful:
            self._renew()

    def replay(self, requests: Iterable[tuple[str, str, Mapping[str, Array], int]]) -> None:
        """Runs requests on every instance: what to call it, signature, inputs that fit it, how often. Raises LoadError
        for the first that fails.
        """
        for name, signature, inputs, runs in requests:
            self._rehearsal.replay(self._group.workers, name, signature, inputs, runs)
        if self.stateful:
            self._renew()

    def prove(self) -> None:
        """Finds out what may be batched, on the first instance. Due before the first submit. Raises LoadError only
        when an instance has to be made anew and cannot.
        """
        if self.stateful:
            return
        worker = self._group.workers[0]
        for signature in self._signatures.values():
            verdict = self._rehearsal.examine(worker, signature)
            self._settle(signature, verdict)
            if verdict.stateful:
                self.stateful = True
                break
        if self.stateful:
            reason = self._queues[signature.name].reason
            for other in self._signatures.values():
                self._settle(other, Verdict(0, reason, stateful=True))
            self._group.keep_one()
            self._renew()

    def _settle(self, signature: Signature, verdict: Verdict) -> None:
        limit = verdict.limit
        preferred = self._batching.preferred_batch_size or limit
        self._batcher.change(
            self._queues[signature.name],
            limit=limit,
            target=max(1, min(preferred, limit)),
            splits=limit > 0 and self._batching.mode == "auto",
            reason=verdict.reason,
        )

    def _unbatch(self, queue: SignatureQueue, reason: str) -> None:
        self._batcher.change(queue, limit=0, target=1, splits=False, reason=reason)

    def _renew(self) -> None:
        for worker in self._group.workers:
            worker.renew().result()

    # -- serving -------------------------------------------------------------------------------------------------------

    def submit(self, request: InferRequest) -> None:
        """Takes a request in. Thread-safe, never blocks on the model.

        Raises InvalidRequest, Overloaded, DeadlineExceeded or Unavailable, and then `on_done` is never called;
        otherwise it is called exactly once. A cancel calls it in any case, whatever becomes of this call.
        """
        if request.cancelled:
            return
        if not self._serving:
            self._open()
        self._called()
        route = request.route
        if route is not None and (queue := route.queue) is not None and route.rows <= queue.limit:
            request.rows = route.rows
            self._batcher.submit(request, queue, route.key)
            return
        queue = self._queues.get(request.signature)
        if queue is None:
            raise InvalidRequest(
                f"{self._name} has no signature {request.signature!r}; it has {', '.join(self._queues)}"
            )
        if route is not None:
            route.overflow = self._overflows[queue.name]
        limit = queue.limit
        if not limit:
            self._batcher.submit(request, queue, ALONE)
            return
        request.rows, key = queue.keys.of(request.inputs)
        if request.rows <= limit:
            if not request.rows:
                key = ALONE
            elif route is not None and queue.keys.by_shape(request.inputs):
                route.key, route.rows, route.queue = key, request.rows, queue
                route.large = request.nbytes >= LARGE
                route.line_up = self._line_up
                if self._express is not None and not self._paddings[queue.name]:
                    route.run_now, route.run_one = self._express.run_now, self._express.run_one
            self._batcher.submit(request, queue, key)
        elif queue.splits:
            RequestSplitter(request, queue, key, self._batcher).start(len(self._group.workers))
        else:
            raise InvalidRequest(
                f"{self._name}: expected at most {limit} rows (batching.max_batch_size), got {request.rows}; "
                f"larger requests are split only where batching is proven, not with batching.mode: trusted"
            )

    def _line_up(self, requests: Sequence[InferRequest], queue: SignatureQueue, key: Hashable) -> bool:
        self._called()
        return self._batcher.submit_together(requests, queue, key)

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self._name} is closed")
            if self._serving:
                return
            inline = not self.stateful and self._on_loop != "never" and may_run_inline(self._model.traits, self.devices)
            if self._loop is not None and inline:
                instance: Instance = self._group.workers[0].call(lambda instance: instance).result()
                parking = WorkerSlot()
                self._parkings.append(parking)
                executor = self._executor(instance, parking, inline=True)
                self._lane = self._batcher.lane = make_inline_queue(
                    self._loop, self._pace, self._batcher, parking, executor
                )
                self._lane.alone = self._on_loop == "auto"
                self._lane.single = len(self._group.workers) == 1
                if fits(self._model.traits) and not self._batching.max_queue_delay:
                    self._express = InlineExecutor(self._lane, executor)
            for worker in self._group.workers:
                on_cpu = worker.placement.device == "cpu"
                parkings = [WorkerSlot() for _ in range(1 if on_cpu or self.stateful else self._model.traits.overlaps)]
                self._parkings.extend(parkings)
                worker.call(partial(self._serve, parkings))
            threading.Thread(target=self._batcher.watcher.run, name=f"inferd-{self._name}-expiry", daemon=True).start()
            self._serving = True

    def _executor(self, instance: Instance, parking: WorkerSlot, *, inline: bool = False) -> Executor:
        hand_off = {} if inline else {"hand_off": partial(self._batcher.hand_off, parking)}
        return Executor(
            self._name,
            instance,
            self._model.traits,
            paddings=self._paddings,
            observer=self._observer,
            unbatch=self._unbatch,
            pace=self._pace,
            inline=inline,
            **hand_off,
        )

    def _serve(self, parkings: list[WorkerSlot], instance: Instance) -> None:
        if len(parkings) > 1:
            share(instance, parkings, lambda parking, seat: self._run_batches(parking, seat, seat.taking))
        else:
            self._run_batches(parkings[0], instance)
        if self._lane is not None:
            self._lane.close()  # before the instance that it shares is closed

    def _run_batches(
        self, parking: WorkerSlot, instance: Instance, taking: Callable[[Take], Take] = lambda take: take
    ) -> None:
        executor = self._executor(instance, parking)
        take = taking(self._batcher.next)
        while True:
            try:
                batch = take(parking)
            except Exception:  # an observer's, most likely: the instance must live on
                _log.exception("%s: the queue failed", self._name)
                continue
            if batch is None:
                return
            executor.run(batch)
            del batch  # or an idle worker would keep the last requests' memory

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def batching(self) -> str:
        """How requests share batches, for people: "up to 32 rows", "unbatched: <why>"; by signature where they
        differ.
        """
        texts = {name: queue.manner for name, queue in self._queues.items()}
        if len(set(texts.values())) == 1:
            return next(iter(texts.values()))
        return "; ".join(f"{name}: {text}" for name, text in texts.items())

    @property
    def max_batch_size(self) -> int:
        """Most rows in one batch of the signature that allows most; 0: unbatched."""
        return max((queue.limit for queue in self._queues.values()), default=0)

    @property
    def queue_depth(self) -> tuple[int, int]:
        """Requests and bytes that wait, over all signatures."""
        return self._batcher.depth

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each instance."""
        return self._group.devices

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self, timeout: float | None) -> bool:
        """Refuses new requests (Unavailable) and waits up to `timeout` seconds until all others are done. Whether
        they are: False means that the model still works or hangs. May be called again.
        """
        return self._batcher.drain(f"{self._name} is being unloaded", timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Fails what waits with Unavailable, lets running batches end, closes the instances on their threads and then
        the model. Idempotent. After `timeout` seconds the requests of a model that hangs are failed, and its thread
        is left behind: it closes instance and model when the framework lets go of it.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        refusal = f"{self._name} is closed"
        self._batcher.close(refusal)
        if self._group.close(timeout):
            return
        _log.error(
            "%s: the model did not come back within %g s of closing; a thread is left behind", self._name, timeout
        )
        for parking in self._parkings:
            for request in parking.requests:
                request.fail(Unavailable(f"{refusal}; the model had not answered", accepted=True))
