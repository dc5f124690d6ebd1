"""The workers' ports: checked, held, and shared with no other process."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from inferd.server.config.schema import ServerConfig
from inferd.server.workers.ports import HeldPorts


def config(**server: Any) -> ServerConfig:
    return ServerConfig.model_validate({"server": {"workers": 2, "http": [], **server}})


def listener(address: str = "127.0.0.1", port: int = 0, *, reuse: bool = False) -> socket.socket:
    """A listening socket. `reuse`: with the options that a worker's gRPC server sets."""
    sock = socket.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def test_port_0_becomes_one_port_on_which_all_workers_may_listen() -> None:
    ports = HeldPorts.of(config(listen=["localhost:0"], http=["127.0.0.1:0"]))
    host, _, port = ports.grpc[0].rpartition(":")
    assert host == "localhost"
    assert int(port) > 0
    with listener(port=int(port), reuse=True), listener(port=int(port), reuse=True):
        pass
    applied = ports.apply(config(listen=["localhost:0"]))
    assert (applied.server.listen, applied.server.http) == (ports.grpc, ports.http)
    ports.close()


def test_no_other_process_gets_a_held_port() -> None:
    ports = HeldPorts.of(config(listen=["127.0.0.1:0"]))
    with pytest.raises(OSError, match="in use"):
        listener(port=int(ports.grpc[0].rpartition(":")[2]))
    with pytest.raises(OSError, match=rf"cannot listen on {ports.grpc[0]}: address already in use"):
        HeldPorts.of(config(listen=list(ports.grpc)))
    ports.close()
    HeldPorts.of(config(listen=list(ports.grpc))).close()


@pytest.mark.parametrize("reuse", [False, True])
def test_a_taken_port_is_refused_by_name(reuse: bool) -> None:
    with listener(reuse=reuse) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            HeldPorts.of(config(http=[f"127.0.0.1:{port}"], listen=["127.0.0.1:0"]))
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            HeldPorts.of(config(metrics=[f"127.0.0.1:{port}"], listen=["127.0.0.1:0"]))


def test_the_metrics_address_is_held_too() -> None:
    given = config(listen=["127.0.0.1:0"], metrics=["127.0.0.1:0"])
    ports = HeldPorts.of(given)
    assert int(ports.metrics[0].rpartition(":")[2]) > 0
    assert ports.apply(given).server.metrics == ports.metrics
    ports.close()


def test_a_port_can_be_held_again_while_connections_are_in_time_wait() -> None:
    ports = HeldPorts.of(config(listen=["127.0.0.1:0"]))
    port = int(ports.grpc[0].rpartition(":")[2])
    with listener(port=port, reuse=True) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the connection in TIME_WAIT
        client.close()
    ports.close()
    HeldPorts.of(config(listen=[f"127.0.0.1:{port}"])).close()


def test_the_second_default_address_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    given = config()
    with listener() as taken:
        second = f"127.0.0.1:{taken.getsockname()[1]}"
        # Like the default addresses, but with ports that are free here.
        server = given.server.model_copy(update={"listen": ("127.0.0.1:0", second)})
        server.model_fields_set.discard("listen")
        with caplog.at_level(logging.WARNING):
            ports = HeldPorts.of(given.model_copy(update={"server": server}))
    assert len(ports.grpc) == 1
    assert f"cannot listen on {second}" in caplog.text
    assert "left out" in caplog.text
    ports.close()


def test_unix_sockets_are_refused() -> None:
    with pytest.raises(OSError, match=r"expected HOST:PORT while server\.workers is above 1"):
        HeldPorts.of(config(listen=["unix:/run/inferd.sock"]))
