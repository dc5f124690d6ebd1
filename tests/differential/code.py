"""The code that a side runs: the checkout, a commit built into a wheel, or a source directory.

Each has its own virtual environment and must not import files of another: `Code.verify` asks the interpreter.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "var" / "differential"
IMPORT_ROOTS = ("proto", "server", "backends", "client")
_LOOK = """
import importlib, json, sys
from importlib.metadata import distribution, entry_points
import inferd
names = ("inferd.server", "inferd.backends.api", "inferd.client", "inferd.wire", "inferd.v1", "inferd.oip.v1")
files = {name: importlib.import_module(name).__file__ for name in names}
found = distribution("inferd")
for point in entry_points(group="inferd.backends"):
    if point.dist is not None and point.dist.name == "inferd":
        files[point.value] = importlib.util.find_spec(point.module).origin
        assert str(point.dist._path) == str(found._path), (point.dist._path, found._path)
main = next(iter(entry_points(group="console_scripts", name="inferd")))
files[main.value] = importlib.util.find_spec(main.module).origin
print(json.dumps({"paths": list(inferd.__path__), "files": files, "distribution": str(found._path)}))
"""


class WrongCode(Exception):
    """A side would import files from outside its own directories."""


@dataclass(frozen=True)
class Code:
    """`roots` are the directories in which every file of `inferd` must lie."""

    name: str
    python: Path
    roots: tuple[Path, ...]

    @property
    def inferd(self) -> Path:
        """The console script."""
        return self.python.with_name("inferd")

    def verify(self) -> None:
        """Asks the interpreter where it imports inferd from. Raises WrongCode."""
        done = subprocess.run(
            [self.python, "-c", _LOOK], capture_output=True, text=True, check=False, env=environment(), cwd="/"
        )
        if done.returncode:
            raise WrongCode(f"{self.name}: {self.python} cannot import inferd:\n{done.stderr}")
        found = json.loads(done.stdout)
        allowed = [root.resolve() for root in self.roots]
        for what, file in {**found["files"], **{path: path for path in found["paths"]}}.items():
            path = Path(file).resolve()
            if not any(path.is_relative_to(root) for root in allowed):
                expected = ", ".join(str(root) for root in allowed)
                raise WrongCode(f"{self.name}: {what} is {path}, expected it below {expected}")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for a side's processes, without those of this process that select code or settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFERD_", "PYTHON", "COV_"))}
    return {**kept, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "COLUMNS": "100", **(more or {})}


def checkout() -> Code:
    """The working tree, with the interpreter that runs this suite."""
    return Code("checkout", Path(sys.prefix) / "bin" / "python", tuple(ROOT / each for each in IMPORT_ROOTS))


def commit(revision: str) -> Code:
    """A commit, built into a wheel and installed below var/differential/. Built once."""
    sha = _git("rev-parse", "--verify", f"{revision}^{{commit}}")
    place = PLACE / sha
    with _locked(PLACE / f"{sha}.lock"):
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            source = place / "source"
            source.mkdir(parents=True)
            archive = place / "source.tar"
            _git("archive", "--format=tar", f"--output={archive}", sha)
            subprocess.run(["tar", "-xf", str(archive), "-C", str(source)], check=True)
            archive.unlink()
            wheel = _wheel(source, place / "wheel")
            python = _environment(place / "venv", third_party())
            # The wheel alone: what it needs comes from the checkout's environment, see `third_party`.
            command = [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index"]
            subprocess.run([*command, wheel], check=True, env=environment())
            shutil.rmtree(source)
            (place / "installed").touch()
    return Code(sha[:12], place / "venv" / "bin" / "python", (place / "venv",))


def tree(source: Path, place: Path) -> Code:
    """A source directory (the four import roots and pyproject.toml), without a build. `place` gets the environment."""
    roots = [source / each for each in IMPORT_ROOTS]
    python = _environment(place, [*(str(root) for root in roots), *third_party()])
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    info = _site(place) / f"inferd-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: inferd\nVersion: {project['version']}\n")
    lines = ["[console_scripts]", *(f"{key} = {value}" for key, value in project["scripts"].items())]
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    module, function = project["scripts"]["inferd"].split(":")
    script = python.with_name("inferd")
    script.write_text(f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
    return Code(source.name, python, (source, place))


def third_party() -> list[str]:
    """The directories of third-party packages in this environment. Added as plain path entries, so Python does not
    read their .pth files, and the checkout's own code, which an editable install adds through one, stays out."""
    found = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    for entry in found:
        if (Path(entry) / "inferd").exists():
            raise WrongCode(f"{entry} holds inferd itself: expected an editable install (make setup)")
    return found


def _environment(place: Path, path: Sequence[str]) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, env=environment())
    (_site(place) / "others.pth").write_text("".join(f"{entry}\n" for entry in path))
    return place / "bin" / "python"


def _site(place: Path) -> Path:
    return place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _wheel(source: Path, place: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        raise WrongCode(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
    (wheel,) = place.glob("*.whl")
    return wheel


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongCode(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
