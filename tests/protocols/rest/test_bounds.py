"""What REST takes its time and its memory for, and what happens to those who are slow, large, many or gone."""

from __future__ import annotations

import gzip
import http.client
import json
import select
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from support.foreign_models import add
from support.rest import WAIT, Rest, tensor
from support.waiting import eventually

from inferd.backends.api import Signature, TensorSpec
from inferd.server.http import exchange
from inferd.server.http.server import HttpLimits
from inferd.wire.dtypes import DType

INFER = "/v2/models/digits/infer"
X = {"inputs": [tensor("x", [[1.0]])]}
SMALL = {"http": {"max_body": 4096}}


def request(body: bytes, *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"POST {INFER} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_all(sock: Any) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def held(rest: Rest) -> Any:
    """The scheduler of the model, which answers nobody until told to."""
    scheduler = rest.scheduler("digits")
    scheduler.holding = True
    return scheduler


def nothing_in_flight(rest: Rest) -> None:
    eventually(
        lambda: (rest.inflight.calls, rest.inflight.nbytes) == (0, 0),
        "nothing in flight",
        lambda: (rest.inflight.calls, rest.inflight.nbytes),
        WAIT,
    )


def test_a_body_over_the_limit_is_refused_and_the_connection_ends() -> None:
    with Rest(**SMALL) as rest:
        exact = json.dumps(X).encode().ljust(4096)
        assert rest.post(INFER, exact).status == 200
        refused = rest.post(INFER, exact + b" ")
        assert refused.status == 413
        assert refused.headers["Connection"] == "close"
        assert refused.error == "expected a body of at most 4096 bytes, decoded too (http.max_body)"
        nothing_in_flight(rest)


def test_a_body_without_a_length_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_STALL", 3600.0)  # it has come whole: nothing is left to be waited for
    with Rest(**SMALL) as rest:
        connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
        connection.request("POST", INFER, iter([b" " * 1000] * 5), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_who_asks_first_need_not_send_what_would_be_refused() -> None:
    with Rest(HttpLimits(head=1.0), **SMALL) as rest:
        sock = rest.raw()
        sock.sendall(request(b"", "Expect: 100-continue", length=10**9))
        assert read_all(sock).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_does_not_go_off(pack: Any) -> None:
    with Rest(http={"max_body": "1MiB"}) as rest:
        bomb = pack(bytes(64 * 2**20))
        refused = rest.post(INFER, bomb, Content_Encoding="gzip" if pack is gzip.compress else "deflate")
        assert refused.status == 413
        double = rest.post(INFER, gzip.compress(gzip.compress(bytes(16 * 2**20))), Content_Encoding="gzip, gzip")
        assert double.status == 413
        nothing_in_flight(rest)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with Rest(HttpLimits(head=1.0), http={"timeout": "200ms"}) as rest:
        sock = rest.raw()
        sock.sendall(request(b"{", length=100))
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not come in time" in answer
        nothing_in_flight(rest)


def test_a_request_that_takes_too_long_is_told_and_cancelled() -> None:
    with Rest(http={"timeout": "200ms"}) as rest:
        scheduler = held(rest)
        refused = rest.post(INFER, X)
        assert refused.status == 504
        assert "http.timeout" in refused.error
        assert scheduler.cancelled.wait(WAIT)
        nothing_in_flight(rest)


def test_the_deadline_reaches_the_scheduler() -> None:
    with Rest(http={"timeout": "30s"}) as rest:
        scheduler = held(rest)
        thread = threading.Thread(target=rest.post, args=(INFER, X))
        thread.start()
        scheduler.wait_for(1)
        asked = scheduler.held[0]
        assert 25 < asked.deadline - asked.started < 31
        scheduler.release()
        thread.join()


def test_a_client_that_goes_away_cancels_its_request(rest: Rest) -> None:
    scheduler = held(rest)
    sock = rest.raw()
    sock.sendall(request(json.dumps(X).encode()))
    scheduler.wait_for(1)
    sock.close()
    assert scheduler.cancelled.wait(WAIT)
    nothing_in_flight(rest)
    scheduler.release()
    assert rest.post(INFER, X).status == 200


def test_a_client_that_goes_away_while_it_sends(rest: Rest) -> None:
    sock = rest.raw()
    sock.sendall(request(b"{", length=1000))
    eventually(lambda: rest.inflight.calls == 1, "the request has begun", limit=WAIT)
    sock.close()
    nothing_in_flight(rest)


def test_calls_and_bytes_count_with_everything_else() -> None:
    with Rest(inflight={"calls": 2, "bytes": "1MiB"}) as rest:
        scheduler = held(rest)
        body = json.dumps(X).encode()
        first, second = rest.raw(), rest.raw()
        for sock in (first, second):
            sock.sendall(request(body))
        scheduler.wait_for(2)
        assert (rest.inflight.calls, rest.inflight.nbytes) == (2, 2 * len(body))
        refused = rest.post(INFER, X)
        assert refused.status == 503
        assert "inflight.calls is 2" in refused.error
        assert rest.get("/v2/health/live").status == rest.get("/v2/health/ready").status == 200
        assert rest.get("/v2/models/digits/ready").status == 200
        assert rest.get("/healthz").status == 200
        scheduler.release()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        nothing_in_flight(rest)


def test_bytes_over_the_budget_are_refused() -> None:
    with Rest(inflight={"calls": 10, "bytes": "64KiB"}) as rest:
        scheduler = held(rest)
        sock = rest.raw()
        sock.sendall(request(json.dumps(X).encode()))
        scheduler.wait_for(1)
        refused = rest.post(INFER, json.dumps(X).encode().ljust(100_000))
        assert refused.status == 503
        assert "inflight.bytes" in refused.error
        scheduler.release()
        nothing_in_flight(rest)


def test_while_one_request_runs_others_are_answered(rest: Rest) -> None:
    scheduler = held(rest)
    waiting = [rest.raw() for _ in range(20)]
    for sock in waiting:
        sock.sendall(request(json.dumps(X).encode()))
    scheduler.wait_for(20)
    assert rest.get("/metrics").body == b"m 1\n"
    assert rest.post("/v1/models/echo:predict", {"inputs": {"in_FP32": [[1.0]]}}).status == 200
    scheduler.release()
    for sock in waiting:
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_large_bodies_are_read_elsewhere_while_others_are_answered(rest: Rest) -> None:
    """A body that hangs in a worker does not keep the loop from answering."""
    entered, free = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        free.wait(WAIT)

    rest.rest._workers._pool.submit(hang)
    rest.rest._workers._pool.submit(hang)
    assert entered.wait(WAIT)
    large = json.dumps({"inputs": [tensor("x", [[1.0] * 50_000])]}).encode()
    sock = rest.raw()
    sock.sendall(request(large))
    assert rest.post(INFER, X).status == 200
    free.set()
    assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with Rest(limits=HttpLimits(write=0.2)) as rest:
        taken = (TensorSpec("n", DType.INT32, None),)
        given = (TensorSpec("y", DType.FP32, None),)
        add(
            rest.manager,
            "big",
            (Signature("serving_default", taken, given),),
            lambda inputs: {"y": np.zeros(int(inputs["n"]), np.float32)},
        )
        head = {
            "inputs": [{"name": "n", "datatype": "INT32", "shape": [], "data": [5_000_000]}],
            "parameters": {"binary_data_output": True},
        }
        body = json.dumps(head).encode()
        sock = rest.raw()
        sock.sendall(request(body).replace(b"digits", b"big"))
        assert sock.recv(10)
        reset = select.poll()
        reset.register(sock, select.POLLERR | select.POLLHUP)
        assert reset.poll(WAIT * 1000)
        whole = rest.post("/v2/models/big/infer", body)
        assert len(whole.body) > 20_000_000


def test_draining_refuses_what_is_new_and_waits_for_what_runs(rest: Rest) -> None:
    scheduler = held(rest)
    sock = rest.raw()
    sock.sendall(request(json.dumps(X).encode()))
    scheduler.wait_for(1)
    rest.server.refuse()
    assert not rest.server.drain(0.0)
    refused = rest.post(INFER, X)
    assert (refused.status, refused.error) == (503, "the server is shutting down")
    assert rest.get("/v2/health/ready").status == 503
    assert rest.get("/v2/health/live").status == rest.get("/metrics").status == 200
    scheduler.release()
    assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert rest.server.drain(WAIT)


def test_a_load_may_take_longer_than_a_request() -> None:
    with Rest(http={"timeout": "100ms"}) as rest:
        wish: Future[Any] = Future()
        rest.manager.hold_admin = wish
        answers: list[int] = []
        path = "/v2/repository/models/digits/load"
        thread = threading.Thread(target=lambda: answers.append(rest.post(path).status))
        thread.start()
        eventually(lambda: rest.manager.asked, "the load has begun", limit=WAIT)
        scheduler = held(rest)
        assert rest.post(INFER, X).status == 504  # so much time has passed
        assert scheduler.cancelled.wait(WAIT)
        wish.set_result(rest.manager.status("digits"))
        thread.join(WAIT)
        assert answers == [200]


def test_the_end_does_not_wait_for_what_hangs_and_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with Rest() as rest:
        scheduler = held(rest)
        sock = rest.raw()
        sock.sendall(request(json.dumps(X).encode()))
        scheduler.wait_for(1)
        rest.server.stop()
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"the server is shutting down and could not wait" in answer
        assert scheduler.cancelled.wait(WAIT)
        assert caplog.text == ""


def test_a_connection_is_used_again_after_any_answer_but_the_worst(rest: Rest) -> None:
    connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
    connection.connect()
    local = connection.sock.getsockname()
    for body in (X, {"inputs": []}, b"{", X):
        rest.on(connection, "POST", INFER, body)
    assert connection.sock.getsockname() == local
    connection.close()


@pytest.mark.parametrize("path", ["/v2/nowhere", "/v2", "/healthz"])
def test_what_is_left_of_a_body_that_nobody_reads_is_no_head(rest: Rest, path: str) -> None:
    """A request may be refused before its body has come; what follows on the connection is the next request."""
    connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
    connection.connect()
    local = connection.sock.getsockname()
    for _ in range(2):
        assert rest.on(connection, "POST", path, b"x" * 2**20).status in (404, 405)
        assert rest.on(connection, "POST", INFER, X).status == 200
    assert connection.sock.getsockname() == local
    connection.close()


@pytest.mark.parametrize("path", ["/v2/nowhere", "/healthz"])
def test_who_is_still_sending_sees_why_it_is_refused(rest: Rest, path: str) -> None:
    """urllib, like Node's agent of old, asks with `Connection: close` and looks at the answer when all is sent."""
    asked = urllib.request.Request(f"http://{rest.address}{path}", b"x" * 2**23, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=WAIT)
    assert caught.value.code in (404, 405)
    caught.value.close()


def test_a_connection_that_is_to_close_does_not_wait_for_ever() -> None:
    with Rest(limits=HttpLimits(head=0.2)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 404")


def test_a_body_that_nobody_reads_must_end() -> None:
    with Rest(limits=HttpLimits(idle=0.2)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 404")


def test_a_client_is_waited_for_behind_a_body_that_nobody_read() -> None:
    with Rest(limits=HttpLimits(head=0.5)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"}'):
            answer += sock.recv(1000)
        sock.sendall(b"x" * 10 + b"GET /v2 HT")
        assert read_all(sock) == b""  # the head that has begun is one of those that must come soon


def test_fastapi_comes_with_the_first_request_for_it() -> None:
    """In a process of its own, where nothing else has imported it."""
    code = """
import sys
from support.rest import Rest
with Rest() as rest:
    assert rest.get("/healthz").status == rest.get("/metrics").status == 200
    assert rest.get("/").status == 404
    assert "fastapi" not in sys.modules
    assert rest.get("/v2").status == 200
    assert "fastapi" in sys.modules
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
