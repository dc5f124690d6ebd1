"""A worker that leaves closes its port and counts the connections that it still has, many times a second."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from inferd.server.rpc.listeners import Listeners


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def address(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def test_open_connections_are_counted_and_the_port_is_not(listening: socket.socket) -> None:
    listeners = Listeners([address(listening)])
    with listening:
        assert listeners.connections() == 0
        with socket.create_connection(listening.getsockname()), listening.accept()[0]:
            assert listeners.connections() == 1
            listeners.close()
            assert listeners.connections() == 1, "those that are open go on"
        assert listeners.connections() == 0


def test_a_closed_port_takes_nobody(listening: socket.socket) -> None:
    with listening:
        here = listening.getsockname()
        Listeners([address(listening)]).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(here)


def test_looking_leaves_no_descriptor(listening: socket.socket, tmp_path: Path) -> None:
    """Most descriptors of a process are no sockets: files, pipes, epoll, the framework's devices."""
    read, write = os.pipe()
    with listening, (tmp_path / "file").open("w"):
        listeners = Listeners([address(listening)])
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(3):
            listeners.connections()
        assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)
