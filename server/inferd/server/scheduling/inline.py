"""Which batches may run on the front end's own loop: a thread hop costs more than a tiny model.

    InlineLoop     the loop as the schedulers see it: who asked for a turn, and what the turn has spent
    InlineBudget   decides from measured costs whether a servable's next batch may run there

The batches themselves run in inline_executor.py.

A servable whose requests come alone delays only itself: while no other model is called, somewhat longer batches run
here too, as long as they are not much more than what it costs to hand their requests to another thread and back.

Only models whose backend declares that a run waits for nothing but the processor, and that may be run from any
thread, come here; only while 99 of 100 of their last batches cost at most SHORT; never with the first batches after a
load; and one batch over TOO_LONG sends a servable away for good. So a slow model never delays a fast one, or a
health check.

On a virtual machine the host takes the processor away for milliseconds, and the guest's clocks charge that to whoever
ran. So a batch over TOO_LONG takes the servable off the loop at once, and the same inputs are run again beside it, on a
thread that nobody waits for: only if they take long again was it the model.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, thread_time
from typing import Protocol

from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.policies.strategy import LARGE, MANY, SHORT_RUN, seconds_alone
from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.worker_slot import WorkerSlot

_log = logging.getLogger("inferd.scheduling")

SHORT = 500e-6  # seconds: the most that all but one in a hundred batches may cost
TOO_LONG = 5e-3  # seconds: once is enough
TURN = 1e-3  # seconds that all servables together may take of one turn of the loop
ALONE_TURN = 2.5e-3  # seconds that a servable may take of it while it is alone
HAND_OVER = 100e-6  # seconds of a batch for each of its requests that are cheaper here than on another thread
LATELY = 1.0  # seconds after another model's request until a servable counts as alone
_WINDOW = 1000  # batches remembered
_LOOKS = 3  # the machine may be slow twice
_FIRST = 16  # batches that run elsewhere before a servable is trusted


class Turns(Protocol):
    """Something that runs batches in a turn of the loop; see `inline_executor.InlineExecutor`."""

    def run(self) -> None: ...


class InlinePlace(Protocol):
    """The servable's place on the front end's loop; see `inline_executor.InlineExecutor`. The caller holds the
    batcher's lock."""

    def take(self, batch: Batch) -> bool:
        """Whether the loop runs this batch in the coming turn, before anything that waits."""
        ...

    @property
    def taken(self) -> Sequence[Batch]:
        """What the loop has taken and not begun."""
        ...

    def give_back(self) -> tuple[WorkerSlot, Batch] | None:
        """What the loop has taken, unless it has begun."""
        ...

    def defer(self, requests: int) -> bool:
        """Whether the loop looks at what has just been queued."""
        ...


class InlineLoop:
    """The front end's loop. `enter`, `leave` and `turn` are called on its thread, `defer` and `called` from anywhere.

    The transport hands over every request that has arrived, then takes a turn: what waits by then is the batch.

    asked   requests that the coming turn will look at; the transport reads it after every event
    spent   seconds of the turn that batches have had already
    only    the turn brought the only call in flight: nothing else waits for the loop
    """

    __slots__ = ("_changed_at", "_clock", "_deferred", "_tenant", "asked", "only", "spent", "thread")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tenant: InlineBudget | None = None  # of the servable that was called last, and since when no other was
        self._changed_at = 0.0
        self._deferred: list[Turns] = []
        self.thread = 0
        self.spent = 0.0
        self.asked = 0
        self.only = False

    def enter(self) -> None:
        """The calling thread is the loop from now on."""
        self.thread = threading.get_ident()

    def leave(self) -> None:
        """There is no loop any more."""
        self.thread = 0

    def called(self, budget: InlineBudget) -> None:
        """There are requests for the servable with that budget, on the loop or not."""
        if self._tenant is not budget:
            self._tenant = budget
            self._changed_at = self._clock()

    def alone(self, budget: InlineBudget) -> bool:
        """Whether there have been requests for no other servable lately."""
        return self._tenant is budget and self._clock() - self._changed_at >= LATELY

    def defer(self, turns: Turns, requests: int) -> bool:
        """Whether `turns` gets its chance in the coming turn: only when this is the loop's own thread."""
        if threading.get_ident() != self.thread:
            return False
        self._deferred.append(turns)
        self.asked += requests
        return True

    def turn(self) -> None:
        """Runs what was deferred, within the budgets; the rest goes to the workers."""
        self.asked = 0
        deferred, self._deferred = self._deferred, []
        for turns in deferred:
            turns.run()
        self.spent = 0.0


