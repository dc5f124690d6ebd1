"""Decides which batches run on the transport's own loop: passing a batch to another thread costs more than a tiny
model.

    InlineLoop     the schedulers' interface to the loop: the deferred work of the coming turn, and the time spent
    InlineBudget   decides from measured costs whether a servable's next batch may run on the loop

`inline_executor.py` runs the batches.

A batch runs on the loop only under these conditions, so that a slow model never delays a fast one or a health check:
its backend declares that a run waits only for the processor and may run on any thread; at least 99 of 100 recent
batches of the servable cost at most SHORT; and it is not one of the first batches after a load. While no other model
is called, a servable delays only itself: then somewhat longer batches run on the loop too, as long as they cost little
more than passing their requests to another thread and back.

One batch over TOO_LONG takes the servable off the loop at once. On a virtual machine the host may take the processor
away for milliseconds, which the guest's clocks attribute to the running thread. So the same inputs run again on a
separate thread, and the servable returns to the loop unless they take long again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic, thread_time
from typing import Protocol

from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.strategy import LARGE, MANY, SHORT_RUN, seconds_alone
from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.worker_slot import WorkerSlot

_log = logging.getLogger("inferd.scheduling")

SHORT = 500e-6  # seconds that at most one in a hundred batches may exceed
TOO_LONG = 5e-3  # seconds that no batch may exceed
TURN = 1e-3  # seconds of one turn of the loop for all servables together
ALONE_TURN = 2.5e-3  # seconds of one turn for a servable while no other is called
HAND_OVER = 100e-6  # seconds for each request that passing it to another thread and back costs
LATELY = 1.0  # seconds without requests to other models after which a servable counts as alone
_WINDOW = 1000  # batches whose costs are kept
_LOOKS = 3  # repeated runs, because the machine may be slow twice
_FIRST = 16  # batches that run on workers before the first one on the loop


class Turns(Protocol):
    """Runs batches in a turn of the loop; see `inline_executor.InlineExecutor`."""

    def run(self) -> None: ...


class Collects(Protocol):
    """Answers a batch whose model ran beside the loop; see `inline_executor.InlineExecutor`."""

    def collect(self) -> None: ...


class InlinePlace(Protocol):
    """The batcher's interface to the loop; see `inline_executor.InlineExecutor`. The caller holds the batcher's
    lock."""

    def take(self, batch: Batch) -> bool:
        """Makes the loop run a batch in the coming turn, before queued requests. False: it does not take the batch."""
        ...

    @property
    def taken(self) -> Sequence[Batch]:
        """The batch that the loop has taken and not started; at most one."""
        ...

    def give_back(self) -> tuple[WorkerSlot, Batch] | None:
        """Takes back the batch that the loop has taken, unless it has started."""
        ...

    def defer(self, requests: int) -> bool:
        """Makes the loop handle the queued requests in its coming turn. False: a worker must be woken."""
        ...


class InlineLoop:
    """The loop of a front end. `enter`, `leave` and `turn` are for its thread; `defer` and `called` are thread-safe.

    The front end passes all arrived calls to their handlers and then calls `turn`: the requests that wait by then share
    batches. `called` and `alone` are asked of the loop of the gRPC transport alone, for requests of all front ends.

    asked   requests that the coming turn will handle; the transport reads it after every event
    beside  the loop of another front end of this process (the HTTP port), which runs batches, too; None: there is none
    spent   seconds that batches have taken in this turn
    tenant  the budget of the servable that was called last
    only    the turn handles the only call in flight, so no other call waits for the loop

    Models may run beside the loop (overlap.py) where `overlaps` is true:

    in_flight    calls of the loop at the beginning of the turn
    overlapped   runs that were started beside the loop, and not collected. Meanwhile the loop calls `collect` after
                 every event, and `wait` when it has nothing else to do
    """

    __slots__ = (
        "_changed_at",
        "_clock",
        "_deferred",
        "_ended",
        "_wake",
        "asked",
        "beside",
        "in_flight",
        "only",
        "overlapped",
        "overlaps",
        "spent",
        "tenant",
        "thread",
    )

    def __init__(
        self, clock: Callable[[], float] = monotonic, beside: InlineLoop | None = None, *, overlaps: bool = False
    ) -> None:
        self._clock = clock
        self.overlaps = overlaps
        self.in_flight = self.overlapped = 0
        self._ended: SimpleQueue[Collects] = SimpleQueue()
        self._wake: Callable[[], None] | None = None
        self.beside = beside
        self.tenant: InlineBudget | None = None
        self._changed_at = 0.0  # since when no other servable was called
        self._deferred: list[Turns] = []
        self.thread = 0
        self.spent = 0.0
        self.asked = 0
        self.only = False

    def enter(self, wake: Callable[[], None] | None = None) -> None:
        """Makes the calling thread the loop's thread. `wake` is called when something is deferred, for a loop that
        does not look at `asked` itself."""
        self._wake = wake
        self.thread = threading.get_ident()

    def leave(self) -> None:
        """The loop has ended: nothing can be deferred any more."""
        self.thread = 0
        self.collect()

    def ended(self, runs: Collects) -> None:
        """A run beside the loop has ended. Called by the model's thread."""
        self._ended.put(runs)
        if not self.thread:  # nobody else does it any more
            self.collect()

    def collect(self) -> None:
        """Makes those whose runs beside the loop have ended answer them."""
        ended = self._ended
        while not ended.empty():
            try:
                runs = ended.get_nowait()
            except Empty:
                return
            self.overlapped -= 1
            runs.collect()

    def wait(self) -> None:
        """Waits up to SHORT for the end of a run beside the loop, and collects it."""
        try:
            runs = self._ended.get(timeout=SHORT)
        except Empty:
            return
        self.overlapped -= 1
        runs.collect()

    def called(self, budget: InlineBudget) -> None:
        """Notes that requests for the servable with this budget have arrived, for the loop or for workers."""
        if self.tenant is not budget:
            self.tenant = budget
            self._changed_at = self._clock()

    def alone(self, budget: InlineBudget) -> bool:
        """Whether no other servable was called within the last LATELY seconds."""
        return self.tenant is budget and self._clock() - self._changed_at >= LATELY

    def defer(self, turns: Turns, requests: int) -> bool:
        """Makes the coming turn call `turns.run`. Returns False, and does nothing, on any thread but the loop's."""
        if threading.get_ident() != self.thread:
            return False
        self.call_in_turn(turns, requests)
        return True

    def call_in_turn(self, turns: Turns, requests: int) -> None:
        """As `defer`, on the loop's own thread."""
        self._deferred.append(turns)
        self.asked += requests
        if self._wake is not None:
            self._wake()

    def turn(self) -> None:
        """Calls `run` of everything that was deferred."""
        self.asked = 0
        deferred, self._deferred = self._deferred, []
        for turns in deferred:
            turns.run()
        self.spent = 0.0


