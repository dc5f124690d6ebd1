"""A virtual environment of its own for a peer that must not share ours: var/bench/NAME, made by pip from pins."""

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
    """The peer cannot be installed on this machine; says why."""


def environment(name: str, requirements: Path) -> Path:
    """The environment's interpreter. Installs at the first use, and again when the requirements or Python change."""
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
    """The process environment for a peer: nothing of ours on its path, and the interpreter's own shared library first
    (PyTriton's wheel has a program that links to it by name and would take the system's, which may be another one)."""
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
