"""Short batches run on the front end's own loop: a thread hop costs more than a tiny model.

    InlineLoop    the front end's loop as the schedulers see it: who asked for a turn, and how long a turn may take
    Lane          one servable's place on it: takes a batch from the batcher and runs it right there
    Pace          decides from measured costs whether a servable may be there at all

Only models whose backend declares that a run waits for nothing but the processor, and that may be run from any
thread, come here; only while 99 of their last 100 batches cost at most SHORT; never with the first batches after a
load; and one batch over TOO_LONG sends a servable away for good. So a slow model never delays a fast one, or a
health check.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, thread_time

_log = logging.getLogger("inferd.scheduling")

SHORT = 500e-6  # seconds: the most that all but one in a hundred batches may cost
TOO_LONG = 5e-3  # seconds: once is enough
TURN = 1e-3  # seconds that all lanes together may take of one turn of the loop
_WINDOW = 1000  # batches remembered
_FIRST = 16  # batches that run elsewhere before a servable is trusted


class Pace:
    """What a servable's batches have cost lately. Written by whoever runs one; a lost update does no harm.

    Costs are processor time of the running thread where a model has one thread, so that other programs on the
    machine do not count against it; with more threads, the time on the clock.
    """

    __slots__ = ("_costs", "_long", "banned", "clock", "name")

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.clock: Callable[[], float] = thread_time if threads == 1 else monotonic
        self.banned = False
        self._costs: deque[bool] = deque()
        self._long = 0

    @property
    def short(self) -> bool:
        """Whether the next batch may be expected to be short."""
        return not self.banned and len(self._costs) >= _FIRST and self._long * 100 <= len(self._costs)

    def ran(self, seconds: float, *, inline: bool) -> None:
        """A batch has cost that much."""
        long = seconds > SHORT
        costs = self._costs
        costs.append(long)
        if long:
            self._long += 1
            if inline and seconds > TOO_LONG and not self.banned:
                self.banned = True
                _log.warning(
                    "%s: a batch took %.1f ms on the front end's loop; it runs on its own thread from now on",
                    self.name,
                    1e3 * seconds,
                )
        if len(costs) > _WINDOW:
            try:
                self._long -= costs.popleft()
            except IndexError:  # another thread was quicker
                pass


class InlineLoop:
    """The front end's loop. `enter` and `turn` are called on its thread, `defer` from anywhere.

    The transport handles every event that is ready, then takes a turn: what has arrived by then is the batch.
    """

    __slots__ = ("_lanes", "_thread", "asked")

    def __init__(self) -> None:
        self._thread = 0
        self._lanes: dict[Lane, None] = {}
        self.asked = 0  # requests deferred to the coming turn; the transport looks at it after every event

    def enter(self) -> None:
        """The calling thread is the loop from now on."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """There is no loop any more."""
        self._thread = 0

    def defer(self, lane: Lane) -> bool:
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
        until = monotonic() + TURN
        for lane in lanes:
            lane.run(until)


class Lane:
    """A servable on the loop. `take_and_run` runs one batch and gives whether there was one; `hand_over` wakes a
    worker."""

    __slots__ = ("_busy", "_closed", "_hand_over", "_loop", "_take_and_run", "pace")

    def __init__(
        self, loop: InlineLoop, pace: Pace, take_and_run: Callable[[], bool], hand_over: Callable[[], None]
    ) -> None:
        self.pace = pace
        self._loop = loop
        self._take_and_run = take_and_run
        self._hand_over = hand_over
        self._busy = threading.Lock()
        self._closed = False

    def defer(self) -> bool:
        """Whether what has just been queued will be looked at by the loop, so that no worker needs to be woken."""
        return self.pace.short and self._loop.defer(self)

    def run(self, until: float) -> None:
        """Runs batches until none waits, the servable is no longer short, or the turn is over."""
        with self._busy:
            while not self._closed and self.pace.short:
                if not self._take_and_run():
                    return
                if monotonic() >= until:
                    break
        self._hand_over()

    def close(self) -> None:
        """No batch runs here any more once this returns; what waits is for the workers."""
        with self._busy:
            self._closed = True
        self._hand_over()
