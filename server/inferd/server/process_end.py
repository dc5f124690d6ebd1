"""How a process has ended, in words."""

from __future__ import annotations

import signal


def ending(code: int) -> str:
    """What ended a process with this exit code, as `subprocess` gives it: "ended with exit code 3", "was killed by
    signal 11 (SIGSEGV)"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}){hint}"
