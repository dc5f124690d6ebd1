"""One worker process: starts it, sends it orders, watches it, ends it, and says in words how it ended.

The kernel kills a worker when the thread that started it ends. Therefore a thread of its own starts the process and
then watches it: whether it has ended, its output, its memory, and whether it still answers.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.backends.api import InstanceLost, LoadError
from inferd.server.isolation.channel import Channel, ChannelError, ChannelMessage, Closed, Kind, Silent
from inferd.server.isolation.description import error_from_plain
from inferd.server.isolation.interpreter import worker_command, worker_environment
from inferd.server.isolation.output import Output
from inferd.server.observability.events import event, get
from inferd.server.process_end import ending

log = get("isolation")

_END_TIMEOUT = 5.0  # seconds in which a process must end after it was told to, or after it has closed its channel
_MEMORY_POLL = 0.1  # seconds between two checks of the memory, if it is limited
_OUTPUT_PAUSE = 0.01  # seconds between two reads from a process that writes without pause
_MIN_RETRY_AFTER = 0.1  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Limits of a worker process.

    start    seconds for each step of a load: opening the version, making an instance, a run of the warm-up
    hang     seconds for an answer after the load
    memory   bytes of resident memory, None: no limit
    answer   bytes of the outputs of one run, None: no limit
    """

    start: float = 600.0
    hang: float = 60.0
    memory: int | None = None
    answer: int | None = None


