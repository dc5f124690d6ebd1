"""Files that DVC tracks: a path with a .dvc file beside it, or any path at a revision. Runs the `dvc` command only."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.sources.material import SourceOptions
from inferd.server.publishing.tasks import clean

_MD5: Final = re.compile(r"^\s*-?\s*md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", re.MULTILINE)
_SECONDS: Final = 3600.0


def is_tracked(path: Path, options: SourceOptions) -> bool:
    """Whether a source is DVC's: it has a .dvc file beside it, or a revision is asked for."""
    return bool(options.revision) or _beside(path).is_file()


def fetch(path: Path, work: Path, options: SourceOptions) -> tuple[Path, dict[str, Any]]:
    """The file or directory at the asked revision, and what DVC tells of it. What is here already, and is what the .dvc
    file says, is taken as it is. Raises PublishError."""
    path = Path(os.path.abspath(str(path).removesuffix(".dvc")))
    told: dict[str, Any] = {"kind": "dvc", "uri": path.name}
    beside = _beside(path)
    md5 = _md5(beside) if beside.is_file() else ""
    if not options.revision and path.exists():
        if path.is_file() and md5 and _file_md5(path) != md5:
            raise PublishError(
                f"{path} is not what {beside.name} tells: run dvc add and commit, or dvc checkout, and publish again"
            )
        return path, {**told, "dvc_md5": md5}
    top = _top(path)
    target = work / "dvc" / path.name
    target.parent.mkdir()
    command = ["dvc", "get", str(top), str(path.relative_to(top)), "-o", str(target)]
    if options.revision:
        command += ["--rev", options.revision]
        told["uri"] = f"{path.name} at {options.revision}"
        told["revision"] = options.revision
    _run(command, options)
    if not options.revision and md5:
        told["dvc_md5"] = md5
    elif target.is_file():
        told["dvc_md5"] = _file_md5(target)
    commit = _commit(top, options.revision or "HEAD")
    if commit:
        told["commit"] = commit
    return target, told


def _run(command: list[str], options: SourceOptions) -> None:
    if shutil.which(command[0]) is None:
        raise PublishError(
            "the file is DVC's, and there is no dvc command: pip install dvc, with what its remote needs"
        )
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=min(options.limits.seconds, _SECONDS),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PublishError(f"dvc get: {error}") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line] or ["no reason is told"]
        raise PublishError(f"dvc get fails: {clean(lines[0], 400)}")


def _beside(path: Path) -> Path:
    return path if path.suffix == ".dvc" else path.with_name(f"{path.name}.dvc")


def _md5(path: Path) -> str:
    try:
        found = _MD5.search(path.read_text()[: 1 << 20])
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def _file_md5(path: Path) -> str:
    hasher = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return hasher.hexdigest()


def _top(path: Path) -> Path:
    """The directory that holds .dvc: DVC's project."""
    for directory in path.parents:
        if (directory / ".dvc").is_dir() or (directory / ".git").exists():
            return directory
    raise PublishError(f"{path} does not lie in a DVC or git repository, so there is no revision of it")


def _commit(top: Path, revision: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(top), "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"],
            capture_output=True, text=True, check=False, timeout=10, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
