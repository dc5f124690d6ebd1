"""A peer: a server that is compared with inferd. How it is installed, started and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import environment, variables
from benchmarks.processes import end

PROGRAMS = Path(__file__).resolve().parent / "programs"
START_LIMIT = 120.0  # seconds
SERVING = "serving "


class NotStarted(Exception):
    """The peer ended before it was ready, or was not ready in time. The message has the reason."""


@dataclass(frozen=True)
class Running:
    """A started peer: its address "host:port", its root process, its log."""

    address: str
    pid: int
    log: Path


@dataclass(frozen=True)
class Peer:
    """One row of the comparison.

    name          as in the table
    program       the file in programs/ that serves a folder of models and prints its address
    requirements  file with the packages of its own environment; None: it runs in the environment of inferd
    http1         it does not offer gRPC: the raw tensor is posted to /MODEL over HTTP/1.1
    echo          it has no model and answers with the request
    """

    name: str
    program: str
    requirements: str | None = None
    http1: bool = False
    echo: bool = False

    @contextmanager
    def start(self, models: Path, logs: Path) -> Iterator[Running]:
        """Serves a folder of models until the end of the `with` block. Raises NotInstalled, NotStarted."""
        if self.requirements is None:
            python, variables_ = Path(sys.executable), dict(os.environ)
        else:
            name = self.requirements.removeprefix("requirements-").removesuffix(".txt")
            python = environment(name, PROGRAMS.parent / self.requirements)
            variables_ = variables()
        command = [str(python), str(PROGRAMS / self.program), str(models)]
        with started(command, variables_, logs / f"{Path(self.program).stem}.log") as (process, line):
            yield Running(line, process.pid, logs / f"{Path(self.program).stem}.log")


@contextmanager
def started(
    command: list[str], env: dict[str, str], log: Path, *, talks: bool = False
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts a process and waits for its line "serving ADDRESS". Yields the process and the address. At the end of the
    `with` block, the process and its descendants are ended. Raises NotStarted.

    talks   the caller uses the input and output of the process; else it has no input, and its output is dropped
    """
    given = subprocess.PIPE if talks else subprocess.DEVNULL
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=env, stdin=given, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=log.parent
        )
    assert process.stdout is not None
    drain = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
    watchdog = threading.Timer(START_LIMIT, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if line.startswith(SERVING):
                break
        else:
            process.wait(10)
            raise NotStarted(f"it ended before it was ready: {_last(log)}")
        watchdog.cancel()
        if not talks:
            drain.start()
        yield process, line.removeprefix(SERVING).strip()
    finally:
        watchdog.cancel()
        end(process.pid)
        process.wait(10)
        if process.stdin is not None:
            process.stdin.close()
        if drain.is_alive():
            drain.join(10)
        process.stdout.close()


def answered(ask: Callable[[], object]) -> None:
    """Calls `ask` until it raises nothing: a peer may print its address before its models are loaded. Raises
    NotStarted."""
    limit = time.monotonic() + START_LIMIT
    pause = threading.Event()
    while True:
        try:
            ask()
            return
        except Exception as error:
            if time.monotonic() > limit:
                words = " ".join(str(error).split())[:200]
                raise NotStarted(f"no right answer within {START_LIMIT:.0f} s: {words}") from error
        pause.wait(0.2)


def _drain(pipe: Iterable[str]) -> None:
    for _ in pipe:
        pass


def _last(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
