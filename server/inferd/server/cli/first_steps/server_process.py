"""`inferd serve` in a process of its own, on free ports of this machine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

LIMIT = 150.0
"""Seconds that the server may take to become ready or to stop. On a slow machine frameworks take long to import."""
FLAGS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
QUICK = ("--set", "repository.settle=500ms", "--set", "repository.poll=200ms")


class DemoFailed(Exception):
    """A step of the demonstration failed. The message says which one."""


class ServerProcess:
    """A server on `repository`. As a context manager it is ready on entry, and gone on exit.

    ready     the line that it printed when it was ready
    address   of gRPC
    """

    def __init__(self, repository: Path, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "inferd", "serve", "--model-repository", str(repository), *FLAGS, *QUICK]
        with log.open("w") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.ready = self.address = ""

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        killer = threading.Timer(LIMIT, self._process.kill)  # without it, a server that never gets ready would hang us
        killer.start()
        try:
            for line in self._process.stdout:
                found = re.search(r"ready: grpc (\S+?)[,;\s]", line)
                if found:
                    self.ready, self.address = line.strip(), found[1]
                    return self
        except BaseException:
            self._kill()
            raise
        finally:
            killer.cancel()
        self._kill()
        raise DemoFailed(f"the server did not become ready; its log:\n{self._tail()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def stop(self) -> None:
        """Asks the server to stop, and waits until it has ended. Raises DemoFailed if it cut off requests or hangs."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"the server did not stop within {LIMIT:.0f} s") from None
        if code != 0:
            raise DemoFailed(f"the server ended with {code} on SIGTERM; its log:\n{self._tail()}")

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]
