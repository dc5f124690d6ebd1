"""The processor time of one request in the server, without the network, step by step.

Fake calls are passed to the real method table; manager, scheduler and ONNX Runtime are real too. Batches of 16 run on
the event loop. The figures are not exact: the ratios matter.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.models import repository
from benchmarks.report import Table
from inferd.server.app import App
from inferd.server.config.load import load_config
from inferd.server.errors import Code
from inferd.wire.native import decode_request, encode_request, encode_response

BATCH, TURNS, ROUNDS = 16, 50, 25


class FakeCall:
    """A unary call that has been received."""

    method = "/inferd.v1.PredictService/Predict"
    peer = "ipv4:127.0.0.1:5000"
    cancelled = False

    def __init__(self, request: bytes, deadline: float | None) -> None:
        self.request = request
        self.deadline = deadline
        self.answer = b""

    def metadata(self, key: str) -> str | None:
        return None

    def on_cancel(self, fn: Callable[[], None]) -> None:
        pass

    def reply(self, message: bytes) -> None:
        self.answer = message

    def fail(self, code: Code, text: str, trailing: object = ()) -> None:
        raise AssertionError(f"{code}: {text}")


def per_request(fn: Callable[[], None], requests: int) -> float:
    """The processor time per request in the fastest round, in microseconds: other processes can only add to it."""
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        fn()
        times.append(1e6 * (time.thread_time() - began) / requests)
    return min(times)


def measure() -> Table:
    """Measures decoding, encoding, and complete requests, in batches and one by one."""
    table = Table(
        "The budget of one tiny request (64 floats in, 10 out), without the network",
        ("step", "µs per request"),
        how=f"Batches of {BATCH} on the loop, processor time, the least of {ROUNDS} rounds of {TURNS} batches.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = repository(Path(folder) / "models", "instances: {threads: 1}\n", ("tiny",))
        flags = {"repository.roots": [str(root)], "server.listen": ["127.0.0.1:0"], "server.http": []}
        app = App(load_config(flags=flags))
        app.start()
        assert app.manager.wait_ready(60)
        loop = app.inline
        loop.enter()  # this thread takes the place of the event loop, which gets no calls
        x = np.ones((1, 64), np.float32)
        message = encode_request("tiny", {"x": x})
        handler = app.table.unary[FakeCall.method]
        deadline = time.monotonic() + 3600

        def alone(turns: int = TURNS) -> None:
            for _ in range(turns):
                calls = [FakeCall(message, deadline) for _ in range(BATCH)]
                for call in calls:
                    handler((call,), time.monotonic())
                while not all(call.answer for call in calls):
                    loop.turn()

        def together(turns: int = TURNS) -> None:
            for _ in range(turns):
                calls = [FakeCall(message, deadline) for _ in range(BATCH)]
                handler(calls, time.monotonic())
                while not all(call.answer for call in calls):
                    loop.turn()
                loop.spent = 0.0

        settled = threading.Event()
        for _ in range(100):  # the first batches after a load run on the worker
            alone(1)
            settled.wait(0.002)
        one_by_one = per_request(alone, TURNS * BATCH)
        whole = per_request(together, TURNS * BATCH)
        y = {"y": np.ones((1, 10), np.float32)}
        many = TURNS * BATCH
        table.rows.append(
            ["decode the request", per_request(lambda: [decode_request(message) for _ in range(many)] and None, many)]
        )
        table.rows.append(
            [
                "encode the response",
                per_request(lambda: [encode_response("tiny", 1, "s", y, "id") for _ in range(many)] and None, many),
            ]
        )
        table.rows.append(["the whole request path, model included, together", whole])
        table.rows.append(["the same, call by call", one_by_one])
        app.stop()
    return table
