"""A load generator with little overhead: one asyncio loop that sends one fixed message, encoded once.

Its cost is that of grpc.aio alone, and is the same for every server that is compared.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc
import numpy as np

from inferd.wire.native import encode_request

PREDICT = "/inferd.v1.PredictService/Predict"


@dataclass(frozen=True)
class Load:
    """The result of one round: requests per second, latencies in milliseconds, number of failures."""

    rate: float
    p50: float
    p99: float
    failed: int


def message(model: str, x: np.ndarray) -> bytes:
    """An encoded request of the native protocol, for a model with one input `x`."""
    return encode_request(model, {"x": x})


def closed_loop(address: str, body: bytes, in_flight: int, seconds: float, path: str = PREDICT) -> Load:
    """Keeps `in_flight` calls open for so many seconds."""
    return asyncio.run(_closed_loop(address, body, in_flight, seconds, path))


async def _closed_loop(address: str, body: bytes, in_flight: int, seconds: float, path: str) -> Load:
    latencies: list[float] = []
    failed = 0
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary(path)
        await call(body, timeout=30)
        begin = time.perf_counter()
        end = begin + seconds

        async def one() -> None:
            nonlocal failed
            while (now := time.perf_counter()) < end:
                try:
                    await call(body, timeout=30)
                except grpc.aio.AioRpcError:
                    failed += 1
                latencies.append(time.perf_counter() - now)

        await asyncio.gather(*(one() for _ in range(in_flight)))
        took = time.perf_counter() - begin
    millis = 1000 * np.array(latencies)
    return Load(len(latencies) / took, float(np.percentile(millis, 50)), float(np.percentile(millis, 99)), failed)


def cpu_seconds(pid: int) -> float:
    """The user and system time that a process has used, in seconds (Linux)."""
    import os
    from pathlib import Path

    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
