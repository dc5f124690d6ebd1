"""The bounds of REST on time and memory: clients that are slow, disconnected or many, and bodies that are large."""

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


@pytest.fixture(autouse=True, params=[True, False], ids=["loaded", "fresh"])
def _loaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with short requests that are passed on whole, and with all of them read by a coroutine."""
    monkeypatch.setattr(Rest, "loaded", request.param)


def read_all(sock: Any) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def held(rest: Rest) -> Any:
    """The scheduler of the model, holding all requests until `release`."""
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


def test_a_body_over_the_limit_is_refused_and_the_connection_closed() -> None:
    with Rest(**SMALL) as rest:
        exact = json.dumps(X).encode().ljust(4096)
        assert rest.post(INFER, exact).status == 200
        refused = rest.post(INFER, exact + b" ")
        assert refused.status == 413
        assert refused.headers["Connection"] == "close"
        assert refused.error == "expected a body of at most 4096 bytes, decoded too (http.max_body)"
        nothing_in_flight(rest)


def test_a_chunked_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_STALL", 3600.0)  # the whole body has been sent, so the server must not wait
    with Rest(**SMALL) as rest:
        connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
        connection.request("POST", INFER, iter([b" " * 1000] * 5), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_expect_100_continue_is_refused_before_the_body_is_sent() -> None:
    with Rest(HttpLimits(head=1.0), **SMALL) as rest:
        sock = rest.raw()
        sock.sendall(request(b"", "Expect: 100-continue", length=10**9))
        assert read_all(sock).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_compression_bomb_is_refused(pack: Any) -> None:
    with Rest(http={"max_body": "1MiB"}) as rest:
        bomb = pack(bytes(64 * 2**20))
        refused = rest.post(INFER, bomb, Content_Encoding="gzip" if pack is gzip.compress else "deflate")
        assert refused.status == 413
        double = rest.post(INFER, gzip.compress(gzip.compress(bytes(16 * 2**20))), Content_Encoding="gzip, gzip")
        assert double.status == 413
        nothing_in_flight(rest)


def test_a_body_that_does_not_arrive_gets_408() -> None:
    with Rest(HttpLimits(head=1.0), http={"timeout": "200ms"}) as rest:
        sock = rest.raw()
        sock.sendall(request(b"{", length=100))
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not come in time" in answer
        nothing_in_flight(rest)


def test_a_request_over_http_timeout_gets_504_and_is_cancelled() -> None:
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
        assert 25 < asked.deadline - asked.group.started < 31
        scheduler.release()
        thread.join()


def test_a_disconnect_cancels_the_request(rest: Rest) -> None:
    scheduler = held(rest)
    sock = rest.raw()
    sock.sendall(request(json.dumps(X).encode()))
    scheduler.wait_for(1)
    sock.close()
    assert scheduler.cancelled.wait(WAIT)
    nothing_in_flight(rest)
    scheduler.release()
    assert rest.post(INFER, X).status == 200


def test_a_disconnect_while_the_body_is_sent_leaves_nothing_in_flight(rest: Rest) -> None:
    sock = rest.raw()
    sock.sendall(request(b"{", length=1000))
    eventually(lambda: rest.inflight.calls == 1, "the request has begun", limit=WAIT)
    sock.close()
    nothing_in_flight(rest)


def test_requests_count_towards_inflight_calls_and_bytes() -> None:
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


def test_bytes_over_inflight_bytes_are_refused() -> None:
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


def test_other_requests_are_answered_while_one_runs(rest: Rest) -> None:
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


def test_a_large_body_is_parsed_on_a_worker_thread(rest: Rest) -> None:
    """Even when all worker threads hang, the event loop answers small requests."""
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


def test_draining_refuses_new_requests_and_waits_for_running_ones(rest: Rest) -> None:
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
        operation: Future[Any] = Future()
        rest.manager.hold_admin = operation
        answers: list[int] = []
        path = "/v2/repository/models/digits/load"
        thread = threading.Thread(target=lambda: answers.append(rest.post(path).status))
        thread.start()
        eventually(lambda: rest.manager.asked, "the load has begun", limit=WAIT)
        scheduler = held(rest)
        assert rest.post(INFER, X).status == 504  # so http.timeout has passed for the load, too
        assert scheduler.cancelled.wait(WAIT)
        operation.set_result(rest.manager.status("digits"))
        thread.join(WAIT)
        assert answers == [200]


def test_stop_answers_hanging_requests_with_503_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_connection_is_kept_after_an_error_response(rest: Rest) -> None:
    connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
    connection.connect()
    local = connection.sock.getsockname()
    for body in (X, {"inputs": []}, b"{", X):
        rest.on(connection, "POST", INFER, body)
    assert connection.sock.getsockname() == local
    connection.close()


@pytest.mark.parametrize("path", ["/v2/nowhere", "/v2", "/healthz"])
def test_the_unread_rest_of_a_body_is_not_parsed_as_a_request(rest: Rest, path: str) -> None:
    """A request may be refused before its body has been received; the next request on the connection is still parsed
    correctly."""
    connection = http.client.HTTPConnection(rest.host, rest.port, timeout=WAIT)
    connection.connect()
    local = connection.sock.getsockname()
    for _ in range(2):
        assert rest.on(connection, "POST", path, b"x" * 2**20).status in (404, 405)
        assert rest.on(connection, "POST", INFER, X).status == 200
    assert connection.sock.getsockname() == local
    connection.close()


@pytest.mark.parametrize("path", ["/v2/nowhere", "/healthz"])
def test_a_client_that_is_still_sending_sees_the_refusal(rest: Rest, path: str) -> None:
    """urllib (and old agents of Node) send `Connection: close` and read the response only after sending everything."""
    asked = urllib.request.Request(f"http://{rest.address}{path}", b"x" * 2**23, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=WAIT)
    assert caught.value.code in (404, 405)
    caught.value.close()


def test_a_connection_to_be_closed_does_not_wait_for_the_body_for_ever() -> None:
    with Rest(limits=HttpLimits(head=0.2)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 404")


def test_an_unread_body_must_end_within_the_idle_time() -> None:
    with Rest(limits=HttpLimits(idle=0.2)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 404")


def test_the_head_timeout_applies_after_an_unread_body() -> None:
    with Rest(limits=HttpLimits(head=0.5)) as rest:
        sock = rest.raw()
        sock.sendall(b"POST /v2/nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"}'):
            answer += sock.recv(1000)
        sock.sendall(b"x" * 10 + b"GET /v2 HT")
        assert read_all(sock) == b""  # the head that has begun did not arrive in time


def test_fastapi_is_imported_at_the_first_rest_request_that_does_not_infer() -> None:
    """In a new process, where nothing else has imported FastAPI."""
    code = """
