"""Runs a model on a thread of its own while the loop receives, forms and answers other requests.

The model's thread computes and does nothing else. The loop prepares the batch, and answers it: if both threads worked
on requests, each would wait for the interpreter lock whenever the other one let go of it for a moment, and that costs
more than the second processor gives. So there is one hand-over per batch in each direction. While the loop has nothing
else to do, it waits for the model.

That pays only where the loop has other work meanwhile: `overlaps` decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from inferd.backends.api import Array
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.instances import lower_priority
from inferd.server.scheduling.policies.cost_model import UNKNOWN

_WORTH: Final = 200e-6  # seconds of the model; two hand-overs cost a fifth of it
_TIMES: Final = 3  # the requests in flight, as a multiple of the batch's: the others are the loop's work meanwhile
_LEAST: Final = 16  # requests of a batch: smaller ones would stay small, because the others wait for their end


def overlaps(batch: Batch, in_flight: int) -> bool:
    """Whether a batch should run beside the loop. `in_flight`: calls of the loop, those of the batch included."""
    requests = len(batch.requests)
    if requests < _LEAST or in_flight < _TIMES * requests:
        return False
    return _WORTH <= batch.bucket.effort.usual(batch.rows) < UNKNOWN


class OverlappedRun:
    """A batch whose model runs on another thread than the one that prepares and answers it.

    outputs   as the model gave them; empty until the run has ended, and where it failed
    error     the run's exception
    cost      seconds of the run by the budget's clock
    seconds   from the start of the batch to the end of the run
    """

    __slots__ = ("batch", "cost", "error", "inputs", "outputs", "seconds", "wanted")

    def __init__(self, batch: Batch, inputs: dict[str, Array], wanted: tuple[str, ...] | None) -> None:
        self.batch = batch
        self.inputs = inputs
        self.wanted = wanted
        self.outputs: dict[str, Array] = {}
        self.error: BaseException | None = None
        self.cost = self.seconds = 0.0


class ModelThread:
    """The thread of one servable. `start` and `close` are thread-safe.

    The thread is a daemon: a model that hangs in its framework never keeps the process alive.
    """

    def __init__(
        self, name: str, compute: Callable[[OverlappedRun], None], ended: Callable[[], None], *, nice: int = 0
    ) -> None:
        """
        compute   runs the model; never raises
        ended     is called after each run, on the thread
        nice      `instances.nice`
        """
        self._nice = nice
        self._compute = compute
        self._ended = ended
        self._runs: SimpleQueue[OverlappedRun | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def start(self, run: OverlappedRun) -> None:
        """Runs the model for a batch, after earlier ones."""
        self._runs.put(run)

    def close(self) -> None:
        """Waits until the runs that were started have ended."""
        self._runs.put(None)
        self._thread.join()

    def _main(self) -> None:
        lower_priority(self._nice)
        while (run := self._runs.get()) is not None:
            self._compute(run)
            del run  # else an idle thread keeps the memory of its last batch
            self._ended()
