"""Scenes with races: the responses may differ, so the invariants are asserted on each side instead.

Every request has exactly one outcome, of an allowed kind; every response is right; the counters add up; and nothing is
left in flight or queued afterwards.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from differential import models
from differential.requests import (
    INFER,
    PREDICT,
    STREAM,
    TFS,
    Array,
    native,
    oip,
    oip_infer,
    oip_json,
    rows,
    tfs,
    tfs_predict,
)
from differential.scene import Notes
from differential.side import Side

from inferd.v1 import predict_service_pb2 as native_predict

OK = "OK"


class Asked:
    """Sends requests from many threads and counts their outcomes. Thread-safe."""

    def __init__(self, side: Side, model: str) -> None:
        self.side, self.model = side, model
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.asked = 0
        self._lock = threading.Lock()

    def native(self, x: Array, **how: Any) -> str:
        """One request over our own protocol. Gives the outcome."""
        return self._unary(PREDICT, native(self.model, {"x": x}), x, _native, **how)

    def oip(self, x: Array, **how: Any) -> str:
        """One over the Open Inference Protocol."""
        return self._unary(INFER, oip(self.model, {"x": x}), x, _oip, **how)

    def tfs(self, x: Array, **how: Any) -> str:
        """One over TensorFlow Serving's."""
        return self._unary(f"{TFS}Predict", tfs(self.model, {"x": x}), x, _tfs, **how)

    def rest(self, x: Array) -> str:
        """One over HTTP."""
        try:
            answer = self.side.rest("POST", f"/v2/models/{self.model}/infer", oip_json({"x": x}))
        except OSError as error:
            return self._end(f"HTTP {type(error).__name__}", x, None)
        if answer["status"] != 200:
            return self._end(f"HTTP {answer['status']}", x, None)
        body = answer["body"]
        data = next(output["data"] for output in body["outputs"] if output["name"] == "y")
        values = np.array([float(str(each).removeprefix("number ")) for each in data], np.float32)
        return self._end(OK, x, (values.reshape(x.shape), int(body["model_version"])))

    def _unary(
        self,
        method: str,
        request: Any,
        x: Array,
        read: Callable[[bytes], tuple[Array, int]],
        *,
        timeout: float = 60.0,
        cancel: threading.Event | None = None,
        channel: grpc.Channel | None = None,
    ) -> str:
        call = self.side.begin(method, request, timeout=timeout, channel=channel)
        if cancel is not None:
            cancel.wait(30)
            call.cancel()
        try:
            answer = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            return self._end(call.code().name, x, None)
        return self._end(OK, x, read(answer))

    def _end(self, end: str, x: Array, answer: tuple[Array, int] | None) -> str:
        with self._lock:
            self.asked += 1
            self.ends[end] += 1
            if answer is not None:
                y, version = answer
                right = (x.astype(np.float64) * 2 + version).astype(np.float32)
                if y.shape != x.shape or not np.array_equal(y, right):
                    self.wrong.append(f"version {version}: expected {right.tolist()}, got {y.tolist()}")
        return end

    def check(self, asked: int, *allowed: str) -> None:
        """Asserts the invariants, once every request has an outcome."""
        assert not self.wrong, f"wrong answers: {self.wrong[:3]} of {len(self.wrong)}"
        assert self.asked == asked == sum(self.ends.values()), f"expected {asked} ends, got {dict(self.ends)}"
        assert set(self.ends) <= set(allowed), f"expected only {', '.join(allowed)}, got {dict(self.ends)}"


def _native(data: bytes) -> tuple[Array, int]:
    answer = native_predict.PredictResponse.FromString(data)
    tensor = next(each for each in answer.outputs if each.name == "y")
    return np.frombuffer(tensor.data, np.float32).reshape(tuple(tensor.shape)), answer.version


def _oip(data: bytes) -> tuple[Array, int]:
    answer = oip_infer.ModelInferResponse.FromString(data)
    at = [each.name for each in answer.outputs].index("y")
    values = np.frombuffer(answer.raw_output_contents[at], np.float32)
    return values.reshape(tuple(answer.outputs[at].shape)), int(answer.model_version)