import sys
from support.rest import Rest
Rest.loaded = False
with Rest() as rest:
    assert rest.get("/healthz").status == rest.get("/metrics").status == 200
    assert rest.get("/").status == 404
    assert "orjson" not in sys.modules
    for _ in range(2):
        x = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
        assert rest.post("/v2/models/digits/infer", {"inputs": [x]}).status == 200
    assert rest.post("/v1/models/digits:predict", {"instances": [[1.5, 2]]}).status == 200
    assert "fastapi" not in sys.modules and "starlette" not in sys.modules
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


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b"[[[]]]"])
def test_json_counts_by_what_its_values_take(value: bytes) -> None:
    many = b",".join([value] * (6 * 2**20 // (len(value) + 1)))  # 6 MiB, which would take 70 to 150
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [' + many + b"]}]}"
    with Rest(inflight={"bytes": "32MiB"}) as rest:
        refused = rest.post(INFER, body)
        assert refused.status in {429, 503}
        assert "inflight.bytes" in refused.error
        assert rest.post(INFER, X).status == 200
        nothing_in_flight(rest)


def test_binary_tensors_do_not_count_as_json() -> None:
    data = b"[" * 400_000
    x = {"name": "x", "datatype": "FP32", "shape": [100_000, 1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [x]}).encode()
    with Rest(inflight={"bytes": "8MiB"}) as rest:
        answer = rest.post(INFER, head + data, Inference_Header_Content_Length=str(len(head)))
        assert answer.status == 200


def test_a_body_that_comes_slowly_gives_way_while_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_STALL", 3600.0)
    with Rest(HttpLimits(head=1.0), inflight={"bytes": "1MiB"}) as rest:
        sock = rest.raw()
        sock.sendall(request(b" " * 600_000, length=700_000))  # more than half of the bound
        assert read_all(sock).startswith(b"HTTP/1.1 408")
        nothing_in_flight(rest)
