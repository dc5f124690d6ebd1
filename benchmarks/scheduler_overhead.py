"""The cost of the scheduler: microseconds per request from submit to on_done, with a model that does nothing.

    python benchmarks/scheduler_overhead.py [--seconds 2] [--rounds 5] [--floats 64]

Prints the time and the processor time per request for 1 and for 32 requests in flight, as medians over the rounds.
There are one submitting thread and one instance; the model returns its input. With 1 request in flight, nearly all of
the time is spent on the switch to the instance's thread and back.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from queue import SimpleQueue

import numpy as np

from inferd.backends.api import Array, Independence, Placement, Signature, TensorSpec, Traits
from inferd.server.config.schema import Batching, Queue
from inferd.server.scheduling.request import InferenceRequest, callback_request
from inferd.server.scheduling.scheduler import Scheduler
from inferd.wire.dtypes import DType


class NoOp:
    """A model that is its own instance."""

    traits = Traits()

    def __init__(self, floats: int) -> None:
        self.signatures = (
            Signature("f", (TensorSpec("x", DType.FP32, (-1, floats)),), (TensorSpec("y", DType.FP32, (-1, floats)),)),
        )

    def independence(self, signature: Signature) -> Independence:
        return Independence(True)

    def instance(self, placement: Placement) -> NoOp:
        return self

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def close(self) -> None:
        pass


def measure(scheduler: Scheduler, floats: int, in_flight: int, seconds: float) -> tuple[float, float]:
    """Wall and CPU microseconds per request."""
    free: SimpleQueue[None] = SimpleQueue()  # written in C; a Semaphore would cost as much as the scheduler
    for _ in range(in_flight):
        free.put(None)
    row = np.zeros((1, floats), np.float32)
    done = 0

    def on_done(request: InferenceRequest) -> None:
        assert request.error is None
        free.put(None)

    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        free.get()
        scheduler.submit((callback_request("f", {"x": row}, on_done, nbytes=row.nbytes),))
        done += 1
    for _ in range(in_flight):
        free.get()
    return (time.perf_counter() - wall) / done * 1e6, (time.process_time() - cpu) / done * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--floats", type=int, default=64)
    options = parser.parse_args()
    scheduler = Scheduler("noop:1", NoOp(options.floats), [Placement()], batching=Batching(), queue=Queue())
    scheduler.start()
    scheduler.prove()
    print(f"batching: {scheduler.batching}")
    for in_flight in (1, 32):
        rounds = [measure(scheduler, options.floats, in_flight, options.seconds) for _ in range(options.rounds)]
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{in_flight:3d} in flight: {wall:6.1f} µs per request, {cpu:6.1f} µs CPU")
    scheduler.close()


if __name__ == "__main__":
    main()
