"""Writes where a version comes from into `<version>/.inferd/provenance.json`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from inferd.server import __version__
from inferd.server.repository.provenance import DIRECTORY, FILE

FORMAT: Final = 1
_CHUNK: Final = 1 << 20
_GIT_SECONDS: Final = 10.0
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(slots=True)
class Provenance:
    """What is known of a version. Filled in step by step; `write` writes it.

    source      {kind, uri, version, run_id, model_id, dvc_md5, hf_revision, ...}
    git         {commit, dirty, remote} of the code
    made_with   versions of the interpreter and of the packages that made the artefact
    metrics     numbers of the training run, or of a gate
    params      of the training run
    sample      {sha256, rows}: the rows that it was checked with
    parity      {rows, agreeing, max_abs_diff}: the comparison with the original
    checked     what the check has found; None: it was not checked
    forced      why it was published although a check has failed
    parent      the version from which it was made: {model, version, files}
    more        further entries by key
    """

    source: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] | None = None
    forced: str = ""
    parent: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def write(self, version: Path) -> Path:
        """Writes it into a version's directory, with the digests of all its files. Raises OSError."""
        directory = version / DIRECTORY
        directory.mkdir(exist_ok=True)
        content: dict[str, Any] = {
            "format": FORMAT,
            "source": self.source,
            "git": self.git,
            "made_by": f"inferd {__version__}",
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_with": {"python": platform.python_version(), **self.made_with},
            "metrics": self.metrics,
            "params": self.params,
            "files": digests(version),
            "sample": self.sample,
            "parity": self.parity,
            "checked": self.checked if self.checked is not None else False,
            "forced": self.forced,
            "parent": self.parent,
            **self.more,
        }
        kept = {key: value for key, value in content.items() if value not in ({}, "")}
        path = directory / FILE
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=True) + "\n")
        return path


def digests(version: Path) -> dict[str, str]:
    """SHA-256 of every file that a server reads, by its path in the version's directory. Raises OSError."""
    found = {}
    for folder, directories, files in os.walk(version):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            found[path.relative_to(version).as_posix()] = digest(path)
    return found


def digest(path: Path) -> str:
    """SHA-256 of one file. Raises OSError."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            hasher.update(data)
    return hasher.hexdigest()


def git_of(directory: Path) -> dict[str, Any]:
    """Commit, remote, and whether tracked files have changed since, of the work tree around a directory; {} if there is
    none, or no git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if not commit:
        return {}
    found: dict[str, Any] = {
        "commit": commit,
        "dirty": bool(_git(directory, "status", "--porcelain", "--untracked-files=no")),
    }
    remote = _git(directory, "config", "--get", "remote.origin.url")
    if remote:
        found["remote"] = _CREDENTIALS.sub("", remote)[:300]
    return found


def _git(directory: Path, *arguments: str) -> str:
    # A repository's own settings may name programs that git runs, such as a file monitor: they are switched off.
    safe = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *safe, *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def as_origin(content: Mapping[str, Any]) -> Provenance:
    """The provenance of a copy of a version that has one: what trained it stays known."""
    made = Provenance()
    for key in ("source", "git", "made_with", "metrics", "params", "parity"):
        value = content.get(key)
        if isinstance(value, dict):
            setattr(made, key, dict(value))
    return made
