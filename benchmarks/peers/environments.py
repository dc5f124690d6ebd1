"""Virtual environments for peers whose packages would conflict with inferd's: var/bench/NAME, installed by pip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks import ROOT

ENVIRONMENTS = ROOT / "var" / "bench"
LIMIT = 900.0


class NotInstalled(Exception):
    """The peer cannot be installed on this machine. The message has the reason."""


def environment(name: str, requirements: Path) -> Path:
    """The path of the environment's interpreter. Installs the requirements at the first use, and again if they or the
    Python version have changed. Raises NotInstalled."""
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    print(f"installing {name} into {folder.relative_to(ROOT)} ...", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run([*pip, "install", "-q", "-r", str(requirements)])
    stamp.write_text(wanted)
    return python


def variables() -> dict[str, str]:
    """The environment variables for a peer.

    inferd's packages are not on its path. The directory of the interpreter's shared library comes first in the library
    path: PyTriton's wheel has a program that links to that library by name and would otherwise use the system's, which
    may be another version.
    """
    found = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    library = sysconfig.get_config_var("LIBDIR")
    if library:
        found["LD_LIBRARY_PATH"] = ":".join(filter(None, (library, found.get("LD_LIBRARY_PATH"))))
    return found


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"the installation took more than {LIMIT:.0f} s") from None
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise NotInstalled(words[-1][:200])
