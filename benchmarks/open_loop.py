"""Open-loop load: requests are sent at random times, independent of the answers, as by many independent callers."""

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
    """The result of one round.

    seconds   duration of the round
    sent      number of requests
    late      milliseconds by which the generator was behind schedule, on average
    codes     number of answers by status code
    millis    milliseconds from sending to the answer, by status code
    """

    seconds: float
    sent: int = 0
    late: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    millis: dict[str, list[float]] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Right answers per second. Late answers are not among them, because the client's deadline ends their calls."""
        return self.codes["OK"] / self.seconds

    def percentile(self, code: str, share: float) -> float:
        """A percentile of the latencies with this code, in milliseconds; 0 if there are none."""
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
    """Sends `rate` requests per second at random times (exponential gaps), over `channels` connections. If the result's
    `late` is large, the generator could not keep up and the load was lower."""
    return asyncio.run(_open_loop(address, body, rate, seconds, deadline, path, channels))


async def _open_loop(
    address: str, body: bytes, rate: float, seconds: float, deadline: float, path: str, channels: int
) -> Arrivals:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(address, options=options) for _ in range(channels)]
    calls = [channel.unary_unary(path) for channel in opened]
    gaps = random.Random(0)
    arrivals = Arrivals(seconds)
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
            task = asyncio.create_task(_one(arrivals, calls[arrivals.sent % channels], body, deadline))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            arrivals.sent += 1
            due += gaps.expovariate(rate)
        arrivals.late = 1000 * behind / max(1, arrivals.sent)
        await asyncio.gather(*tasks)
    finally:
        for channel in opened:
            await channel.close()
    return arrivals


async def _one(arrivals: Arrivals, call: grpc.aio.UnaryUnaryMultiCallable, body: bytes, deadline: float) -> None:
    began = time.perf_counter()
    code = "OK"
    try:
        await call(body, timeout=deadline)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    arrivals.codes[code] += 1
    arrivals.millis.setdefault(code, []).append(1000 * (time.perf_counter() - began))
