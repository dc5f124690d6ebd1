"""Scenarios with misbehaving clients: resets, silence, single bytes, cancellations, too short deadlines, floods."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np
from chaos.scenario import ANY, UNAVAILABLE, Scenario
from chaos.stage import LIMIT, Setup, Stage
from support.waiting import eventually

from inferd.v1 import predict_service_pb2, tensor_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEADERS = b"\x00\x04\x00\x01\x04\x00\x00\x00\x01"  # announces 1,024 bytes of headers on stream 1
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n{"
_RESET = struct.pack("ii", 1, 0)
_TCP_REPAIR = 19


def _open(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def _descriptors(stage: Stage) -> int:
    return sum(1 for _ in Path(f"/proc/{stage.pid}/fd").iterdir())


def message(model: str = "m") -> bytes:
    """An encoded small request."""
    x = tensor_pb2.Tensor(
        name="x", dtype=tensor_pb2.DATA_TYPE_FP32, shape=[1, 4], data=np.ones(4, np.float32).tobytes()
    )
    return predict_service_pb2.PredictRequest(model={"name": model}, inputs=[x]).SerializeToString()


def _storm(stage: Stage, count: int, timeout: float, then: Callable[[int, Any], None]) -> Counter[str]:
    """Makes so many calls at the same time, and passes each to `then` with its number. All calls must end. Returns
    their number by status code."""
    ends: Counter[str] = Counter()
    with grpc.insecure_channel(stage.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=LIMIT)
        predict = channel.unary_unary("/inferd.v1.PredictService/Predict")
        request = message()
        calls = []
        for i in range(count):
            call = predict.future(request, timeout=timeout)
            calls.append(call)
            then(i, call)
        deadline = time.monotonic() + LIMIT
        for call in calls:
            try:
                ends[call.code().name if call.done() else call.exception(deadline - time.monotonic()).code().name] += 1
            except AttributeError:
                ends["OK"] += 1
            except grpc.FutureCancelledError:
                ends["CANCELLED"] += 1
    assert ends.total() == count
    return ends


class Resets(Scenario):
    name = "connects-and-resets"
    fault = "1,000 connections on each port, each cut off with a reset, before or within a request"
    promise = "other clients are not affected; no descriptor stays open"
    first: ClassVar = (b"", PREFACE, PREFACE + SETTINGS + HEADERS, b"\x00" * 64, REQUEST, b"GET / HT")

    def strike(self, stage: Stage) -> None:
        before = _descriptors(stage)
        for address in (stage.grpc, stage.http):
            for i in range(1000):
                with _open(address) as peer:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    peer.send(self.first[i % len(self.first)])
                stage.notes["connections"] += 1
        eventually(
            lambda: _descriptors(stage) <= before + 10, "no descriptor stays", lambda: (before, _descriptors(stage))
        )


class HalfOpenPeers(Scenario):
    name = "half-open-peers"
    fault = "100 clients on each port vanish during a request, without closing the connection"
    promise = (
        "other clients are not affected; after the keep-alive (here 2 s and 2 s; HTTP: 10 s within a body) the"
        " descriptors are free; at the limit `http.connections`, an idle connection may be closed to make room"
    )
    setup = Setup(sets=("grpc.keepalive_time=2s", "grpc.keepalive_timeout=2s"))
    may_fail: ClassVar = {"rest": UNAVAILABLE}

    def strike(self, stage: Stage) -> None:
        before = _descriptors(stage)
        for address, first in ((stage.grpc, PREFACE + SETTINGS + HEADERS), (stage.http, REQUEST)):
            for _ in range(100):
                peer = _open(address)
                peer.send(first)
                try:
                    # In repair mode, closing a socket sends nothing to the other side.
                    peer.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
                except PermissionError:
                    stage.notes["closed, for want of root"] += 1
                peer.close()
                stage.notes["peers"] += 1
        stage.more(200)
        eventually(
            lambda: _descriptors(stage) <= before + 110, "the gRPC port's descriptors are free",
            lambda: (before, _descriptors(stage)),
        )  # fmt: skip


class SlowLoris(Scenario):
    name = "slow-loris"
    fault = "100 connections on each port send a request byte by byte"
    promise = "other clients are not affected"

    def strike(self, stage: Stage) -> None:
        peers: list[tuple[socket.socket, bytes]] = []
        try:
            for address, what in ((stage.grpc, PREFACE + SETTINGS + HEADERS + bytes(500)), (stage.http, REQUEST)):
                peers += [(_open(address), what) for _ in range(100)]
            for i in range(40):
                for peer, what in peers:
                    try:
                        peer.send(what[i : i + 1])
                        stage.notes["bytes"] += 1
                    except OSError:
                        stage.notes["refused bytes"] += 1
                stage.more(5)
        finally:
            for peer, _ in peers:
                peer.close()


class CancelStorm(Scenario):
    name = "cancel-storm"
    fault = "1,000 calls at the same time, all cancelled at once or a little later"
    promise = "other clients are not affected; every call ends"

    def strike(self, stage: Stage) -> None:
        before: list[Any] = []
        rng = random.Random(1)

        def cancel(i: int, call: Any) -> None:
            before.append(call)
            if rng.random() < 0.5:
                before.pop(rng.randrange(len(before))).cancel()
            if i == 999:
                for left in before:
                    left.cancel()

        for code, count in _storm(stage, 1000, 60.0, cancel).items():
            stage.notes[code] += count


class TinyDeadlines(Scenario):
    name = "tiny-deadlines"
    fault = "1,000 calls at the same time with a deadline of 1 ms"
    promise = "other clients are not affected; every call ends, and expired calls do not use the model's time"

    def strike(self, stage: Stage) -> None:
        for code, count in _storm(stage, 1000, 0.001, lambda i, call: None).items():
            stage.notes[code] += count


class OverloadFlood(Scenario):
    name = "overload-flood"
    fault = "5,000 calls at the same time, while 200 may be in flight (`inflight.calls`)"
    promise = "calls above the limit are refused at once (RESOURCE_EXHAUSTED); after the flood no call is refused"
    setup = Setup(sets=("inflight.calls=200",))
    may_fail: ClassVar = {
        ANY: frozenset({"RESOURCE_EXHAUSTED"}),
        "rest": UNAVAILABLE,
    }  # over HTTP, the status is Triton's

    def strike(self, stage: Stage) -> None:
        for code, count in _storm(stage, 5000, LIMIT, lambda i, call: None).items():
            stage.notes[code] += count
        assert stage.target is not None
        began, refused = time.monotonic(), stage.target.tally.refused.total()
        stage.more(200)
        stage.notes["slowest recovery (200 answers), ms"] = max(
            stage.notes["slowest recovery (200 answers), ms"], round(1e3 * (time.monotonic() - began))
        )
        late = stage.target.tally.refused.total()
        stage.more(200)
        assert stage.target.tally.refused.total() == late, f"refused after the flood: {refused} -> {late}"


SCENARIOS = (Resets, HalfOpenPeers, SlowLoris, CancelStorm, TinyDeadlines, OverloadFlood)
