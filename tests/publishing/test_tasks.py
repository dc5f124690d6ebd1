"""A program that is not trusted runs in a subprocess: whatever it does ends there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from inferd.server.publishing.tasks import TaskFailed, TaskLimits, run_task

ANSWER = """
import json, os, sys
r, fd = json.load(sys.stdin), int(sys.argv[-1])
def say(**a): os.write(fd, json.dumps(a).encode() + bytes([10]))
"""


def run(tmp_path: Path, code: str, limits: TaskLimits | None = None, **request):
    said: list[str] = []
    printed: list[str] = []
    done = run_task(
        [sys.executable, "-I", "-c", ANSWER + code],
        request,
        what="the task",
        directory=tmp_path,
        limits=limits or TaskLimits(60),
        progress=said.append,
        output=printed.append,
    )
    return done, said, printed


def test_request_progress_output_and_result(tmp_path: Path) -> None:
    code = "say(progress='half'); print('hello\\x1b[2J'); say(done={'twice': r['n'] * 2, 'tmp': os.environ['TMPDIR']})"
    done, said, printed = run(tmp_path, code, n=21)
    assert done == {"twice": 42, "tmp": str(tmp_path)}
    assert said == ["half"]
    assert printed == ["hello\\x1b[2J"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("say(failed='no \\x07such file')", r"^no \\x07such file$"),
        ("sys.exit('it is broken')", "the task ended with exit code 1: it is broken"),
        ("os.kill(os.getpid(), 11)", r"was killed by signal 11 \(SIGSEGV\)"),
        ("os.write(fd, b'no json\\n[]\\n')", "ended with exit code 0"),
        ("import time; time.sleep(600)", r"did not end in 1 s \(--time-limit\)"),
        ("import subprocess; subprocess.Popen(['sleep', '600']); os._exit(0)", "ended with exit code 0"),
        ("while True: print('x' * 10000)", r"did not end in 1 s"),
        ("while True: os.write(fd, b'x' * 65536)", "an answer without end"),
    ],
)
def test_failures(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(TaskFailed, match=reason):
        run(tmp_path, code, TaskLimits(1) if "1 s" in reason else None)


def test_memory_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="more than the 200 MiB of --memory-limit"):
        run(tmp_path, "x = bytearray(400 << 20); import time; time.sleep(60)", TaskLimits(60, 200 << 20))


def test_packages_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed) as caught:
        run(tmp_path, "say(failed='no skops', install=['skops'])")
    assert caught.value.install == ("skops",)
    assert json.dumps(caught.value.lines) == "[]"
