"""One worker as the supervisor sees it: its process, its end of the link, and how far it has come."""

from __future__ import annotations

import enum
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from inferd.server.workers.group_state import States
from inferd.server.workers.link import Answer, Link
from inferd.server.workers.metrics_totals import Families

_COMMAND = (sys.executable, "-P", "-m", "inferd.server.cli.worker")


class ChildPhase(enum.Enum):
    """How far a worker has come."""

    STARTING = "starting"  # imports, binds (not one that starts late), loads
    READY = "ready"  # what it wanted at first is served or has failed
    OPENING = "opening"  # a late one: it has what the others have, and opens its ports
    SERVING = "serving"
    LEAVING = "leaving"  # its connections go to the others
    GONE = "gone"


class Child:
    """Used by the supervisor's thread. `id` is never used twice; `number` is handed on to its replacement.

    `received` and `lost` are called on the link's thread.
    """

    def __init__(self, id: int, number: int, *, late: bool) -> None:  # noqa: A002
        self.id = id
        self.number = number
        self.late = late
        self.phase = ChildPhase.STARTING
        self.replaces: Child | None = None
        self.states: dict[str, States] = {}
        self.families: Families = ()  # what it has counted, as last heard
        self._final = False
        self.began = 0.0  # monotonic
        self.stopping = False  # it was told to end, or has asked to
        self.replaced = False  # another one takes its place, or will
        self.process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None

    def start(self, received: Callable[[Child, Any, Answer | None], None], lost: Callable[[Child], None]) -> None:
        """Starts the process. Call it on the thread that lives longest: workers die with the thread that started
        them. Raises OSError or RuntimeError when the system gives no process or thread; then nothing is left of it."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*_COMMAND, str(theirs.fileno()), str(os.getpid())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # an interrupt from the terminal is for the supervisor
                )
            except BaseException:
                ours.close()
                raise
        self._link = Link(
            ours,
            lambda message, answer: received(self, message, answer),
            lambda: lost(self),
            name=f"inferd-worker-{self.number}",
        )
        try:
            self._link.start()
        except BaseException:
            self._link.discard()
            self.kill()
            self.wait()
            raise

    def count(self, families: Families, *, final: bool = False) -> None:
        """Keeps what it has counted. Nothing that comes after its `final` word does: the series of a worker that ends
        go with its models, while it still answers."""
        if final or not self._final:
            self.families = families
        self._final |= final

    @property
    def link(self) -> Link:
        """The link to it."""
        assert self._link is not None
        return self._link

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not ChildPhase.GONE

    @property
    def available(self) -> set[tuple[str, int]]:
        """The versions that it serves."""
        return {
            (model, version)
            for model, states in self.states.items()
            for version, (state, _) in states.items()
            if state == "AVAILABLE"
        }

    @property
    def ended(self) -> bool:
        """Whether its process has."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def exit_code(self, *, kill: bool) -> int | None:
        """The code with which it has ended, None while it has not; `kill`: it is to end now. Does not wait."""
        assert self.process is not None
        code = self.process.poll()
        if code is None and kill:
            self.kill()
        return code

    def wait(self) -> None:
        """Waits for the end of one that was killed."""
        if self.process is not None:
            self.process.wait()
