"""A stopping worker closes its listening sockets and counts its open connections."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.server.transport.listening_sockets import Listeners


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


def test_a_closed_port_accepts_no_connection(listening: socket.socket) -> None:
    with listening:
        here = listening.getsockname()
        Listeners([address(listening)]).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(here)


class Steps(threading.Event):
    """An event that is never set, and calls a function on each wait."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        self.steps.pop(0)()
        return False


def test_begun_connections_are_waited_for(listening: socket.socket) -> None:
    accepted: list[socket.socket] = []
    with listening:
        listeners = Listeners([address(listening)])
        early = [socket.create_connection(listening.getsockname()) for _ in range(2)]
        assert listeners.waiting() == 2

        def accept() -> None:
            accepted.append(listening.accept()[0])

        hurry = Steps(lambda: None, accept, accept)
        listeners.turn_away(hurry)
        assert not hurry.steps
        assert listeners.waiting() == 0
    for each in (*early, *accepted):
        each.close()


def test_new_connections_go_to_another_worker() -> None:
    """Two sockets on one port, as two workers have: no client is reset when one of them goes."""
    with socket.socket() as leaver, socket.socket() as other:
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        leaver.bind(("127.0.0.1", 0))
        leaver.listen()
        Listeners([address(leaver)]).turn_away(Steps(lambda: None))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(leaver.getsockname())
        other.listen()
        late = [socket.socket() for _ in range(32)]
        for each in late:
            each.setblocking(False)
            each.connect_ex(leaver.getsockname())
        leaver.close()
        other.settimeout(30)
        accepted = [other.accept()[0] for _ in late]
        for each in late:
            each.settimeout(30)
            each.sendall(b"x")
        for each in (*late, *accepted):
            each.close()


def test_a_hurried_worker_does_not_wait(listening: socket.socket) -> None:
    hurry = threading.Event()
    hurry.set()
    with listening, socket.create_connection(listening.getsockname()):
        listeners = Listeners([address(listening)])
        listeners.turn_away(hurry)
        assert listeners.waiting() == 1


def descriptors() -> Counter[str]:
    """The number of this process's descriptors by target."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found


def test_listing_the_sockets_leaks_no_descriptor(listening: socket.socket, tmp_path: Path) -> None:
    """Most descriptors of a process are not sockets: files, pipes, epoll, devices."""
    read, write = os.pipe()
    with listening, (tmp_path / "file").open("w"):
        listeners = Listeners([address(listening)])
        before = descriptors()
        for _ in range(3):
            listeners.connections()
        assert not descriptors() - before  # fewer is no fault: an earlier server may let go of its own meanwhile
    os.close(read)
    os.close(write)