class InlineBudget:
    """The recent costs of a servable's batches, and the decision what the loop may run. `ran` is called on the thread
    that ran a batch (a lost update does no harm), `allowance` on the loop's thread.

    Costs are processor time of the running thread where a model has one thread, so that other programs on the machine
    do not count; with more threads, elapsed time.

    alone       longer batches may run while no other servable is called (`instances.on_loop: auto`)
    single      the servable has one instance; several instances run in parallel on workers, but not on the loop
    banned      no batch runs on the loop any more
    suspected   no batch runs on the loop until the repeated run has ended, or until `resume`
    """

    __slots__ = ("_costs", "_long", "_look", "alone", "banned", "clock", "loop", "name", "single", "suspected")

    def __init__(self, name: str, threads: int, loop: InlineLoop | None = None) -> None:
        self.name = name
        self.clock: Callable[[], float] = thread_time if threads == 1 else monotonic
        self.loop = loop or InlineLoop()
        self.alone = True
        self.single = True
        self.banned = False
        self.suspected = False
        self._look: threading.Thread | None = None
        self._costs: deque[bool] = deque()
        self._long = 0

    @property
    def short(self) -> bool:
        """Whether the next batch is expected to be short."""
        costs = len(self._costs)
        return costs >= _FIRST and self._long * 100 <= costs and not self.banned and not self.suspected

    @property
    def trusted(self) -> bool:
        """Whether the measured cost of a batch size can be relied on, even where larger batches are long."""
        return not self.banned and not self.suspected

    def allowance(self, bucket: Bucket, *, first: bool = True, loop: InlineLoop | None = None) -> int:
        """The number of requests of the bucket's next batch that may run on the loop now; 0: a worker must run them.
        `first`: it would be the servable's first batch in this turn. Each servable gets one batch in a turn, even when
        others have used the turn up, so that load on one model does not delay the others. `loop`: None for that of the
        gRPC transport."""
        head = bucket.head
        rows, requests = bucket.next_batch
        return self.allows(bucket.effort, rows, requests, head.nbytes, head.route.rows or 1, first=first, loop=loop)

    def allows(
        self,
        effort: CostCurve,
        rows: int,
        requests: int,
        nbytes: int,
        each: int,
        *,
        first: bool = True,
        loop: InlineLoop | None = None,
    ) -> int:
        """As `allowance`, for a batch of `rows` rows and `requests` requests with `nbytes` bytes and `each` rows
        each."""
        if self.banned or self.suspected:
            return 0
        spent = 0.0 if first else (loop or self.loop).spent
        if nbytes >= LARGE and self.single and spent < TURN:
            usual = seconds_alone(each, effort)
            if usual <= SHORT_RUN:  # they run one by one, as many as fit into the turn
                turn = ALONE_TURN if self.alone and self.loop.alone(self) else TURN
                return max(1, int((turn - spent) / max(usual, 1e-6)))
        costs = len(self._costs)
        if costs >= _FIRST and self._long * 100 <= costs:  # repeats `short`, because most batches pass here
            return MANY if spent < TURN else 0
        return self._allowed_by_cost(effort, rows, requests, spent, loop or self.loop)

    def _allowed_by_cost(self, effort: CostCurve, rows: int, requests: int, spent: float, loop: InlineLoop) -> int:
        """The allowance for a servable whose batches are not all short: decided by the cost of this batch size."""
        usual = effort.usual(rows)
        alone = self.alone and self.loop.alone(self)
        if loop.only and requests == 1:
            return MANY if usual <= (TURN if alone else SHORT / 2) else 0
        most = max(SHORT, min(ALONE_TURN, requests * HAND_OVER))
        return MANY if alone and self.single and usual <= most and spent < ALONE_TURN else 0

    def ran(self, seconds: float, *, inline: bool = False, again: Callable[[], object] | None = None) -> None:
        """Learns that a batch has cost `seconds`. `inline`: it ran on the loop. `again` runs the same inputs once more;
        None: they cannot be repeated, and a batch over TOO_LONG bans the servable at once.
        """
        long = seconds > SHORT
        costs = self._costs
        costs.append(long)
        if long:
            self._long += 1
            if inline and seconds > TOO_LONG and not self.banned:
                if again is None:
                    self._ban(seconds)
                else:
                    self._suspect(seconds, again)
        if len(costs) > _WINDOW:
            try:
                self._long -= costs.popleft()
            except IndexError:  # another thread has removed it
                pass

    def pause(self) -> None:
        """Leaves the next batch to a worker."""
        self.suspected = True

    def resume(self) -> None:
        """Ends what `pause` began, unless a run is being repeated."""
        if self._look is None or not self._look.is_alive():
            self.suspected = False

    def settle(self) -> None:
        """Waits for the repeated run, if there is one."""
        look = self._look
        if look is not None:
            look.join()

    def _suspect(self, seconds: float, again: Callable[[], object]) -> None:
        self.suspected = True
        name = f"inferd-{self.name}-second-look"
        self._look = threading.Thread(target=self._judge, args=(seconds, again), name=name, daemon=True)
        self._look.start()

    def _judge(self, seconds: float, again: Callable[[], object]) -> None:
        for _ in range(_LOOKS):
            began = self.clock()
            try:
                again()
            except Exception:  # the caller has got the failure of the first run, or its answer
                break
            if self.clock() - began <= TOO_LONG:
                self.suspected = False
                return
        self._ban(seconds)

    def _ban(self, seconds: float) -> None:
        self.banned = True
        _log.warning(
            "%s: a batch took %.1f ms on the front end's loop; it runs on its own thread from now on",
            self.name,
            1e3 * seconds,
        )