class InlineBudget:
    """What a servable's batches have cost lately, and what the loop may therefore run. `ran` is called by whoever runs
    a batch (a lost update does no harm), `allowance` on the loop's thread.

    Costs are processor time of the running thread where a model has one thread, so that other programs on the
    machine do not count against it; with more threads, the time on the clock.

    alone    longer batches may run while no other servable is called (`instances.on_loop: auto`)
    single   the servable has one instance; several could run side by side, which the loop cannot
    banned   off the loop for good; `suspected`: until the second look
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
        """Whether the next batch may be expected to be short."""
        costs = len(self._costs)
        return costs >= _FIRST and self._long * 100 <= costs and not self.banned and not self.suspected

    @property
    def trusted(self) -> bool:
        """Whether a batch whose like has been short may be expected to be so, however long larger ones are."""
        return not self.banned and not self.suspected

    def allowance(self, bucket: Bucket, *, first: bool = True) -> int:
        """How many requests of the bucket's next batch may run on the loop now; 0: none, they are for a worker.
        `first`: the servable has had nothing of this turn. However much of it others have used up, each gets one batch:
        nobody's flood keeps the others waiting."""
        head = bucket.head
        rows, requests = bucket.next_batch
        return self.allows(bucket.effort, rows, requests, head.nbytes, head.route.rows or 1, first=first)

    def allows(self, effort: CostCurve, rows: int, requests: int, nbytes: int, each: int, *, first: bool = True) -> int:
        """The same for a batch of so many rows and requests, each of them of that many bytes, and of `each` rows."""
        if self.banned or self.suspected:
            return 0
        spent = 0.0 if first else self.loop.spent
        if nbytes >= LARGE and self.single and spent < TURN:
            usual = seconds_alone(each, effort)
            if usual <= SHORT_RUN:  # they run one by one: as many as the turn has time for
                turn = ALONE_TURN if self.alone and self.loop.alone(self) else TURN
                return max(1, int((turn - spent) / max(usual, 1e-6)))
        costs = len(self._costs)
        if costs >= _FIRST and self._long * 100 <= costs:  # `short`, written out: most batches pass here
            return MANY if spent < TURN else 0
        return self._allowed_by_cost(effort, rows, requests, spent)

    def _allowed_by_cost(self, effort: CostCurve, rows: int, requests: int, spent: float) -> int:
        """The same for a servable that is not always short: by what batches of this size take."""
        loop = self.loop
        usual = effort.usual(rows)
        alone = self.alone and loop.alone(self)
        if loop.only and requests == 1:
            return MANY if usual <= (TURN if alone else SHORT / 2) else 0
        most = max(SHORT, min(ALONE_TURN, requests * HAND_OVER))
        return MANY if alone and self.single and usual <= most and spent < ALONE_TURN else 0

    def ran(self, seconds: float, *, inline: bool = False, again: Callable[[], object] | None = None) -> None:
        """A batch has cost that much, `inline`: on the loop. `again` runs the same inputs once more; without it, one
        look is enough.
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
            except IndexError:  # another thread was quicker
                pass

    def settle(self) -> None:
        """Waits for a second look that is under way."""
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
            except Exception:  # it has failed before the caller's eyes already, or never will
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