def _tfs(data: bytes) -> tuple[Array, int]:
    answer = tfs_predict.PredictResponse.FromString(data)
    tensor = answer.outputs["y"]
    values = np.frombuffer(tensor.tensor_content, np.float32) if tensor.tensor_content else np.array(tensor.float_val)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    return values.astype(np.float32).reshape(shape), answer.model_spec.version.value


def _ways(asked: Asked) -> Sequence[Callable[..., str]]:
    return asked.native, asked.oip, asked.tfs, asked.rest


def _x(chance: random.Random) -> Array:
    return rows(*(chance.randrange(1000) for _ in range(chance.choice((1, 1, 1, 2, 3)))))


def _counted(side: Side, model: str, before: float, asked: int) -> None:
    """Waits until every request for the model is counted, and none is left."""
    side.until(lambda: side.requests(model) - before == asked, f"{asked} requests for {model} are counted")
    side.until(lambda: side.inflight() == 0, "nothing is in flight")
    side.waiting(model, 0)


def play_overload(notes: Notes) -> None:
    """Overload: 240 requests to a queue of six. Each is refused or answered correctly."""
    side, chance = notes.side, random.Random(1)
    asked = Asked(side, "bounded")
    before = side.requests("bounded")
    side.gates.close("bounded")
    with ThreadPoolExecutor(24) as pool:
        ways = _ways(asked)
        calls = [pool.submit(ways[i % 4], _x(chance)) for i in range(240)]
        for _ in range(10):
            side.gates.release("bounded")
        side.gates.open("bounded")
        for call in calls:
            call.result()
    # A full queue is RESOURCE_EXHAUSTED in our own protocol and UNAVAILABLE in the others.
    asked.check(240, OK, "RESOURCE_EXHAUSTED", "UNAVAILABLE", "HTTP 429", "HTTP 503")
    assert asked.ends[OK] >= 10
    assert asked.ends.total() > asked.ends[OK], "nobody was refused: there was no overload"
    _counted(side, "bounded", before, 240)


def play_cancelled(notes: Notes) -> None:
    """Half of the calls are cancelled at random moments. The others are answered correctly."""
    side, chance = notes.side, random.Random(2)
    asked = Asked(side, "gated")
    before = side.requests("gated")
    side.gates.close("gated")
    give_up = threading.Event()
    with ThreadPoolExecutor(40) as pool:
        ways = _ways(asked)[:3]
        first = [pool.submit(ways[i % 3], _x(chance), cancel=give_up if i % 2 else None) for i in range(40)]
        side.gates.held("gated")
        side.until(lambda: side.inflight() == 40, "all are in flight")
        give_up.set()
        side.gates.open("gated")
        gone = threading.Event()
        gone.set()
        more = [pool.submit(ways[i % 3], _x(chance), cancel=gone if i % 2 else None) for i in range(200)]
        for call in (*first, *more):
            call.result()
    asked.check(240, OK, "CANCELLED")
    assert asked.ends[OK] >= 120, asked.ends
    side.until(lambda: side.inflight() == 0, "nothing is in flight")
    side.waiting("gated", 0)
    # A call that is cancelled before it reaches the server is not counted.
    assert 120 <= side.requests("gated") - before <= 240


def play_deadlines(notes: Notes) -> None:
    """Short deadlines: each call is answered correctly or ends with DEADLINE_EXCEEDED."""
    side, chance = notes.side, random.Random(3)
    asked = Asked(side, "gated")
    with ThreadPoolExecutor(16) as pool:
        ways = _ways(asked)[:3]
        calls = [
            pool.submit(ways[i % 3], _x(chance), timeout=chance.choice((0.001, 0.003, 0.01, 30.0))) for i in range(300)
        ]
        side.gates.close("gated")
        side.gates.open("gated")
        for call in calls:
            call.result()
    asked.check(300, OK, "DEADLINE_EXCEEDED")
    side.until(lambda: side.inflight() == 0, "nothing is in flight")
    side.waiting("gated", 0)


