"""A signal may come between any two lines of the main thread, and must never be what stops it for ever."""

from __future__ import annotations

import subprocess
import sys

IN_THE_WORST_MOMENT = """
import signal, sys, threading
from inferd.server.cli.signals import ends_with_signals
stop = threading.Event()
ends_with_signals(stop)
with stop._cond:  # as the main thread holds it at the beginning and at the end of each stop.wait
    signal.raise_signal(signal.SIGTERM)
sys.exit(0 if stop.wait(30) else 3)
"""

IN_THE_HANDLER = """
import signal, sys, threading
from inferd.server.cli.signals import calls_with_signal
heard = threading.Event()
calls_with_signal(signal.SIGTERM, heard.set)
with heard._cond:  # as a handler that sets the event holds it when the next signal comes
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
sys.exit(0 if heard.wait(30) else 3)
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
seen = ends_with_signals(stop)
signal.raise_signal(signal.SIGHUP)
if sys.argv[1] == "SIG_DFL":
    sys.exit(0 if stop.wait(30) else 3)
assert not seen
"""


def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=90, check=False
    )


def test_a_signal_that_meets_the_main_thread_in_its_wait_is_heard() -> None:
    done = run(IN_THE_WORST_MOMENT)
    assert done.returncode == 0, done.stderr


def test_a_worker_that_is_told_to_leave_twice_at_once_hears_it() -> None:
    done = run(IN_THE_HANDLER)
    assert done.returncode == 0, done.stderr


def test_a_second_interrupt_ends_at_once() -> None:
    done = run(TWICE)
    assert done.returncode == 130, done.stderr
    assert "interrupted again" in done.stderr


def test_a_terminal_that_goes_drains_the_server_unless_it_was_told_not_to_mind() -> None:
    for disposition in ("SIG_DFL", "SIG_IGN"):
        done = run(HUNG_UP, disposition)
        assert done.returncode == 0, done.stderr
