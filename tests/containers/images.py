"""Builds the images of the Dockerfiles without a container engine: buildah, on a base that debootstrap makes."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.tools import ROOT, VAR, Failure, run, say

PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux", "ip": "iproute2"}
BASE = "localhost/python:3.11-slim"
"""The name in FROM. Here it is Debian's own Python of that version, so that no image registry is needed."""
_SUITE = "bookworm"  # its Python is 3.11
_LONG = 3600.0
_BUILDAH = ("buildah", "--root", VAR / "store", "--runroot", VAR / "run", "--storage-driver", "overlay")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image whose files are mounted at `files`. `config`: its entry point, environment and so on, as Docker
    names them."""

    name: str
    files: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.config["Env"])

    @property
    def user(self) -> int:
        return int(self.config["User"])

    def bytes(self) -> int:
        """What the files take on disk."""
        return int(run("du", "-sxB1", self.files).split()[0])


def make_base() -> None:
    """Makes the base image, unless an earlier run has."""
    if run(*_BUILDAH, "images", "-q", BASE, fine=(0, 125)).strip():
        return
    VAR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VAR) as place:
        say(f"making the base image: debootstrap {_SUITE}")
        root = Path(place) / "root"
        include = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", include, _SUITE, root, limit=_LONG)
        (root / "usr" / "bin" / "python").symlink_to("python3")
        for left in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
            left.unlink()
        container = run(*_BUILDAH, "from", "scratch").strip()
        run(*_BUILDAH, "add", "-q", container, root, "/", limit=_LONG)
        run(
            *_BUILDAH, "config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        run(*_BUILDAH, "commit", "-q", "--rm", container, BASE, limit=_LONG)


def build(dockerfile: str, tag: str, arguments: Sequence[str] = ()) -> None:
    """Runs every line of a Dockerfile. `arguments`: NAME=VALUE for its ARG lines."""
    with tempfile.TemporaryDirectory() as place:
        words: list[str | Path] = [
            *_BUILDAH, "bud", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never",
        ]  # fmt: skip
        for argument in (*_index(), *arguments):
            words += ["--build-arg", argument]
        for volume in _pip_of_this_machine(Path(place)):
            words += ["--volume", volume]
        run(*words, "-t", tag, "-f", dockerfile, ".", cwd=ROOT, limit=_LONG)


@contextmanager
def mounted(tag: str) -> Iterator[Image]:
    """The image with its files mounted, for as long as the block runs."""
    container = run(*_BUILDAH, "from", "--pull-never", tag).strip()
    try:
        files = Path(run(*_BUILDAH, "mount", container).strip())
        found = json.loads(run(*_BUILDAH, "inspect", "--type", "image", tag))
        yield Image(tag, files, found["Docker"]["config"])
    finally:
        run(*_BUILDAH, "rm", container, fine=(0, 125))


def _index() -> list[str]:
    """TORCH_INDEX of this machine: from the environment, or empty if pip finds torch's CPU build without it."""
    given = os.environ.get("TORCH_INDEX")
    if given is not None:
        return [f"TORCH_INDEX={given}"]
    pin = next(
        line for line in (ROOT / "constraints" / "image-cpu.txt").read_text().splitlines() if line.startswith("torch")
    )
    command = [*_pip(), "install", "-q", "--dry-run", "--no-deps", "--ignore-installed", pin]
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    return ["TORCH_INDEX="] if done.returncode == 0 else []


def _pip() -> list[str]:
    import sys

    return [sys.executable, "-m", "pip"]


def _pip_of_this_machine(place: Path) -> Iterator[str]:
    """What the build mounts so that pip in it finds packages as it does on this machine: its settings, the directories
    that they name, and the certificates."""
    settings: dict[str, str] = {}
    for line in run(*_pip(), "config", "list").splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'")
    settings.pop("constraint", None)
    (place / "pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    yield f"{place}/pip.conf:/etc/pip.conf:ro"
    found: dict[str, None] = {}
    for key, value in settings.items():
        for word in value.replace("\\n", " ").split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # The pages of an index name files beside them.
                found[str(path.parent if key.endswith("index-url") else path)] = None
    yield from (f"{path}:{path}:ro" for path in found)


def version() -> str:
    """The version of the project."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def need_version(image: Image) -> None:
    """Raises Failure if the label has another version than the project."""
    label = image.config["Labels"]["org.opencontainers.image.version"]
    if label != version():
        raise Failure(f"the label says version {label}, the project is {version()}")
