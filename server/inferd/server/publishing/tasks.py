"""Runs a program in a subprocess: a JSON request on its stdin, JSON answers on a descriptor of its own.

The program writes one JSON object a line to the descriptor whose number is its last argument:

    {"progress": "text"}                    any number of these
    {"done": {...}}                         the result
    {"failed": "text", "install": [...]}    the reason, and the packages that are missing, if that is the reason

What it prints goes to `output`, line by line, without control characters. It is killed with all processes that it has
started when its time is over, when it takes too much memory, and when this process ends.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from inferd.server.process_end import ending
from inferd.server.publishing.errors import PublishError

_POLL: Final = 0.2  # seconds between two looks at time and memory
_LAST_LINES: Final = 12  # of the output, told when the program fails without an answer
_LONGEST_LINE: Final = 500  # characters of one line that are shown
_MOST_ANSWER: Final = 64 * 2**20  # bytes of one answer
_READ: Final = 1 << 16
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def _nowhere(_line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """seconds   until the program is killed
    memory    bytes of resident memory, None: no limit
    """

    seconds: float = 1800.0
    memory: int | None = None


class TaskFailed(PublishError):
    """The program gave no result. `install`: packages whose lack is the reason; `lines`: the last of its output."""

    def __init__(self, message: str, install: Sequence[str] = (), lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.install = tuple(install)
        self.lines = tuple(lines)


@dataclass(slots=True)
class _Reading:
    """The unread rest of both streams, and what was read."""

    answers: bytearray = field(default_factory=bytearray)
    printed: bytes = b""
    result: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))


def run_task(
    command: Sequence[str],
    request: Mapping[str, Any],
    *,
    what: str,
    directory: Path,
    limits: TaskLimits | None = None,
    progress: Callable[[str], None] = _nowhere,
    output: Callable[[str], None] = _nowhere,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs `command` and returns its result. `what`: what it does, for messages ("the conversion"). Its temporary
    files lie in `directory`. Blocks. Raises TaskFailed."""
    limits = limits or TaskLimits()
    answer_read, answer_write = os.pipe()
    try:
        process = _start(command, request, directory, answer_write, environment)
        _restrict(process.pid)
    except OSError as error:
        os.close(answer_read)
        raise TaskFailed(f"{command[0]} cannot be started: {error.strerror or error}") from None
    finally:
        os.close(answer_write)
    reading = _Reading()
    killed = ""
    try:
        killed = _read(process, answer_read, reading, limits, progress, output)
    finally:
        _end(process)
        os.close(answer_read)
    if killed:
        raise TaskFailed(f"{what} {killed}", lines=tuple(reading.last))
    if reading.failed is not None:
        raise TaskFailed(
            clean(str(reading.failed.get("failed", "")), 4000),
            [clean(str(name), 100) for name in _list(reading.failed.get("install"))],
            tuple(reading.last),
        )
    if reading.result is None:
        said = f": {reading.last[-1]}" if reading.last else ""
        raise TaskFailed(f"{what} {ending(process.returncode)}{said}", lines=tuple(reading.last))
    return reading.result


def clean(text: str, most: int = _LONGEST_LINE) -> str:
    """One line of text of a program that is not trusted, for a terminal: escapes control characters, cuts."""
    line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text[: most + 1])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _escaped(letter: str) -> str:
    return " " if letter in "\t\n\r" else letter.encode("unicode_escape", "backslashreplace").decode()


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _start(
    command: Sequence[str],
    request: Mapping[str, Any],
    directory: Path,
    descriptor: int,
    environment: Mapping[str, str] | None,
) -> subprocess.Popen[bytes]:
    # A file and not a pipe: a program that does not read its request must not block this process.
    asked = directory / f".request-{os.getpid()}"
    asked.write_text(json.dumps(request))
    with open(asked, "rb") as stdin:
        asked.unlink()
        return subprocess.Popen(
            [*command, str(descriptor)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
            process_group=0,
            cwd=directory,
            env={**os.environ, **(environment or {}), "TMPDIR": str(directory)},
        )


def _restrict(pid: int) -> None:
    """No core dumps. When memory runs out, the kernel kills this process first."""
    try:
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        Path(f"/proc/{pid}/oom_score_adj").write_text("800")
    except OSError:
        pass  # it has ended, or a container does not allow it


def _read(
    process: subprocess.Popen[bytes],
    answers: int,
    reading: _Reading,
    limits: TaskLimits,
    progress: Callable[[str], None],
    output: Callable[[str], None],
) -> str:
    """Reads until the program has ended. Returns "", or why it has to be killed."""
    assert process.stdout is not None
    printed = process.stdout.fileno()
    until = time.monotonic() + limits.seconds
    poll = select.poll()
    open_ends = {answers, printed}
    for descriptor in open_ends:
        poll.register(descriptor, select.POLLIN)
    while open_ends:
        for descriptor, _ in poll.poll(_POLL * 1000):
            data = os.read(descriptor, _READ)
            if not data:
                poll.unregister(descriptor)
                open_ends.discard(descriptor)
            elif descriptor == answers:
                _answers(reading, data, progress)
            else:
                _lines(reading, data, output)
        if len(reading.answers) > _MOST_ANSWER:
            return "gave an answer without end and was killed"
        if time.monotonic() > until:
            return f"did not end in {limits.seconds:g} s (--time-limit) and was killed"
        if limits.memory is not None and (size := _resident(process.pid)) > limits.memory:
            most = limits.memory >> 20
            return f"took {size >> 20} MiB of memory, more than the {most} MiB of --memory-limit, and was killed"
        if process.poll() is not None and not _readable(open_ends):
            break  # a process that it has started may keep the streams open for ever
    if reading.printed:
        _line(reading, reading.printed, output)
        reading.printed = b""
    try:
        process.wait(max(0.1, min(5.0, until - time.monotonic())))
    except subprocess.TimeoutExpired:
        pass  # it has closed its streams; what it still does is of no use
    return ""


def _readable(descriptors: set[int]) -> bool:
    return bool(select.select(list(descriptors), [], [], 0)[0])


def _answers(reading: _Reading, data: bytes, progress: Callable[[str], None]) -> None:
    reading.answers += data
    if b"\n" not in data:
        return
    *lines, rest = bytes(reading.answers).split(b"\n")
    reading.answers = bytearray(rest)
    for line in lines:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(answer, dict):
            continue
        if isinstance(answer.get("done"), dict):
            reading.result = answer["done"]
        elif "failed" in answer:
            reading.failed = answer
        elif "progress" in answer:
            progress(clean(str(answer["progress"])))


def _lines(reading: _Reading, data: bytes, output: Callable[[str], None]) -> None:
    *lines, rest = (reading.printed + data).split(b"\n")
    for line in lines:
        _line(reading, line, output)
    if len(rest) > _READ:  # a line without end
        _line(reading, rest, output)
        rest = b""
    reading.printed = rest


def _line(reading: _Reading, line: bytes, output: Callable[[str], None]) -> None:
    text = clean(line.rpartition(b"\r")[2].decode(errors="backslashreplace") or line.decode(errors="backslashreplace"))
    if text.strip():
        reading.last.append(text)
        output(text)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the program, if it lives, and all processes of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
