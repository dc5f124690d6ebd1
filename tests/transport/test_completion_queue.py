"""Tests of the completion-queue transport alone: self-check, fallback, failure of the loop, a stop at every step."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import grpc
import pytest

from inferd.server.config.schema import Server, ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport import listen
from inferd.server.transport.calls import MethodTable, UnaryCall, for_each_call
from inferd.server.transport.completion_queue import compatibility as usable
from inferd.server.transport.completion_queue.transport import CompletionQueueTransport
from inferd.server.transport.grpc_aio.transport import PublicTransport
from inferd.server.transport.selection import make_transport

ECHO = "/test.Echo/Echo"
ANYWHERE = [listen.Address("127.0.0.1:0")]


def transport(
    handler: Callable[[UnaryCall], None], on_fatal: Callable[[], None] = lambda: None
) -> CompletionQueueTransport:
    config = ServerConfig()
    return CompletionQueueTransport(
        MethodTable({ECHO: for_each_call(handler)}, {}), config, InflightBounds(config.inflight), ANYWHERE, on_fatal
    )


def echo(call: UnaryCall) -> None:
    call.reply(call.request)


def chosen(kind: str) -> object:
    config = ServerConfig(server=Server.model_validate({"transport": kind, "listen": ["127.0.0.1:0"]}))
    return make_transport(
        MethodTable({ECHO: for_each_call(echo)}, {}), config, InflightBounds(config.inflight), on_fatal=lambda: None
    )


def test_the_installed_grpcio_is_one_that_was_tested() -> None:
    assert usable.why_not() is None, (
        "a grpcio upgrade: run tests/transport on it, then add its minor version to compatibility.TESTED"
    )
    assert isinstance(chosen("auto"), CompletionQueueTransport)
    assert isinstance(chosen("public"), PublicTransport)


@pytest.mark.parametrize("broken", ["version", "part", "loopback"])
def test_an_untested_grpcio_falls_back_with_one_log_line(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from grpc._cython import cygrpc

    if broken == "version":
        monkeypatch.setattr(grpc, "__version__", "9.99.0")
    elif broken == "part":
        monkeypatch.delattr(cygrpc, "ReceiveCloseOnServerOperation")
    else:

        def cannot() -> str:
            raise ValueError("changed")

        monkeypatch.setattr(usable, "_loopback", cannot)
    with caplog.at_level(logging.WARNING):
        assert isinstance(chosen("auto"), PublicTransport)
    assert len(caplog.records) == 1
    assert "public API" in caplog.text
    with pytest.raises(OSError, match=r"server\.transport is cq"):
        chosen("cq")


def test_starting_and_stopping_hundreds_of_times_never_crashes() -> None:
    """In a separate process, because a mistake here crashes gRPC's core."""
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "done"


STARTS = """
import faulthandler, grpc
faulthandler.enable()
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.server.errors import Code
from inferd.server.transport import listen
from inferd.server.transport.completion_queue import transport as cq
from inferd.server.transport.calls import MethodTable
cq.REFUSING = 0.0  # not to wait for late callers two hundred times
config = ServerConfig()
table = MethodTable({"/t.E/E": lambda calls, at: [call.reply(call.request) for call in calls]}, {})
for i in range(200):
    bounds = InflightBounds(config.inflight)
    server = cq.CompletionQueueTransport(table, config, bounds, [listen.Address("127.0.0.1:0")])
    (address,) = server.start()
    if i % 10 == 0:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            assert channel.unary_unary("/t.E/E")(b"x", timeout=10) == b"x"
    assert server.stop(5.0)
print("done")
"""


@pytest.mark.parametrize("step", range(12))
def test_a_stop_at_every_step_of_many_calls_loses_none(step: int) -> None:
    """The stop begins when the server has received `step` requests. They are answered, the rest is refused."""
    received: list[UnaryCall] = []
    reached, stopping = threading.Event(), threading.Event()

    def handler(call: UnaryCall) -> None:
        received.append(call)
        if len(received) >= step:
            reached.set()

    def answer() -> None:
        # Another thread answers, before, while and after the server stops.
        answered = 0
        while not stopping.is_set() or answered < len(received):
            if answered < len(received):
                received[answered].reply(received[answered].request)
                answered += 1
            else:
                stopping.wait(0.001)

    server = transport(handler)
    (address,) = server.start()
    if step == 0:
        reached.set()
    outcomes: list[str] = []
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        method = channel.unary_unary(ECHO)
        calls = [method.future(str(i).encode(), timeout=30) for i in range(40)]
        worker = threading.Thread(target=answer)
        worker.start()
        assert reached.wait(10)
        drained = server.stop(20.0)
        stopping.set()
        worker.join()
        for i, call in enumerate(calls):
            error = call.exception()
            if error is None:
                assert call.result() == str(i).encode()
                outcomes.append("answered")
            else:
                # CANCELLED: it reached the core when the port had closed; no server of gRPC's has a say in that.
                assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), call.details()
                outcomes.append("refused")
    assert drained
    assert outcomes.count("answered") == len(received)
    assert server.open_calls == 0


def test_a_loop_that_fails_fails_its_calls_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    fatal = threading.Event()
    held: list[UnaryCall] = []
    arrived = threading.Event()

    def handler(call: UnaryCall) -> None:
        held.append(call)
        arrived.set()
        if len(held) == 2:
            raise KeyboardInterrupt("nothing that a handler's wall would stop")

    server = transport(handler, fatal.set)
    (address,) = server.start()
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.unary_unary(ECHO)
        first = method.future(b"1", timeout=20)
        assert arrived.wait(10)
        second = method.future(b"2", timeout=20)
        assert fatal.wait(10), "the process is told to end"
        for call in (first, second):
            assert call.exception() is not None
    assert "gRPC loop failed" in caplog.text


def test_a_call_whose_deadline_has_passed_before_it_is_looked_at_is_not_read() -> None:
    held, free, seen = threading.Event(), threading.Event(), []
    refused: list[tuple[str, object]] = []

    def handler(call: UnaryCall) -> None:
        seen.append(call.request)
        held.set()
        assert free.wait(20)
        call.reply(b"done")

    config = ServerConfig()
    table = MethodTable({ECHO: for_each_call(handler)}, {}, refused=lambda method, code: refused.append((method, code)))
    server = CompletionQueueTransport(table, config, InflightBounds(config.inflight), ANYWHERE, lambda: None)
    (address,) = server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(ECHO)
            first = call.future(b"first", timeout=20)
            assert held.wait(20)
            with pytest.raises(grpc.RpcError) as late:
                call(b"late", timeout=0.5)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # A call's deadline is counted from its arrival. By the end of this call that of the former one has passed
            # here, too, even if it was long on its way.
            with pytest.raises(grpc.RpcError):
                call(b"later", timeout=1.5)
            free.set()
            assert first.result() == b"done"
            assert call(b"next", timeout=20) == b"done"
    finally:
        free.set()
        assert server.stop(5.0)
    assert [request for request in seen if request != b"later"] == [b"first", b"next"]
    assert set(refused) == {(ECHO, Code.DEADLINE_EXCEEDED)}