class WorkerProcess:
    """A process that serves one version of a model. Thread-safe.

    lost      "" while the process lives; afterwards how it ended: "was killed by signal 11 (SIGSEGV)"
    back_at   monotonic time at which its replacement is expected to serve: an estimate, until the caller that starts
              the replacement sets it
    """

    def __init__(
        self,
        name: str,
        limits: WorkerLimits,
        fields: dict[str, Any],
        python: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`name` is used in messages, `fields` in log lines. `python`: the interpreter in which it runs; None: that of
        this process. `threads`: CPU threads for libraries that take all of the machine's otherwise; None: as they like.
        Starts nothing; call `start`."""
        self.name = name
        self._python = python
        self._threads = threads
        self.limits = limits
        self.pid = 0
        self.lost = ""
        self.back_at = 0.0
        self._fields = fields
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._gone = threading.Event()
        self._kill_reason = ""  # why this server has killed it
        self._ending = False  # its end is intended
        self._serving = False
        self._load_seconds = 0.0
        self._start_error: Exception | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._channel, self._worker_end = Channel.pair()
        self._channel.set_timeout(limits.start)

    def start(self) -> None:
        """Starts the process and its watching thread. Raises LoadError."""
        try:
            threading.Thread(target=self._watch, name=f"inferd-{self.name}-worker", daemon=True).start()
        except RuntimeError as error:  # the system gives no thread
            self._not_started(error)
        self._started.wait()
        if self._start_error is not None:
            raise LoadError(f"no worker process can be started: {self._start_error}")

    # -- orders --------------------------------------------------------------------------------------------------------

    def ask(self, op: str, descriptor: int | None = None, **fields: Any) -> dict[str, Any]:
        """Sends an order and returns the answer. Raises what the worker has raised, or InstanceLost."""
        with self._asking:
            try:
                self._channel.send_json(Kind.ASK, {"op": op, **fields}, descriptor)
                return answer_of(self._channel.receive())
            except ChannelError as error:
                raise self.failure(error, accepted=False) from None

    def failure(self, error: ChannelError, *, accepted: bool, silence: float | None = None) -> InstanceLost:
        """The error for a request after a channel of this process has failed with `error`. Kills the process unless it
        ends by itself.

        accepted   the request may have reached the model
        silence    seconds for which the channel has waited; None: `limits.start`
        """
        if isinstance(error, Silent):
            self.kill(f"did not answer for {silence or self.limits.start:g} s and was killed")
        elif not isinstance(error, Closed) or not self._gone.wait(_END_TIMEOUT):
            self.kill(f"broke the connection ({error}) and was killed")
        self._gone.wait(_END_TIMEOUT)
        return self.loss(accepted=accepted)

    def loss(self, *, accepted: bool) -> InstanceLost:
        """The error for a request that this process can no longer answer. `accepted`: it may have reached the model."""
        message = f"{self.name}: its worker process {self.lost or 'does not answer'}"
        if not self._serving:
            return InstanceLost(message, accepted=accepted)
        after = max(_MIN_RETRY_AFTER, self.back_at - time.monotonic())
        return InstanceLost(f"{message}; another one takes its place", accepted=accepted, retry_after=after)

    def check(self) -> None:
        """Raises LoadError if the process has ended."""
        if self.lost:
            raise LoadError(f"the worker process {self.lost}")

    def serving(self, load_seconds: float) -> None:
        """Call it when the load is over. From now on the process must answer within `limits.hang`. `load_seconds`: how
        long the load took, which is the estimate for the next one."""
        self._channel.set_timeout(self.limits.hang)
        self._load_seconds = load_seconds
        self._serving = True

    def on_lost(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the reason when the process ends unintentionally: on the watching thread, or at once
        if it has ended already."""
        with self._lock:
            if not self.lost:
                self._listeners.append(listener)
                return
            intended = self._ending
        if not intended:
            listener(self.lost)

    def resident(self) -> int:
        """The resident memory of the process in bytes, 0 if it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE if not self.lost else 0
        except (OSError, IndexError, ValueError):
            return 0

    # -- ending --------------------------------------------------------------------------------------------------------

    def kill(self, reason: str) -> None:
        """Kills the process now, or as soon as it is started. Of several reasons the first one counts."""
        with self._lock:
            if self.lost:
                return
            self._kill_reason = self._kill_reason or reason
            if self._process is not None:
                self._send_kill(self._process)

    def cut(self, reason: str) -> None:
        """Kills the process because its load is cancelled. A caller that waits for an answer gets an error. Does not
        block."""
        self._ending = True
        self.kill(f"was killed, for its load was cut short: {reason}")
        self._channel.shut()

    def end(self) -> None:
        """Ends the process: closes its channel, and kills it if it does not end in time. Returns when it has ended."""
        self._ending = True
        self._channel.shut()
        if not self._gone.wait(_END_TIMEOUT):
            self.kill("did not end when it was told to, and was killed")
            self._gone.wait(_END_TIMEOUT)

    def _send_kill(self, process: subprocess.Popen[bytes]) -> None:
        # Popen.kill would reap a process that has just ended. Its id, and that of its process group, would then be
        # free for others, but the group must still be killed.
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)

    # -- watching ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            process, output = self._spawn()
        except Exception as error:
            self._not_started(error)
            return
        self._worker_end.close()
        with self._lock:
            self._process = process
            if self._kill_reason:
                self._send_kill(process)
        self._started.set()
        event(log, logging.DEBUG, "worker started", pid=self.pid, **self._fields)
        try:
            self._watch_until_end(process, output)
        finally:
            self._clean_up(process, output)

    def _not_started(self, error: Exception) -> None:
        with self._lock:
            self._start_error = error
            self.lost = f"could not be started: {error}"
        self._worker_end.close()
        self._channel.close()
        self._gone.set()
        self._started.set()

    def _spawn(self) -> tuple[subprocess.Popen[bytes], Output]:
        self._directory = tempfile.mkdtemp(prefix="inferd-model-")  # in it lie all temporary files of the process
        read_end, write_end = os.pipe()
        try:
            descriptor = self._worker_end.fileno()
            process = subprocess.Popen(
                worker_command(self._python, str(descriptor), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(descriptor,),
                process_group=0,
                env=worker_environment(self._threads, os.environ) | {"TMPDIR": self._directory},
            )
        except BaseException:
            os.close(read_end)
            self._remove_directory()
            raise
        finally:
            os.close(write_end)
        self.pid = process.pid
        return process, Output(read_end, pid=process.pid, **self._fields)

    def _remove_directory(self) -> None:
        """Removes what the process has left, however it has ended."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _watch_until_end(self, process: subprocess.Popen[bytes], output: Output) -> None:
        """Returns when the process has ended."""
        poll = select.poll()
        try:
            handle = os.pidfd_open(process.pid)
            poll.register(handle, select.POLLIN)
        except OSError:  # before Linux 5.3: watch its end of the channel, which children of the process may keep open
            handle = os.dup(self._channel.fileno())
            poll.register(handle, 0)
        try:
            poll.register(output.descriptor, select.POLLIN)
            ping = max(0.05, self.limits.hang / 4)
            step = _MEMORY_POLL if self.limits.memory is not None else ping
            pinged = time.monotonic()
            while True:
                ready = [descriptor for descriptor, _ in poll.poll(1000 * min(step, ping))]
                if output.descriptor in ready and not output.read():
                    poll.unregister(output.descriptor)
                if output.behind:  # slow down: reading this output must not take the server's processor time
                    time.sleep(_OUTPUT_PAUSE)
                if handle in ready:
                    return
                self._check_memory()
                now = time.monotonic()
                if self._serving and now - pinged >= ping:
                    pinged = now
                    threading.Thread(target=self._ping, name=f"inferd-{self.name}-ping", daemon=True).start()
        finally:
            os.close(handle)

    def _check_memory(self) -> None:
        most = self.limits.memory
        if most is not None and (size := self.resident()) > most:
            self.kill(f"took {_mib(size)} of memory, more than the {_mib(most)} of worker.memory, and was killed")

    def _ping(self) -> None:
        if not self._asking.acquire(blocking=False):
            return  # another thread waits for an answer and will notice a silence, too
        try:
            self._channel.send_json(Kind.ASK, {"op": "ping"})
            answer_of(self._channel.receive())
        except Silent:
            self.kill(f"did not answer for {self.limits.hang:g} s and was killed")
        except Exception as error:
            if not isinstance(error, Closed) or not self._gone.wait(_END_TIMEOUT):
                self.kill(f"broke the connection ({error}) and was killed")
        finally:
            self._asking.release()

    def _clean_up(self, process: subprocess.Popen[bytes], output: Output) -> None:
        # The process has not been reaped yet, so no other process group can have its id.
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the processes that the model has started
        except OSError:
            pass  # the group is empty
        self._send_kill(process)  # in case it has left its group
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        output.close()
        with self._lock:
            code = process.wait()  # under the lock, because `kill` must not hit a new process with this id
            # The process may have ended by itself before it was killed; then its exit code is the reason.
            self.lost = self._kill_reason if self._kill_reason and code == -signal.SIGKILL else ending(code)
            self.back_at = time.monotonic() + self._load_seconds
            listeners, self._listeners = self._listeners, []
        self._remove_directory()
        self._channel.shut()
        self._gone.set()
        level = logging.DEBUG if self._ending else logging.ERROR
        event(log, level, "worker ended", fate=self.lost, last_line=output.last or None, **self._fields, pid=self.pid)
        if not self._ending:
            for listener in listeners:
                listener(self.lost)
        with self._asking:  # no thread may read from the descriptor when it is closed
            self._channel.close()


def answer_of(message: ChannelMessage) -> dict[str, Any]:
    """The content of a DONE message. Raises the error of a FAILED message."""
    if message.kind is Kind.FAILED:
        raise error_from_plain(message.json())
    return message.json()


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
