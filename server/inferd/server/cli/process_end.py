"""How a process that has served ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """Ends the process without the interpreter's own shutdown. To be called when everything is closed.

    A load or an instance may still run in a framework, on a thread that nobody can end. The interpreter would take the
    ground from under it, and such threads have aborted the process: with a core dump instead of an exit code.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
