"""Load from h2load (Debian's nghttp2-client): one fixed message, over HTTP/2 for gRPC, over HTTP/1.1 for other servers.

h2load does not read trailers, and a failed gRPC call has the HTTP status 200 too. But the answer of a failed call has
no message. So the received bytes of data are counted: they must be exactly those of as many right answers as there
were requests. The right answer is determined beforehand with a real client.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IN_FLIGHT = {1: (1, 1), 32: (4, 8), 256: (8, 32)}
"""By number of requests in flight: connections, and streams on each."""
LIMIT = 120.0  # seconds for one run of h2load


class LoadError(Exception):
    """h2load failed, or not every request was answered with a complete message."""


@dataclass(frozen=True)
class Target:
    """A server, and the fixed message for it.

    body     file with the bytes to send; for gRPC, the frame is included
    answer   size in bytes of the data of a right answer
    http1    the server has no HTTP/2
    """

    url: str
    body: Path
    answer: int
    http1: bool = False


@dataclass(frozen=True)
class Round:
    """The result of one round. Latencies in milliseconds.

    rate       requests per second
    requests   number of requests
    """

    rate: float
    requests: int
    p50: float
    p99: float


def available() -> bool:
    """Whether h2load is installed."""
    return shutil.which("h2load") is not None


def frame(message: bytes) -> bytes:
    """A message with gRPC's frame: no compression, four bytes of length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def load(target: Target, in_flight: int, requests: int) -> Round:
    """Sends so many requests. Raises LoadError if any of them is not answered rightly."""
    connections, streams = IN_FLIGHT[in_flight]
    if target.http1:
        connections, streams = in_flight, 1
        headers = ["--h1", "-H", "content-type: application/octet-stream"]
    else:
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        flags = ["-n", str(max(requests, connections)), "-c", str(connections), "-m", str(streams), "-t", "1"]
        command = ["h2load", *flags, "-d", str(target.body), f"--log-file={log}", *headers, target.url]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise LoadError(f"{requests} requests took more than {LIMIT:.0f} s") from None
        if done.returncode != 0:
            raise LoadError(f"h2load ended with {done.returncode}: {done.stderr[-300:]}")
        rate, count = judge(done.stdout, target.answer)
        micros = np.loadtxt(log, dtype=np.int64, usecols=2, ndmin=1)
    return Round(rate, count, float(np.percentile(micros, 50)) / 1000, float(np.percentile(micros, 99)) / 1000)


def judge(output: str, answer: int) -> tuple[float, int]:
    """Requests per second, and the number of requests, from the output of h2load. Raises LoadError if a request failed,
    or if the size of the received data is not that of so many right answers."""
    rate = re.search(r"([0-9.]+) req/s", output)
    total = re.search(r"requests: (\d+) total, .* (\d+) succeeded", output)
    data = re.search(r"\((\d+)\) data", output)
    if rate is None or total is None or data is None:
        raise LoadError(f"h2load's words are not understood: {output[-500:]}")
    count, succeeded, received = int(total[1]), int(total[2]), int(data[1])
    if succeeded != count:
        raise LoadError(f"{count - succeeded} of {count} requests had no HTTP 200")
    if received != count * answer:
        raise LoadError(
            f"expected {count} answers of {answer} bytes, got {received} bytes: "
            f"about {count - received // max(answer, 1)} requests failed"
        )
    return float(rate[1]), count
