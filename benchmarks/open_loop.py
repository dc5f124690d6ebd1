"""Open-loop load: requests come at their own times, however slow the answers are, as from many independent callers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import numpy as np

from benchmarks.load import PREDICT


@dataclass
class Arrivals:
    """What a round saw. Milliseconds from sending to the answer, by code."""

    seconds: float
    sent: int = 0
    late: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    millis: dict[str, list[float]] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Right answers a second: the client's deadline sees to it that a late one is none."""
        return self.codes["OK"] / self.seconds

    def percentile(self, code: str, share: float) -> float:
        """Of the latencies with this code; 0 where there are none."""
        found = self.millis.get(code)
        return float(np.percentile(found, share)) if found else 0.0


def open_loop(
    address: str,
    body: bytes,
    rate: float,
    seconds: float,
    deadline: float = 30.0,
    path: str = PREDICT,
    channels: int = 1,
) -> Arrivals:
    """Sends `rate` requests a second at random times (exponential gaps), over that many connections. `late` says by how
    many milliseconds the generator itself was behind its times, on average: where that is much, the load was less."""
    return asyncio.run(_open_loop(address, body, rate, seconds, deadline, path, channels))


async def _open_loop(
    address: str, body: bytes, rate: float, seconds: float, deadline: float, path: str, channels: int
) -> Arrivals:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(address, options=options) for _ in range(channels)]
    calls = [channel.unary_unary(path) for channel in opened]
    gaps = random.Random(0)
    saw = Arrivals(seconds)
    try:
        for call in calls:
            await _one(Arrivals(0.0), call, body, 30.0)
        tasks: set[asyncio.Task[None]] = set()
        begin = due = time.perf_counter()
        behind = 0.0
        while due < begin + seconds:
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            behind += max(0.0, time.perf_counter() - due)
            task = asyncio.create_task(_one(saw, calls[saw.sent % channels], body, deadline))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            saw.sent += 1
            due += gaps.expovariate(rate)
        saw.late = 1000 * behind / max(1, saw.sent)
        await asyncio.gather(*tasks)
    finally:
        for channel in opened:
            await channel.close()
    return saw


async def _one(saw: Arrivals, call: grpc.aio.UnaryUnaryMultiCallable, body: bytes, deadline: float) -> None:
    began = time.perf_counter()
    code = "OK"
    try:
        await call(body, timeout=deadline)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    saw.codes[code] += 1
    saw.millis.setdefault(code, []).append(1000 * (time.perf_counter() - began))
