"""Signals that would end the process although nobody means that: each gets a defined effect."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterable
from typing import Any, Final

_NAMES: Final = ("SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGPIPE")
STACKS: Final = signal.SIGUSR1
"""The signal on which a process writes what each of its threads does to standard error."""


def ignore_stray_signals(more: Iterable[signal.Signals] = ()) -> None:
    """From now on SIGUSR1 writes the stacks of all threads to standard error, and the other signals whose default is to
    end the process, but which mean nothing here, do nothing; so do `more`. Main thread only.

    SIG_IGN would be inherited by the processes that models start; a handler is not.
    """
    real_time = range(signal.SIGRTMIN, signal.SIGRTMAX + 1) if sys.platform == "linux" else ()
    named = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    for number in (*named, *real_time, *more):
        signal.signal(number, _nothing)
    signal.signal(STACKS, _write_stacks)


def _write_stacks(_number: int, _frame: Any) -> None:
    # Not faulthandler.register: its handler reads the stacks of threads that are running, which can crash the process.
    # This one has the interpreter's lock, so they stand still.
    try:
        faulthandler.dump_traceback(all_threads=True)
    except (AttributeError, OSError, RuntimeError, ValueError):  # there is no standard error
        pass


def _nothing(_number: int, _frame: Any) -> None:
    pass
