"""The scheduler of one servable: the entry point to its queues, batches and instances."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from inferd.backends.api import Array, Instance, LoadError, Model, Placement, Signature
from inferd.server.config.schema import Batching, Queue
from inferd.server.errors import InvalidRequest, ServingError, Unavailable
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.batcher import Batcher
from inferd.server.scheduling.bucket import ALONE, BucketKeys
from inferd.server.scheduling.double_buffer import share
from inferd.server.scheduling.execution import Executor
from inferd.server.scheduling.inline import InlineBudget, InlineLoop
from inferd.server.scheduling.inline_executor import InlineExecutor, may_run_inline
from inferd.server.scheduling.instances import InstanceGroup
from inferd.server.scheduling.observer import BatchObserver, NullObserver
from inferd.server.scheduling.padding import Padding, unknown_names
from inferd.server.scheduling.policies.deadline_admission import DeadlineAdmission
from inferd.server.scheduling.policies.fair_share import Who
from inferd.server.scheduling.qualification.contract import SeededRefusal
from inferd.server.scheduling.qualification.probe import Verdict
from inferd.server.scheduling.qualification.samples import Samples
from inferd.server.scheduling.qualification.warmup import ModelWarmup
from inferd.server.scheduling.queue import SignatureQueue
from inferd.server.scheduling.rejection import Reason, Rejection, invalid
from inferd.server.scheduling.request import InferenceRequest, Route
from inferd.server.scheduling.request_splitter import RequestSplitter
from inferd.server.scheduling.verification import CountedRuns, Verification, WatchedInstance
from inferd.server.scheduling.worker_slot import WorkerSlot

_log = logging.getLogger("inferd.scheduling")
Take = Callable[[WorkerSlot], Batch | None]
Run = Callable[[Batch], float]


class Scheduler:
    """Runs requests on a model. Made once per load. The owner calls `start`, `warm_up`, `prove`, and at last `drain`
    and `close`, in this order; `submit` is thread-safe. The first `submit` starts the workers. Without `prove` only
    `batching.mode: trusted` is batched.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        placements: Sequence[Placement],
        *,
        batching: Batching,
        queue: Queue,
        stateful: bool | None = None,
        samples: Mapping[str, Mapping[str, np.ndarray[Any, Any]]] | None = None,
        observer: BatchObserver | None = None,
        loop: InlineLoop | None = None,
        on_loop: Literal["auto", "short", "never"] = "auto",
        who: Who | None = None,
    ) -> None:
        """
        stateful  what the owner declares; None: the model's traits and the warm-up decide
        samples   declared inputs, by signature and input name
        loop      the transport's loop; None: all batches run on workers
        on_loop   which batches may run on the loop
        who       returns the client of a call, for fair shares; None: first come, first served

        The scheduler owns the model: `close` closes it. Raises LoadError for settings that do not fit the model.
        """
        self._name = name
        self._model = model
        self._batching = batching
        self._observer = NullObserver() if observer is None else observer
        self.stateful = model.traits.stateful if stateful is None else stateful
        if stateful is False and model.traits.stateful:
            _log.warning("%s: served as stateless because that is declared, but its graph keeps state", name)
        self._signatures = {signature.name: signature for signature in model.signatures}
        for unknown in unknown_names(batching.padding, model.signatures):
            _log.warning("%s: batching.padding names %r, which is no input of the model", name, unknown)
        self._paddings = {s.name: Padding(s, batching.padding) for s in model.signatures}
        tried = {s.name: Samples(s, self._paddings[s.name], (samples or {}).get(s.name)) for s in model.signatures}
        self._warmup = ModelWarmup(name, model, batching, tried, stateful=self.stateful, stateless=stateful is False)
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
            deadline_admission=DeadlineAdmission() if queue.admission == "deadline" else None,
            cut=batching.size == "auto",
        )
        # Two instances of a stateful model would have different states.
        self._group = InstanceGroup(name, model, tuple(placements)[:1] if self.stateful else placements)
        self._lock = threading.Lock()
        self._loop = loop
        self._on_loop = on_loop
        self._inline: InlineExecutor | None = None
        self._beside: InlineExecutor | None = None  # on the loop beside; made when it is needed first
        threads = max((placement.threads for placement in placements), default=1)
        self._budget = InlineBudget(name, threads, loop)
        self._budget.alone = on_loop == "auto"
        self._verification: Verification | None = None
        if batching.verify and not model.traits.repeatable:
            _log.warning("%s: batching.verify is not heeded, because its runs may not be repeated", name)
        elif batching.verify:
            self._verification = Verification(
                name,
                batching.verify,
                self._signatures,
                {queue.name: queue.keys.batched for queue in self._queues.values()},
                observer=self._observer,
                budget=self._budget,
                found=self._differs,
            )
        self._serving = False
        self._closed = False
        self._slots: list[WorkerSlot] = []
        for signature in model.signatures:
            self._settle(signature, self._warmup.without_proof(signature) or Verdict(0, "not proven"))

    # -- loading -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes the instances, each on its own thread. Raises LoadError after closing everything."""
        try:
            self._group.start()
        except LoadError:
            self.close()
            raise

    def warm_up(self, runs: int = 1) -> list[SeededRefusal]:
        """Runs every signature `runs` times on every instance. Raises LoadError when a declared sample fails, and when
        the model breaks its contract. Returns other failures on seeded data.
        """
        refusals = self._warmup.warm(self._group.workers, runs)
        if self.stateful:
            self._renew()
        return refusals

    def replay(self, requests: Iterable[tuple[str, str, Mapping[str, Array], int]]) -> None:
        """Runs requests on every instance. Each is a tuple of a name for messages, the signature, its inputs and the
        number of runs. Raises LoadError for the first that fails.
        """
        for name, signature, inputs, runs in requests:
            self._warmup.replay(self._group.workers, name, signature, inputs, runs)
        if self.stateful:
            self._renew()

    def prove(self) -> None:
        """Decides which signatures may be batched, with runs on the first instance. Must precede the first `submit`.
        Raises LoadError only when an instance must be made anew and cannot be.
        """
        if self.stateful:
            return
        worker = self._group.workers[0]
        for signature in self._signatures.values():
            verdict = self._warmup.examine(worker, signature)
            self._settle(signature, verdict)
            if verdict.stateful:
                self.stateful = True
                break
        if self.stateful:
            reason = self._queues[signature.name].reason
            for other in self._signatures.values():
                self._settle(other, Verdict(0, reason, "off", stateful=True))
            self._group.keep_one()
            self._renew()

    def _settle(self, signature: Signature, verdict: Verdict) -> None:
        limit = verdict.limit
        if verdict.equal:
            queue = self._queues[signature.name]
            queue.keys = queue.keys.requiring(verdict.equal)
        preferred = self._batching.preferred_batch_size or limit
        self._batcher.change(
            self._queues[signature.name],
            limit=limit,
            target=max(1, min(preferred, limit)),
            splits=verdict.splits,
            reason=verdict.reason,
            basis=verdict.basis,
        )

    def _unbatch(self, queue: SignatureQueue, reason: str) -> None:
        self._batcher.change(queue, limit=0, target=1, splits=False, reason=reason, basis="unproven")

    def _differs(self, signature: str, difference: str) -> None:
        """A row of the signature has got another output in a batch than alone."""
        text = f"at run time a row got a different output {difference}"
        with self._lock:
            found = self._queues[signature]
            if not found.limit or "at run time" in found.reason:
                return  # it is known
            if self._batching.mode == "trusted":
                _log.error("%s: signature %s is batched because that is declared, but %s", self._name, signature, text)
                self._batcher.change(
                    found,
                    limit=found.limit,
                    target=found.target,
                    splits=False,
                    reason=f"{found.reason}{'; ' if ', but ' in found.reason else ', but '}{text}",
                    basis="contested",
                )
                return
            _log.error(
                "%s: signature %s: %s. That should have been found at load: this is a bug in inferd, please report it; "
                "the version is served unbatched from now on",
                self._name,
                signature,
                text,
            )
            for queue in self._queues.values():
                if queue.limit:
                    self._unbatch(queue, text)

    def _renew(self) -> None:
        for worker in self._group.workers:
            worker.renew().result()

    # -- serving -------------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[InferenceRequest], *, alike: bool = False) -> list[Rejection]:
        """Admits requests in this order, under one lock. Returns the refused ones, each with its reason; every other
        request gets exactly one outcome, possibly before this returns. A cancelled request has its outcome in any case.
        Thread-safe; never blocks on the model.

        `alike`: the requests differ in data and deadline only, and are not cancelled before this returns.
        """
        if not self._serving:
            try:
                self._open()
            except Unavailable as error:
                return [Rejection(list(requests), Reason.CLOSED, self._name, text=error.message)]
        budget = self._budget
        if budget.loop.tenant is not budget:
            budget.loop.called(budget)
        if alike:
            route = requests[0].route
            if route.queue is not None and route.rows <= route.queue.limit:
                return self._batcher.submit(requests, alike=True)
        for request in requests:
            route = request.route
            if route.queue is None or route.rows > route.queue.limit or request.finished:
                return self._submit_prepared(requests)
        rejected = self._batcher.submit(requests)
        for request in requests:
            if request.cancelled:  # the cancel may have run before the request was queued
                _discard(request)
        return rejected

    def _submit_prepared(self, requests: Sequence[InferenceRequest]) -> list[Rejection]:
        """As `submit`, where some requests have no resolved Route, or more rows than a batch holds."""
        rejected: list[Rejection] = []
        plain: list[InferenceRequest] = []
        for request in requests:
            if request.finished:
                continue
            route = request.route
            try:
                if route.queue is None or route.rows > route.queue.limit:
                    route = request.route = self._resolved(route, request.inputs)
            except ServingError as error:
                rejected.append(invalid(request, error))
                continue
            assert route.queue is not None
            if route.rows <= route.queue.limit:
                plain.append(request)
                continue
            rejected += self._batcher.submit(plain)  # first: requests are queued in the order of their arrival
            plain = []
            try:
                if not route.queue.splits:
                    raise self._too_many_rows(route)
                splitter = RequestSplitter(request, route.queue, self._batcher, self._unbatch)
                rejected += splitter.start(len(self._group.workers))
            except InvalidRequest as error:
                rejected.append(invalid(request, error))
        rejected += self._batcher.submit(plain)
        for request in requests:
            if request.cancelled:
                _discard(request)
        return rejected

    def route(self, signature: str, wanted: tuple[str, ...] | None, inputs: Mapping[str, Array]) -> Route | None:
        """The Route of every request whose inputs have these names, types and shapes; None where it depends on the
        values of the inputs. Raises InvalidRequest for inputs with different numbers of rows, or an unknown
        signature."""
        route = self._resolved(Route(signature, wanted), inputs)
        assert route.queue is not None
        by_shape = route.key is ALONE or route.queue.keys.by_shape(inputs)
        return route if by_shape else None

    def _resolved(self, route: Route, inputs: Mapping[str, Array]) -> Route:
        queue = self._queues.get(route.signature)
        if queue is None:
            raise InvalidRequest(f"{self._name} has no signature {route.signature!r}; it has {', '.join(self._queues)}")
        if not queue.limit:
            return Route(route.signature, route.wanted, queue, ALONE)
        rows, key = queue.keys.of(inputs)
        return Route(route.signature, route.wanted, queue, key if rows else ALONE, rows)

    def _too_many_rows(self, route: Route) -> InvalidRequest:
        assert route.queue is not None
        return InvalidRequest(
            f"{self._name}: expected at most {route.queue.limit} rows (batching.max_batch_size), got {route.rows}; "
            f"larger requests are split only where batching is proven, not where it is declared"
        )

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self._name} is closed")
            if self._serving:
                return
            self._budget.single = len(self._group.workers) == 1
            inline = not self.stateful and self._on_loop != "never" and may_run_inline(self._model.traits, self.devices)
            if self._loop is not None and inline:
                instance: Instance = self._group.workers[0].call(lambda instance: instance).result()
                self._inline = self._inline_executor(instance, self._loop)
                self._batcher.inline = self._inline
            for worker in self._group.workers:
                on_cpu = worker.placement.device == "cpu"
                slots = [WorkerSlot() for _ in range(1 if on_cpu or self.stateful else self._model.traits.overlaps)]
                self._slots.extend(slots)
                worker.call(partial(self._serve, slots))
            threading.Thread(target=self._batcher.expirer.run, name=f"inferd-{self._name}-expiry", daemon=True).start()
            self._serving = True

    def _inline_executor(self, instance: Instance, loop: InlineLoop) -> InlineExecutor:
        slots = WorkerSlot(), WorkerSlot()
        self._slots.extend(slots)
        executor = self._executor(instance, slots[0], inline=True)
        runs = executor if self._verification is None else CountedRuns(executor, self._verification)
        other = loop.beside

        def beside() -> InlineExecutor | None:
            if other is None or threading.get_ident() != other.thread:
                return None
            if self._beside is None:
                self._beside = self._inline_executor(instance, other)
            return self._beside

        nice = self._group.workers[0].placement.nice
        return InlineExecutor(self._budget, self._batcher, slots, runs, loop, beside, nice=nice)

    def _executor(self, instance: Instance, slot: WorkerSlot, *, inline: bool = False) -> Executor:
        hand_off = {} if inline else {"hand_off": partial(self._batcher.hand_off, slot)}
        return Executor(
            self._name,
            instance,
            self._model.traits,
            paddings=self._paddings,
            observer=self._observer,
            unbatch=self._unbatch,
            budget=self._budget,
            inline=inline,
            on_cpu=all(device == "cpu" for device in self.devices),
            **hand_off,
        )

    def _serve(self, slots: list[WorkerSlot], instance: Instance) -> None:
        if len(slots) > 1:
            share(instance, slots, lambda slot, view: self._run_batches(slot, view, view.taking))
        else:
            self._run_batches(slots[0], instance)
        for inline in (self._inline, self._beside):
            if inline is not None:
                inline.close()  # before the instance that it shares is closed

    def _run_batches(
        self, slot: WorkerSlot, instance: Instance, taking: Callable[[Take], Take] = lambda take: take
    ) -> None:
        run: Run
        if self._verification is None:
            run = self._executor(instance, slot).run
        else:
            watched = WatchedInstance(instance, self._verification, self._model.traits)
            run = watched.after(self._executor(watched, slot).run)
        take = taking(self._batcher.next)
        while True:
            try:
                batch = take(slot)
            except Exception:  # most likely from an observer; the instance must go on
                _log.exception("%s: the queue failed", self._name)
                continue
            if batch is None:
                return
            run(batch)
            del batch  # else an idle worker keeps the memory of its last requests

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def batching(self) -> str:
        """How requests share batches, as text for operators: "up to 32 rows", "unbatched: <reason>"; for each signature
        where they differ.
        """
        texts = {name: queue.manner for name, queue in self._queues.items()}
        if len(set(texts.values())) == 1:
            return next(iter(texts.values()))
        return "; ".join(f"{name}: {text}" for name, text in texts.items())

    @property
    def max_batch_size(self) -> int:
        """The most rows of a batch, over all signatures; 0: unbatched."""
        return max((queue.limit for queue in self._queues.values()), default=0)

    @property
    def basis(self) -> str:
        """Why requests share batches or not, in one word (see Verdict); of the signature with the largest batches."""
        return max(self._queues.values(), key=lambda queue: queue.limit).basis

    @property
    def queue_depth(self) -> tuple[int, int]:
        """Waiting requests and their bytes, over all signatures."""
        return self._batcher.depth

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each instance."""
        return self._group.devices

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self, timeout: float | None) -> bool:
        """Refuses new requests with Unavailable and waits up to `timeout` seconds until all others have ended. Returns
        whether they have; False: the model still computes, or hangs. May be called again.
        """
        return self._batcher.drain(f"{self._name} is being unloaded", timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Fails the waiting requests with Unavailable, waits for running batches, closes the instances on their
        threads and then the model. Idempotent. After `timeout` seconds the requests of a model that hangs are failed;
        its thread closes instance and model when the framework returns.
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
        for slot in self._slots:
            for request in () if slot.batch is None else slot.batch.requests:
                request.fail(Unavailable(f"{refusal}; the model had not answered", accepted=True))


def _discard(request: InferenceRequest) -> None:
    place = request.place
    if place is not None:
        place.discard(request)