def play_swapped(notes: Notes) -> None:
    """Hot swap under load: no request is refused, and each response is that of the version that it names."""
    side, chance = notes.side, random.Random(4)
    asked = Asked(side, "rows")
    ended = threading.Event()
    signature = models.signature([models.X], [models.Z, models.Y])

    def load(way: Callable[..., str], seed: int) -> int:
        mine = random.Random(seed)
        count = 0
        while not ended.is_set():
            way(_x(mine))
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(load, way, chance.randrange(1000)) for way in (*_ways(asked), *_ways(asked))]
        try:
            for version in range(2, 6):
                models.steps(side.repository / "rows", version, signature, marker=version)
                side.until(lambda version=version: _newest(side) == version, f"version {version} answers")
        finally:
            ended.set()
        total = sum(each.result() for each in loads)
    asked.check(total, OK)
    assert total > 20


def _newest(side: Side) -> int:
    answer = side.ask(PREDICT, native("rows", {"x": rows(1)}), native_predict.PredictResponse)["answer"]
    return int(answer["version"]) if answer else 0


def play_streams(notes: Notes) -> None:
    """Four streams at full speed while others are cancelled: each message of the four has exactly one response."""
    side = notes.side
    count = 300

    def one(seed: int) -> Counter[str]:
        mine = random.Random(seed)
        requests = [native("rows", {"x": _x(mine)}, request_id=str(i)) for i in range(count)]
        answer = side.stream(STREAM, requests, native_predict.PredictStreamResponse, channel=side.connect())
        ids = Counter(each["request_id"] for each in answer["answers"])
        assert ids == Counter(str(i) for i in range(count)), "a message without an answer, or with two"
        assert all("response" in each for each in answer["answers"])
        assert answer["code"] == OK
        return ids

    with ThreadPoolExecutor(6) as pool:
        whole = [pool.submit(one, seed) for seed in range(4)]
        for _ in range(6):
            broken = side.talk(STREAM, native_predict.PredictStreamResponse, channel=side.connect())
            for i in range(20):
                broken.send(native("rows", {"x": rows(i)}, request_id=str(i)))
            broken.read()
            broken.cancel()
        for each in whole:
            each.result()
    side.until(lambda: side.inflight() == 0, "nothing is in flight")


def play_drained(notes: Notes) -> None:
    """SIGTERM while requests run, wait and arrive: accepted requests are answered, later ones get UNAVAILABLE, and the
    exit code is 0."""
    side = notes.side
    asked = Asked(side, "gated")
    assert side.process is not None
    side.gates.close("gated")
    chance = random.Random(5)
    with ThreadPoolExecutor(16) as pool:
        ways = _ways(asked)
        accepted = [pool.submit(ways[i % 4], _x(chance)) for i in range(12)]
        side.gates.held("gated")
        side.until(lambda: side.inflight() == 12, "all are accepted")
        watch = side.talk(STREAM, native_predict.PredictStreamResponse, channel=side.connect())
        watch.send(native("gated", {"x": rows(1)}, request_id="1"))
        side.until(lambda: side.inflight() == 13, "the stream's too")
        side.process.send_signal(signal.SIGTERM)
        late = Asked(side, "rows")
        # First the server refuses new calls, then it closes its port.
        while late.native(rows(1), channel=side.channel) == OK:
            pass
        side.until(lambda: not _listens(side.grpc), "the port is closed")
        side.gates.open("gated")
        for call in accepted:
            call.result()
    asked.check(12, OK)
    late.check(late.asked, OK, "UNAVAILABLE")
    answer = watch.read()
    assert answer is not None, "the stream's request was lost"
    assert "response" in answer, answer
    watch.end()
    code = side.process.wait(30)
    assert code == 0, f"the server ended with {code}"


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
