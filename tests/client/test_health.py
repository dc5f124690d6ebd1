"""The methods `ready` and `wait_ready`."""

from __future__ import annotations

import socket
import threading

import pytest
from support.client import LONG, FakeServer

from inferd.client import DeadlineExceeded, Unsupported
from inferd.client._shared.health import health_request, is_serving


def test_ready_asks_for_the_server_or_for_a_model(client, server: FakeServer):
    server.set_health("", True)
    server.set_health("m", False)
    assert client.ready() is True
    assert client.ready("m") is False
    assert client.ready("unknown") is False
    server.set_health("m", True)
    assert client.ready("m") is True


def test_without_a_server_ready_is_false(connect):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert connect(f"127.0.0.1:{free.getsockname()[1]}").ready(timeout=20.0) is False


def test_waiting_ends_when_the_model_becomes_ready(client, server: FakeServer):
    server.set_health("m", False)
    done = threading.Event()

    def wait() -> None:
        client.wait_ready(LONG, "m")
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.1)
    assert not done.is_set()
    server.set_health("m", True)
    assert done.wait(LONG)
    thread.join(LONG)


def test_wait_ready_may_begin_before_the_server_starts(connect):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = connect(f"127.0.0.1:{port}")
    done = threading.Event()

    def wait() -> None:
        client.wait_ready(LONG)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.1)
    with FakeServer(address=f"127.0.0.1:{port}") as server:
        server.set_health("", True)
        assert done.wait(LONG)
        thread.join(LONG)


def test_the_error_of_wait_ready_says_what_was_not_ready(client, server: FakeServer):
    server.set_health("m", False)
    with pytest.raises(DeadlineExceeded, match="model 'm' was not ready in time: the server says that it is not ready"):
        client.wait_ready(1.0, "m")


def test_a_server_without_the_health_service_raises_an_error(connect):
    with FakeServer(with_health=False) as server:
        client = connect(server.address)
        with pytest.raises(Unsupported):
            client.ready()
        with pytest.raises(Unsupported):
            client.wait_ready(5.0)


def test_the_messages_are_those_of_grpc_health_v1():
    from grpc_health.v1 import health_pb2

    for name in ("", "m", "é" * 100):
        assert health_request(name) == health_pb2.HealthCheckRequest(service=name).SerializeToString()
    for status in health_pb2.HealthCheckResponse.ServingStatus.values():
        message = health_pb2.HealthCheckResponse(status=status).SerializeToString()
        assert is_serving(message) is (status == 1)
