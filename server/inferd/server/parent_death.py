"""Ends a child process when its parent ends, even if the parent is killed by SIGKILL. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> bool:
    """From now on the kernel kills this process when the thread that started it ends.

    Returns whether the parent process, with the id `parent`, is still alive. If it ended before this call, the kernel
    sends no signal; the caller must then end by itself.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    return os.getppid() == parent
