"""Running programs, and getting those that are not there. Everything that is missing is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VAR = ROOT / "var" / "containers"
"""What is kept between two runs: the base of the images, and their layers."""
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failure(Exception):
    """The test has failed, or cannot run here. The message says why."""


def run(
    *command: str | Path,
    limit: float = 600.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    quiet: bool = True,
    fine: Sequence[int] = (0,),
) -> str:
    """Runs a program to its end and returns what it wrote on standard output. Raises Failure unless its exit code is
    one of `fine`."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            timeout=limit,
            check=False,
            cwd=cwd,
            env={**os.environ, "PATH": _PLACES, **(env or {})} if env is None or "PATH" not in env else dict(env),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(words[:6])}: {error}") from None
    if done.returncode not in fine:
        said = ((done.stdout or "") + (done.stderr or ""))[-3000:] if quiet else ""
        raise Failure(f"{' '.join(words)[:300]} ended with {done.returncode}\n{said}")
    return done.stdout or ""


def need_root() -> None:
    """Raises Failure without the rights to mount and to make namespaces."""
    if os.geteuid() != 0:
        raise Failure("it needs root: it mounts images and makes namespaces")


def need_programs(packages: Mapping[str, str]) -> None:
    """Installs what is missing. `packages`: program → Debian's package. Raises Failure."""
    missing = sorted({package for program, package in packages.items() if found(program) is None})
    if not missing:
        return
    if found("apt-get") is None:
        raise Failure(f"it needs Debian's packages {', '.join(missing)}, and there is no apt-get")
    say(f"installing {', '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", env=quiet, limit=600)
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing, env=quiet, limit=1800)
    still = [program for program in packages if found(program) is None]
    if still:
        raise Failure(f"{', '.join(still)} cannot be found after {', '.join(missing)} were installed")


def found(program: str) -> str | None:
    """The path of a program, the directories of root included."""
    return shutil.which(program, path=_PLACES)


def say(text: str) -> None:
    """One line of the report, at once."""
    print(text, flush=True)


def expect(condition: object, what: str) -> None:
    """Raises Failure with `what` unless the condition holds."""
    if not condition:
        raise Failure(what)


def wait_for(condition: Callable[[], bool], what: str, limit: float = 180.0) -> float:
    """Waits until the condition holds; returns the seconds. Raises Failure."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise Failure(f"not within {limit:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began
