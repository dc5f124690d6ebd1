"""One worker process: started, asked, watched and ended. What became of it, in words.

A thread of its own starts the process, for the kernel ends a worker together with the thread that started it; then it
watches: the process's end, its output, its memory, and whether it still answers.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.backends.api import InstanceLost, LoadError
from inferd.server.isolation.channel import Channel, ChannelError, ChannelMessage, Closed, Kind, Silent
from inferd.server.isolation.description import error_from_plain
from inferd.server.isolation.output import Output
from inferd.server.observability.events import event, get

log = get("isolation")

_MODULE = "inferd.server.isolation.worker"
_LAST_WORDS = 5.0  # seconds in which a process that was told to end, or has closed its connections, must be gone
_MEMORY_LOOK = 0.1  # seconds between two looks at the memory, where it is limited
_BREATH = 0.01  # seconds between two looks at the output of a process that never stops writing
_SOONEST = 0.1  # seconds of pushback at least
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Seconds and bytes. `start`: for opening a version and each step of its load; `hang`: for an answer after that;
    `memory`: of the whole process, None: any."""

    start: float = 600.0
    hang: float = 60.0
    memory: int | None = None


class WorkerProcess:
    """A process that does one thing: serve a model. Thread-safe.

    Once `lost` is set it is gone for good, and says why: "was killed by signal 11 (SIGSEGV)".
    """

    def __init__(self, name: str, limits: WorkerLimits, fields: dict[str, Any]) -> None:
        """`name` in messages; `fields` in log lines. `start` comes next."""
        self.name = name
        self.limits = limits
        self.pid = 0
        self.lost = ""
        self.back_at = 0.0
        """Monotonic time at which another one is expected to serve; set by whoever starts it, guessed until then."""
        self._fields = fields
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._gone = threading.Event()
        self._verdict = ""  # why we killed it
        self._ending = False  # on purpose
        self._serving = False
        self._load_seconds = 0.0
        self._failed_start: Exception | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel, self._theirs = Channel.pair()
        self._channel.patience(limits.start)

    def start(self) -> None:
        """Starts the process. Raises LoadError."""
        try:
            threading.Thread(target=self._watch, name=f"inferd-{self.name}-worker", daemon=True).start()
        except RuntimeError as error:  # no thread is to be had
            self._not_started(error)
        self._started.wait()
        if self._failed_start is not None:
            raise LoadError(f"no worker process can be started: {self._failed_start}")

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, op: str, descriptor: int | None = None, **fields: Any) -> dict[str, Any]:
        """The answer to an order. Raises what the worker raises, or InstanceLost."""
        with self._asking:
            try:
                self._channel.tell(Kind.ASK, {"op": op, **fields}, descriptor)
                return answer_of(self._channel.receive())
            except ChannelError as error:
                raise self.failure(error, accepted=False) from None

    def failure(self, error: ChannelError, *, accepted: bool, silence: float | None = None) -> InstanceLost:
        """The end of the process after a channel has failed, which it may have to be helped to, as an error.

        `silence`: seconds that the channel waited.
        """
        if isinstance(error, Silent):
            self.kill(f"did not answer for {silence or self.limits.start:g} s and was killed")
        elif not isinstance(error, Closed) or not self._gone.wait(_LAST_WORDS):
            self.kill(f"broke the connection ({error}) and was killed")
        self._gone.wait(_LAST_WORDS)
        return self.loss(accepted=accepted)

    def loss(self, *, accepted: bool) -> InstanceLost:
        """The error for a request that this process cannot answer any more."""
        words = f"{self.name}: its worker process {self.lost or 'does not answer'}"
        if not self._serving:
            return InstanceLost(words, accepted=accepted)
        after = max(_SOONEST, self.back_at - time.monotonic())
        return InstanceLost(f"{words}; another one takes its place", accepted=accepted, retry_after=after)

    def check(self) -> None:
        """Raises LoadError when the process is gone."""
        if self.lost:
            raise LoadError(f"the worker process {self.lost}")

    def serving(self, load_seconds: float) -> None:
        """The load is over, and took so long: from now on the process is to answer within `hang`."""
        self._channel.patience(self.limits.hang)
        self._load_seconds = load_seconds
        self._serving = True

    def on_lost(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the reason when the process ends unasked: on a thread of its own, or at once if it
        has."""
        with self._lock:
            if not self.lost:
                self._listeners.append(listener)
                return
            asked = self._ending
        if not asked:
            listener(self.lost)

    def resident(self) -> int:
        """Bytes of memory that the process takes, 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE if not self.lost else 0
        except (OSError, IndexError, ValueError):
            return 0

    # -- ending --------------------------------------------------------------------------------------------------------

    def kill(self, reason: str) -> None:
        """Ends the process now, also one that is about to be started. The first reason given is the one that is
        told."""
        with self._lock:
            if self.lost:
                return
            self._verdict = self._verdict or reason
            if self._process is not None:
                self._strike(self._process)

    def cut(self, reason: str) -> None:
        """Ends the process now and on purpose; whoever waits for an answer of its is told so. Does not block."""
        self._ending = True
        self.kill(f"was killed, for its load was cut short: {reason}")
        self._channel.shut()

    def end(self) -> None:
        """Lets the process go, gently at first, and returns when it is gone."""
        self._ending = True
        self._channel.shut()
        if not self._gone.wait(_LAST_WORDS):
            self.kill("did not end when it was told to, and was killed")
            self._gone.wait(_LAST_WORDS)

    def _strike(self, process: subprocess.Popen[bytes]) -> None:
        # Popen's own kill would bury a process that has just ended, and with it the number of its group.
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)

    # -- watching ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            process, output = self._spawn()
        except Exception as error:
            self._not_started(error)
            return
        self._theirs.close()
        with self._lock:
            self._process = process
            if self._verdict:
                self._strike(process)
        self._started.set()
        event(log, logging.DEBUG, "worker started", pid=self.pid, **self._fields)
        try:
            self._attend(process, output)
        finally:
            self._bury(process, output)

    def _not_started(self, error: Exception) -> None:
        with self._lock:
            self._failed_start = error
            self.lost = f"could not be started: {error}"
        self._theirs.close()
        self._channel.close()
        self._gone.set()
        self._started.set()

    def _spawn(self) -> tuple[subprocess.Popen[bytes], Output]:
        ours, theirs = os.pipe()
        try:
            descriptor = self._theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(descriptor), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                pass_fds=(descriptor,),
                process_group=0,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.pid = process.pid
        return process, Output(ours, pid=process.pid, **self._fields)

    def _attend(self, process: subprocess.Popen[bytes], output: Output) -> None:
        """Returns when the process is gone."""
        poll = select.poll()
        try:
            handle = os.pidfd_open(process.pid)
            poll.register(handle, select.POLLIN)
        except OSError:  # before Linux 5.3: its end of the channel goes with it, unless it has children of its own
            handle = os.dup(self._channel.fileno())
            poll.register(handle, 0)
        try:
            poll.register(output.descriptor, select.POLLIN)
            ping = max(0.05, self.limits.hang / 4)
            step = _MEMORY_LOOK if self.limits.memory is not None else ping
            pinged = time.monotonic()
            while True:
                ready = [descriptor for descriptor, _ in poll.poll(1000 * min(step, ping))]
                if output.descriptor in ready and not output.read():
                    poll.unregister(output.descriptor)
                if output.behind:  # who writes so much waits, and takes no more of this process's time
                    time.sleep(_BREATH)
                if handle in ready:
                    return
                self._weigh()
                now = time.monotonic()
                if self._serving and now - pinged >= ping:
                    pinged = now
                    threading.Thread(target=self._ping, name=f"inferd-{self.name}-ping", daemon=True).start()
        finally:
            os.close(handle)

    def _weigh(self) -> None:
        most = self.limits.memory
        if most is not None and (size := self.resident()) > most:
            self.kill(f"took {_mib(size)} of memory, more than the {_mib(most)} of worker.memory, and was killed")

    def _ping(self) -> None:
        if not self._asking.acquire(blocking=False):
            return  # somebody is asking already, and will notice a silence as well
        try:
            self._channel.tell(Kind.ASK, {"op": "ping"})
            answer_of(self._channel.receive())
        except Silent:
            self.kill(f"did not answer for {self.limits.hang:g} s and was killed")
        except Exception as error:
            if not isinstance(error, Closed) or not self._gone.wait(_LAST_WORDS):
                self.kill(f"broke the connection ({error}) and was killed")
        finally:
            self._asking.release()

    def _bury(self, process: subprocess.Popen[bytes], output: Output) -> None:
        # Not waited for yet: the number of its group is nobody else's.
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what the model has started goes with it
        except OSError:
            pass  # it has become a group of nobody
        self._strike(process)  # it may have left the group
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        output.close()
        with self._lock:
            code = process.wait()  # under the lock: who kills must not hit another process of that number
            # A verdict that came when the process had ended by itself, unseen on a busy machine, is none.
            self.lost = self._verdict if self._verdict and code == -signal.SIGKILL else fate(code)
            self.back_at = time.monotonic() + self._load_seconds
            listeners, self._listeners = self._listeners, []
        self._channel.shut()
        self._gone.set()
        level = logging.DEBUG if self._ending else logging.ERROR
        event(log, level, "worker ended", fate=self.lost, last_line=output.last or None, **self._fields, pid=self.pid)
        if not self._ending:
            for listener in listeners:
                listener(self.lost)
        with self._asking:  # nobody may be reading when the descriptor is given back
            self._channel.close()


def answer_of(message: ChannelMessage) -> dict[str, Any]:
    """What a DONE says. Raises what a FAILED says."""
    if message.kind is Kind.FAILED:
        raise error_from_plain(message.json())
    return message.json()


def fate(code: int) -> str:
    """A process's exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    why = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}){why}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
