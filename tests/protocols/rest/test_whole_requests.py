"""Requests that infer, as they come from the network: whole, in parts, several at once, one behind the other."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.foreign_models import add, specs
from support.rest import WAIT, Rest, tensor
from support.security import entry, write_tokens
from support.waiting import eventually

from inferd.backends.api import Signature, TensorSpec
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpLimits
from inferd.wire.dtypes import DType

X = json.dumps({"inputs": [tensor("x", [[1.5, 2]])]}).encode()


def request(body: bytes = X, *headers: str, path: str = "/v2/models/digits/infer") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Status and body of the next `count` responses."""
    data = b""
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + length_of(data[:end]):
            piece = sock.recv(65536)
            assert piece, data
            data += piece
        length = length_of(data[:end])
        found.append((int(data[9:12]), data[end + 4 : end + 4 + length]))
        data = data[end + 4 + length :]
    assert not data
    return found


def length_of(head: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    return int(found[1])


@pytest.fixture
def known(rest: Rest) -> Rest:
    """Serves with everything loaded."""
    assert rest.post("/v2/models/digits/infer", X).status == 200
    return rest


def test_a_request_may_be_cut_anywhere(known: Rest) -> None:
    sock = known.raw()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = request()
    (expected,) = (sock.sendall(whole), *answers(sock, 1))[1:]
    assert expected[0] == 200
    head = whole.index(b"\r\n\r\n")
    for cut in (1, 4, 8, 20, head, head + 2, head + 4, head + 5, len(whole) - 1):
        sock.sendall(whole[:cut])
        known.get("/healthz")  # a round trip, so that the server reads the first part alone
        sock.sendall(whole[cut:])
        assert answers(sock, 1) == [expected]


def test_the_rest_of_a_body_may_come_late(known: Rest) -> None:
    """So late that the parser takes what has come."""
    sock = known.raw()
    whole = request()
    for cut in (len(whole) - 1, len(whole) - len(X)):
        sock.sendall(whole[:cut])
        eventually(lambda: known.inflight.calls == 1, "the parser has the request", limit=WAIT)
        sock.sendall(whole[cut:])
        assert answers(sock, 1)[0][0] == 200
        eventually(lambda: known.inflight.calls == 0, "nothing in flight", limit=WAIT)


def test_requests_behind_one_another_are_answered_in_order(known: Rest) -> None:
    sock = known.raw()
    bodies = [json.dumps({"id": str(i), "inputs": [tensor("x", [[float(i), 0]])]}).encode() for i in range(6)]
    sock.sendall(b"".join(map(request, bodies)))
    assert [json.loads(body)["id"] for _, body in answers(sock, 6)] == list("012345")
    scheduler = known.scheduler("digits")
    scheduler.holding = True
    sock.sendall(request(bodies[0]))
    scheduler.wait_for(1)
    sock.sendall(request(bodies[1]) + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    known.get("/healthz")
    assert len(scheduler.held) == 1
    scheduler.release()
    first, second, third = answers(sock, 3)
    assert [json.loads(body).get("id") for _, body in (first, second, third)] == ["0", "1", None]


def test_a_response_that_takes_long_to_write_and_a_compressed_one(known: Rest) -> None:
    taken, given = (TensorSpec("n", DType.INT32, None),), (TensorSpec("y", DType.FP32, None),)
    add(
        known.manager, "big", (Signature("serving_default", taken, given),),
        lambda inputs: {"y": np.zeros(int(inputs["n"]), np.float32)},
    )  # fmt: skip
    for count in (500, 50_000):
        n = {"name": "n", "datatype": "INT32", "shape": [], "data": [count]}
        plain = known.post("/v2/models/big/infer", {"inputs": [n]})
        assert len(plain.json["outputs"][0]["data"]) == count
        packed = known.post("/v2/models/big/infer", {"inputs": [n]}, Accept_Encoding="gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == "Accept-Encoding"
        assert len(packed.body) < len(plain.body) // 10
    eventually(lambda: known.inflight.calls == 0, "nothing in flight", limit=WAIT)


def test_values_that_json_cannot_express_fail_the_request(known: Rest) -> None:
    add(
        known.manager, "half", (Signature("serving_default", specs("x"), (TensorSpec("y", DType.FP16, None),)),),
        lambda inputs: {"y": np.zeros((1, 2), np.float16)},
    )  # fmt: skip
    x = {"id": "a", "inputs": [{"name": "x_FP32", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
    refused = known.post("/v2/models/half/infer", x)
    assert refused.status == 400
    assert refused.error.startswith("[request id: a] sending FP16 data via JSON is not supported")
    assert known.post("/v2/models/half/infer", {**x, "parameters": {"binary_data_output": True}}).status == 200


def test_the_connection_is_closed_when_no_further_request_comes() -> None:
    with Rest(limits=HttpLimits(idle=0.3)) as rest:
        rest.post("/v2/models/digits/infer", X)
        sock = rest.raw()
        for _ in range(3):
            sock.sendall(request())
            assert answers(sock, 1)[0][0] == 200
        assert sock.recv(1) == b""


class Pausing(Rest):
    """Its event loop stands still while a health page is asked for, until `go_on`. `lists` has the methods of the calls
    of each list that has entered the pipeline."""

    def __init__(self, **settings: Any) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.lists: list[list[str]] = []
        super().__init__(**settings)

    @property
    def readiness(self) -> ReadinessLike:
        self.asked.set()
        assert self.go_on.wait(WAIT)
        return ReadinessLike(True)

    @readiness.setter
    def readiness(self, _value: ReadinessLike) -> None:
        pass

    def together(self, *requests: bytes) -> list[int]:
        """Sends requests, each on a connection of its own, so that one turn of the event loop brings them all. Returns
        the statuses of their responses."""
        assert self.rest._handlers is not None
        service = self.rest._handlers.inference.service
        handle = service.handle

        def noting(calls: Sequence[Any], arrived_at: float, caller: Any = None) -> None:
            self.lists.append([call.method for call in calls])
            handle(calls, arrived_at, caller)

        service.handle = noting  # type: ignore[method-assign]
        socks = [self.raw() for _ in requests]
        self.asked.clear()
        self.go_on.clear()
        self.raw().sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert self.asked.wait(WAIT)
        for sock, sent in zip(socks, requests, strict=True):
            sock.sendall(sent)
        self.go_on.set()
        return [answers(sock, 1)[0][0] for sock in socks]


def test_requests_that_come_together_enter_the_pipeline_together() -> None:
    predict = request(json.dumps({"instances": [[1.5, 2]]}).encode(), path="/v1/models/digits:predict")
    with Pausing() as rest:
        assert rest.together(request(), request(b"{"), predict) == [200, 400, 200]
        infer, tfs = "POST /v2/models/{model}/infer", "POST /v1/models/{model}:predict"
        assert [sorted(each) for each in rest.lists] == [[tfs, infer, infer]]
        scheduler = rest.scheduler("digits")
        scheduler.holding = True
        threading.Timer(0, lambda: (scheduler.wait_for(3), scheduler.release())).start()
        assert rest.together(request(), request(), request()) == [200, 200, 200]  # answered by another thread


def test_each_of_the_callers_that_come_together_has_its_own_rights(tmp_path: Path) -> None:
    tokens = {
        "one": entry("first-token-of-this-test", ["predict"]),
        "two": entry("second-token-of-this-test", ["predict"], models=["echo"]),
    }
    auth = {"tokens_file": str(write_tokens(tmp_path / "tokens.yaml", tokens))}
    first, second = (
        "Authorization: Bearer first-token-of-this-test",
        "Authorization: Bearer second-token-of-this-test",
    )
    with Pausing(auth=auth, clients={"concurrency": 2}) as rest:
        sent = [
            request(X, first),
            request(X, second),
            request(X),
            request(X, "Authorization: Bearer none"),
            request(X, first),
        ]
        for _ in range(2):
            assert rest.together(*sent) == [200, 403, 401, 401, 200]
        assert (rest.inflight.calls, rest.inflight.nbytes) == (0, 0)
