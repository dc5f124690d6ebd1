"""The load of `inferd bench`, without its display: closed loop, open loop, and the results.

Closed loop: N callers; each sends its next request when the last one is answered. It measures what N callers see.
Open loop: requests start at fixed times, whether earlier ones are answered or not. Latency counts from the time at
which a request was *meant* to start, so a server that stalls cannot hide the requests that it delayed.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferd.client import ClientClosed, InferdError, RequestError

# If a server stalls at a high rate, requests above this number are counted as errors instead of filling the memory.
MAX_OUTSTANDING = 10_000


@dataclass(slots=True)
class Tally:
    """The results so far. Written on one event loop; a display on another thread may read it."""

    started: float = 0.0
    ended: float = 0.0
    sent: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first_error: str = ""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    in_flight: int = 0

    @property
    def answered(self) -> int:
        return len(self.latencies)

    def summary(self) -> dict[str, Any]:
        """Counts, requests per second, and latencies (milliseconds) of the answered requests."""
        elapsed = max((self.ended or time.perf_counter()) - self.started, 1e-9)
        values = np.asarray(self.latencies) * 1e3
        latency = {}
        if values.size:
            marks = np.percentile(values, [50, 90, 99, 99.9])
            latency = dict(zip(("p50", "p90", "p99", "p99.9"), map(float, marks), strict=True))
            latency |= {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
        return {
            "seconds": elapsed,
            "sent": self.sent,
            "answered": self.answered,
            "failed": sum(self.errors.values()),
            "errors": dict(self.errors.most_common()),
            "requests_per_second": self.answered / elapsed,
            "latency_ms": latency,
        }


@dataclass(frozen=True, slots=True)
class BenchLoad:
    """Either `concurrency` or `rate` is given.

    concurrency   closed loop with this number of callers
    rate          open loop with this number of requests per second
    duration      ends the load after this many seconds; None: no bound
    requests      ends the load after this many requests; None: no bound
    """

    concurrency: int | None
    rate: float | None
    duration: float | None
    requests: int | None


async def run_load(send: Callable[[], Awaitable[object]], load: BenchLoad, tally: Tally) -> None:
    """Sends requests up to the bounds of `load` and waits for all answers. Failures are counted, not raised."""
    tally.started = time.perf_counter()
    try:
        if load.rate is not None:
            await _open_loop(send, load, load.rate, tally)
        else:
            await _closed_loop(send, load, tally)
    finally:
        tally.ended = time.perf_counter()


async def _closed_loop(send: Callable[[], Awaitable[object]], load: BenchLoad, tally: Tally) -> None:
    end = tally.started + load.duration if load.duration is not None else None

    async def caller() -> None:
        while (load.requests is None or tally.sent < load.requests) and (end is None or time.perf_counter() < end):
            await _send_one(send, time.perf_counter(), tally)

    await asyncio.gather(*(caller() for _ in range(load.concurrency or 1)))


async def _open_loop(send: Callable[[], Awaitable[object]], load: BenchLoad, rate: float, tally: Tally) -> None:
    tasks: set[asyncio.Task[None]] = set()
    position = 0
    try:
        while load.requests is None or position < load.requests:
            meant = tally.started + position / rate
            if load.duration is not None and meant >= tally.started + load.duration:
                break
            wait = meant - time.perf_counter()
            # Sleep even for 0 seconds: otherwise no answer could be received while a backlog is sent.
            await asyncio.sleep(max(wait, 0.0))
            position += 1
            if len(tasks) >= MAX_OUTSTANDING:
                tally.errors["NOT_SENT"] += 1
                tally.first_error = tally.first_error or f"{MAX_OUTSTANDING} requests were outstanding already"
                continue
            task = asyncio.get_running_loop().create_task(_send_one(send, meant, tally))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _send_one(send: Callable[[], Awaitable[object]], meant: float, tally: Tally) -> None:
    tally.sent += 1
    tally.in_flight += 1
    try:
        await send()
    except ClientClosed:
        raise
    except InferdError as error:
        code = error.code.name if isinstance(error, RequestError) else type(error).__name__
        tally.errors[code] += 1
        tally.first_error = tally.first_error or str(error)
    else:
        tally.latencies.append(time.perf_counter() - meant)
    finally:
        tally.in_flight -= 1
