"""A signal handler may interrupt the main thread anywhere. It must never cause a deadlock."""

from __future__ import annotations

import subprocess
import sys

import pytest

DURING_WAIT = """
import signal, sys, threading
from inferd.server.cli.signals import ends_with_signals
stop = threading.Event()
ends_with_signals(stop)
with stop._cond:  # the main thread holds this lock at the beginning and at the end of each stop.wait
    signal.raise_signal(signal.SIGTERM)
sys.exit(0 if stop.wait(30) else 3)
"""

DURING_HANDLER = """
import signal, sys, threading
from inferd.server.cli.signals import calls_with_signal
received = threading.Event()
calls_with_signal(signal.SIGTERM, received.set)
with received._cond:  # a handler that sets the event holds this lock when the next signal comes
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
sys.exit(0 if received.wait(30) else 3)
"""

TWICE = """
import signal, threading
from inferd.server.cli.signals import ends_with_signals
stop = threading.Event()
ends_with_signals(stop)
signal.raise_signal(signal.SIGINT)
assert stop.wait(30)
signal.raise_signal(signal.SIGINT)
threading.Event().wait(30)
"""

HUNG_UP = """
import signal, sys, threading
from inferd.server.cli.signals import ends_with_signals
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
stop = threading.Event()
signals = ends_with_signals(stop)
signal.raise_signal(signal.SIGHUP)
if sys.argv[1] == "SIG_DFL":
    sys.exit(0 if stop.wait(30) else 3)
assert not signals
"""


def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=90, check=False
    )


def test_a_signal_during_the_main_threads_wait_is_handled() -> None:
    done = run(DURING_WAIT)
    assert done.returncode == 0, done.stderr


def test_a_signal_during_the_handler_of_another_is_handled() -> None:
    done = run(DURING_HANDLER)
    assert done.returncode == 0, done.stderr


def test_a_second_interrupt_ends_at_once() -> None:
    done = run(TWICE)
    assert done.returncode == 130, done.stderr
    assert "interrupted again" in done.stderr


def test_a_closed_terminal_drains_the_server_unless_sighup_is_ignored() -> None:
    for disposition in ("SIG_DFL", "SIG_IGN"):
        done = run(HUNG_UP, disposition)
        assert done.returncode == 0, done.stderr


ALL = """
import os, signal, sys, threading
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite that was started by nohup would pass on that it is ignored
from inferd.server.cli.signals import ends_with_signals
stop = threading.Event()
signals = ends_with_signals(stop)
ending = {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}
# Faults of the process itself, what cannot be caught, and job control.
own = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGXCPU", "SIGXFSZ", "SIGKILL"}
jobs = {"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT"}
numbers = set(signal.valid_signals())
for number in sorted(numbers):
    try: name = signal.Signals(number).name
    except ValueError: name = str(number)  # a real-time signal
    if name not in ending | own | jobs:
        os.kill(os.getpid(), number)
assert not stop.is_set() and not signals, signals
print("goes on", flush=True)
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(0 if stop.wait(30) else 3)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"])
def test_only_the_signals_that_mean_so_end_the_server(name: str) -> None:
    done = run(ALL, name)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
    assert "Current thread" in done.stderr  # the stacks, for SIGUSR1
