"""One worker as the supervisor sees it: its process, the link to it, and its phase."""

from __future__ import annotations

import enum
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from inferd.server.workers.group_state import States
from inferd.server.workers.link import Answer, Link
from inferd.server.workers.metrics_totals import Families

_COMMAND = (sys.executable, "-P", "-m", "inferd.server.cli.worker")


class ChildPhase(enum.Enum):
    """The phases of a worker's life, in order."""

    STARTING = "starting"  # imports, binds its ports (unless it starts late), loads
    READY = "ready"  # every version found by its first scan is available or has failed
    OPENING = "opening"  # late workers only: it serves the versions that the others serve, and opens its ports
    SERVING = "serving"
    LEAVING = "leaving"  # its connections move to the other workers
    GONE = "gone"


class Child:
    """The supervisor's thread only.

    id       unique for the life of the supervisor
    number   from 1 to the number of workers; a replacement gets the number of the worker that it replaces
    late     the worker opens its ports only when the supervisor says so, because others serve already
    """

    def __init__(self, id: int, number: int, *, late: bool) -> None:  # noqa: A002
        self.id = id
        self.number = number
        self.late = late
        self.phase = ChildPhase.STARTING
        self.replaces: Child | None = None
        self.states: dict[str, States] = {}
        self.families: Families = ()  # its metrics, as last received
        self._final = False
        self.began = 0.0  # monotonic
        self.stopping = False  # the supervisor has told it to end, or it has asked for that
        self.replaced = False  # a replacement has been started or will be
        self.process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._link: Link | None = None

    def start(self, received: Callable[[Child, Any, Answer | None], None], lost: Callable[[Child], None]) -> None:
        """Starts the process. `received` and `lost` are called on the link's thread.

        Call it on the supervisor's main thread: the kernel kills a worker when the thread that started it ends.
        Raises OSError or RuntimeError when the system gives no process or thread; everything is then released.
        """
        self._directory = tempfile.mkdtemp(prefix="inferd-worker-")  # in it lie all temporary files of the worker
        supervisor_end, worker_end = socket.socketpair()
        with worker_end:
            try:
                self.process = subprocess.Popen(
                    [*_COMMAND, str(worker_end.fileno()), str(os.getpid())],
                    pass_fds=(worker_end.fileno(),),
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # an interrupt from the terminal must reach only the supervisor
                    env={**os.environ, "TMPDIR": self._directory},
                )
            except BaseException:
                self._remove_directory()
                supervisor_end.close()
                raise
        self._link = Link(
            supervisor_end,
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
        """Stores the worker's metrics. After a `final` report all others are ignored: a worker that ends still
        answers, but it drops the series of a model when it closes that model."""
        if final or not self._final:
            self.families = families
        self._final |= final

    @property
    def link(self) -> Link:
        """The link to the worker."""
        assert self._link is not None
        return self._link

    @property
    def pid(self) -> int:
        """The worker's process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the supervisor has not yet seen the worker end."""
        return self.phase is not ChildPhase.GONE

    @property
    def available(self) -> set[tuple[str, int]]:
        """The versions that the worker serves, as (model, version)."""
        return {
            (model, version)
            for model, states in self.states.items()
            for version, (state, _) in states.items()
            if state == "AVAILABLE"
        }

    @property
    def ended(self) -> bool:
        """Whether the worker's process has ended."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """Sends SIGKILL to the worker, unless it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def exit_code(self, *, kill: bool) -> int | None:
        """The exit code of the worker, None while it runs. `kill`: sends SIGKILL if it still runs. Does not wait."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            self._remove_directory()
        elif kill:
            self.kill()
        return code

    def wait(self) -> None:
        """Waits until the worker, which was killed before, has ended."""
        if self.process is not None:
            self.process.wait()
            self._remove_directory()

    def _remove_directory(self) -> None:
        """Removes what the worker has left, however it has ended."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = ""
