"""Short batches run on the front end's own loop: a thread hop costs more than a tiny model.

    InlineLoop    the front end's loop as the schedulers see it: who asked for a turn, and how long a turn may take
    InlineQueue          one servable's place on it: takes a batch from the batcher and runs it right there
    InlineBudget          decides from measured costs whether a servable may be there at all

A model that nobody else's requests come between delays only itself: while it is alone, somewhat longer batches run here
too, as long as they are not much more than what it costs to hand their requests to another thread and back.

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
from collections.abc import Callable
from time import monotonic, thread_time

from inferd.server.scheduling.policies.cost_model import UNKNOWN, CostCurve
from inferd.server.scheduling.request import Ran

_log = logging.getLogger("inferd.scheduling")

SHORT = 500e-6  # seconds: the most that all but one in a hundred batches may cost
TOO_LONG = 5e-3  # seconds: once is enough
TURN = 1e-3  # seconds that all lanes together may take of one turn of the loop
ALONE_TURN = 2.5e-3  # seconds that a servable may take of it while it is alone
HAND_OVER = 100e-6  # seconds of a batch for each of its requests that are cheaper here than on another thread
LATELY = 1.0  # seconds after another model's request until a servable counts as alone
_WINDOW = 1000  # batches remembered
_LOOKS = 3  # the machine may be slow twice
_FIRST = 16  # batches that run elsewhere before a servable is trusted


class InlineBudget:
    """What a servable's batches have cost lately. Written by whoever runs one; a lost update does no harm.

    Costs are processor time of the running thread where a model has one thread, so that other programs on the
    machine do not count against it; with more threads, the time on the clock.
    """

    __slots__ = ("_costs", "_long", "_look", "banned", "clock", "name", "suspected")

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.clock: Callable[[], float] = thread_time if threads == 1 else monotonic
        self.banned = False  # for good
        self.suspected = False  # until the second look
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


class InlineLoop:
    """The front end's loop. `enter` and `turn` are called on its thread, `defer` and `called` from anywhere.

    The transport handles every event that is ready, then takes a turn: what has arrived by then is the batch.
    """

    __slots__ = ("_changed_at", "_clock", "_lanes", "_tenant", "_thread", "asked", "spent")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tenant: InlineBudget | None = None  # of the servable that was called last, and since when no other was
        self._changed_at = 0.0
        self._thread = 0
        self.spent = 0.0  # seconds of the coming turn that batches have had already
        self._lanes: dict[InlineQueue, None] = {}
        self.asked = 0  # requests deferred to the coming turn; the transport looks at it after every event

    def enter(self) -> None:
        """The calling thread is the loop from now on."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """There is no loop any more."""
        self._thread = 0

    def called(self, pace: InlineBudget) -> None:
        """There are requests for the servable with that pace, on the loop or not."""
        if self._tenant is not pace:
            self._tenant = pace
            self._changed_at = self._clock()

    def alone(self, pace: InlineBudget) -> bool:
        """Whether there have been requests for no other servable lately."""
        return self._tenant is pace and self._clock() - self._changed_at >= LATELY

    def defer(self, lane: InlineQueue) -> bool:
        """Whether the lane gets its chance in the coming turn: only when this is the loop's own thread."""
        if threading.get_ident() != self._thread:
            return False
        self._lanes[lane] = None
        self.asked += 1
        return True

    def turn(self) -> None:
        """Runs what was deferred, for at most TURN seconds; the rest goes to the workers."""
        self.asked = 0
        lanes, self._lanes = self._lanes, {}
        until = monotonic() + TURN - self.spent
        self.spent = 0.0
        for lane in lanes:
            lane.run(until)


class InlineQueue:
    """A servable on the loop. `take_and_run` runs one batch and gives whether there was one; `hand_over` wakes a
    worker.

    busy     held while a batch runs
    closed   no batch may be begun; to be read while `busy` is held
    alone    longer batches may run while the servable is
    single   it has one instance; several could run side by side, which the loop cannot
    """

    __slots__ = ("_deferred", "_hand_over", "_loop", "_take_and_run", "alone", "busy", "closed", "pace", "single")

    def __init__(
        self, loop: InlineLoop, pace: InlineBudget, take_and_run: Callable[[], bool], hand_over: Callable[[], None]
    ) -> None:
        self.pace = pace
        self.alone = True
        self.single = True
        self._loop = loop
        self._take_and_run = take_and_run
        self._hand_over = hand_over
        self.busy = threading.Lock()
        self.closed = False
        self._deferred = False  # the coming turn will look here

    def defer(self) -> bool:
        """Whether what has just been queued will be looked at by the loop, so that no worker needs to be woken."""
        if self._deferred:
            self._loop.asked += 1
            return True
        if self.pace.short and self._loop.defer(self):
            self._deferred = True
            return True
        return False

    def run(self, until: float) -> None:
        """Runs batches until none waits, the servable is no longer short, or the turn is over."""
        self._deferred = False  # before the look: what comes later asks anew
        with self.busy:
            while not self.closed and self.pace.short:
                if not self._take_and_run():
                    return
                if monotonic() >= until:
                    break
        self._hand_over()

    def may_run(self, effort: CostCurve, rows: int, requests: int, *, lone: bool = False) -> bool:
        """Whether a batch of so many rows and requests may run before the turn: the servable is short, or alone and
        the batch worth it; and the turn is not used up. `lone`: of the only request in flight. On the loop's thread."""
        pace, loop = self.pace, self._loop
        loop.called(pace)
        if pace.short:
            return loop.spent < TURN
        if not pace.trusted:
            return False
        usual = effort.usual(rows)
        alone = self.alone and loop.alone(pace)
        if lone:
            return usual <= (TURN if alone else SHORT / 2)
        most = max(SHORT, min(ALONE_TURN, requests * HAND_OVER))
        return alone and self.single and usual <= most and loop.spent < ALONE_TURN

    def time_for_each(self, effort: CostCurve, rows: int) -> float:
        """Seconds for which requests of so many rows may run one by one before the turn; 0: not at all. As
        `may_run`."""
        pace, loop = self.pace, self._loop
        loop.called(pace)
        if not self.single or not pace.trusted or loop.spent >= TURN:
            return 0.0
        usual = effort.usual(rows)
        if usual == UNKNOWN:  # only larger batches have run
            usual = effort.seconds(rows) or UNKNOWN
        if usual > SHORT / 2:
            return 0.0
        return ALONE_TURN if self.alone and loop.alone(pace) else TURN

    def run_now(self, run: Callable[[], Ran | None]) -> Ran | None:
        """Runs one batch before the turn. On the loop's thread."""
        with self.busy:
            ran = None if self.closed else run()
        if ran is not None:
            self._loop.spent += ran.finished_at - ran.started_at
        return ran

    def close(self) -> None:
        """No batch runs here any more once this returns; what waits is for the workers."""
        with self.busy:
            self.closed = True
        self.pace.settle()
        self._hand_over()
