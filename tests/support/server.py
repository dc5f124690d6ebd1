"""Starts the real server as users do: as a separate process, on free ports, with files on disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

INFERD = Path(sys.executable).with_name("inferd")
FAST = ("repository.poll=100ms", "repository.settle=200ms", "load.retry_min=200ms")
READY = re.compile(r"ready: grpc (?P<grpc>[^;]+); http (?P<http>[^;]*);")


class Served:
    """`inferd serve` as a context manager. On entry it waits until the server is ready; on exit it stops the server.

    address, http   "127.0.0.1:PORT" of gRPC and of HTTP
    ready_line      the line that the server prints when it is ready
    """

    def __init__(
        self,
        repository: Path | None,
        *flags: str,
        sets: Sequence[str] = FAST,
        log: Path | None = None,
        limit: float = 90.0,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """
        repository   model repository; None: the flags name the models, and `log` must be given
        limit        seconds in which the server must become ready
        prefix       a command that starts the server, for example faketime
        env          environment variables in addition to those of this process
        """
        if log is None:
            assert repository is not None
            log = repository.parent / f"{repository.name}-server.log"
        self.log = log
        self.repository = repository or log.parent
        self.limit = limit
        command = [*prefix, str(INFERD), "serve"]
        self.env = {**os.environ, **(env or {})}
        if repository is not None:
            command += ["--model-repository", str(repository)]
        if "--listen" not in flags:
            command += ["--listen", "127.0.0.1:0"]
        if "--http" not in flags:
            command += ["--http", "127.0.0.1:0"]
        self.command = [*command, *flags, *(part for item in sets for part in ("--set", item))]
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""
        self.address = self.http = ""

    def __enter__(self) -> Served:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.env)
        assert self.process.stdout is not None
        watchdog = threading.Timer(self.limit, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                found = READY.search(line)
                if found:
                    self.ready_line = line.strip()
                    self.address = found["grpc"].split(",")[0].strip()
                    self.http = found["http"].split(",")[0].strip()
                    return self
        finally:
            watchdog.cancel()
        code = self.process.wait(timeout=10)
        self.process.stdout.close()
        raise AssertionError(f"the server ended with {code} before it was ready:\n{self.tail()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        with self.process.stdout:
            if self.process.poll() is not None:
                return
            if kind is not None:  # a drain would take time and could fail in the place of what has failed
                self.process.kill()
                self.process.wait()
                return
            code = self.stop()
            assert code == 0, f"the server ended with {code}:\n{self.tail()}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal and returns at once."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Sends SIGTERM and waits. Returns the exit code. A server that does not end is killed and fails the test."""
        self.signal()
        return self.wait()

    def wait(self) -> int:
        """Waits for the end of the server. Returns the exit code."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within 60 s:\n{self.tail()}") from None

    def memory(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def tail(self, characters: int = 4000) -> str:
        """The end of the server's log."""
        return self.log.read_text()[-characters:] if self.log.exists() else ""
