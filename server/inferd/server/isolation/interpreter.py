"""Another Python interpreter for a worker process: `worker.python`, with packages of its own.

The interpreter needs numpy and what the model's code imports, nothing of the server's packages. It gets inferd's own
modules through `bootstrap.py`, by their directories, and none of what is installed beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import inferd
from inferd.backends.api import LoadError

OLDEST: Final = (3, 11)
_MODULE: Final = "inferd.server.isolation.worker"
_BOOTSTRAP: Final = Path(__file__).with_name("bootstrap.py")
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LIMIT: Final = 60.0  # seconds in which an interpreter must have imported numpy
_QUESTION: Final = (
    "import sys\n"
    "print(*sys.version_info[:2])\n"
    "try:\n"
    "    import numpy\n"
    "    print(numpy.__version__)\n"
    "except ImportError as error:\n"
    "    print(error)\n"
)


def worker_command(python: str | None, *arguments: str) -> list[str]:
    """The command that starts a worker process. `python`: another interpreter; None: this one."""
    if python is None:
        return [sys.executable, "-P", "-m", _MODULE, *arguments]
    # -I: neither the environment nor the working directory leads to modules.
    return [python, "-I", str(_BOOTSTRAP), json.dumps(list(inferd.__path__)), *arguments]


def worker_environment(threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker process. `threads`: how many CPU threads numpy's and other libraries take, which
    count the machine's processors otherwise, not those of the container; what the environment says stands."""
    if threads is None:
        return dict(environment)
    return {name: str(threads) for name in _THREADS} | dict(environment)


def check_interpreter(python: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises LoadError for an interpreter in which no worker can run, and says what to install."""
    where = f"worker.python: {python}"
    try:
        done = subprocess.run(
            [python, "-I", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
            env=dict(environment),
        )
    except OSError as error:
        raise LoadError(f"{where} cannot be started: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise LoadError(f"{where} did not say its version within {_LIMIT:g} s") from None
    version, _, numpy = done.stdout.strip().partition("\n")
    try:
        major, minor = map(int, version.split())
    except ValueError:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LoadError(f"{where} is no Python interpreter: {said[-1][:200] if said else 'it says nothing'}") from None
    if (major, minor) < OLDEST:
        raise LoadError(f"{where} is Python {major}.{minor}: expected {OLDEST[0]}.{OLDEST[1]} or newer")
    if not numpy[:1].isdigit():
        raise LoadError(f"{where} cannot import numpy ({numpy[:200]}): install it there, {python} -m pip install numpy")
