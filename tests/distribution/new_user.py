"""A new user: an empty virtual environment, an empty directory, and the commands of README.md's first screen."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distribution.build import ROOT

LONG = 900.0  # seconds for a command: the first import after an installation compiles everything
IMAGE = ROOT / "examples" / "digit.json"


class Fault(Exception):
    """Something that a new user does has failed. The message says what."""


class NewUser:
    """`python` makes the environment below `place`; commands run in another directory below it."""

    def __init__(self, python: str, place: Path) -> None:
        self.home = place / "home"
        self.home.mkdir(parents=True)
        self._venv = place / "venv"
        self._done([python, "-m", "venv", str(self._venv)])
        self._bin = self._venv / "bin"
        self.times: list[tuple[str, float]] = []

    def install(self, what: Path, extra: str = "", *more: str) -> None:
        """Installs a wheel or a directory with an extra, from the package index and without constraints."""
        self.pip(f"{what}[{extra}]" if extra else str(what), *more)

    def pip(self, *packages: str) -> None:
        self._done([str(self._bin / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])

    def size(self) -> int:
        """Bytes of the environment."""
        return sum(file.lstat().st_size for file in self._venv.rglob("*") if not file.is_dir())

    def python(self, code: str) -> str:
        return self._done([str(self._bin / "python"), "-c", code])

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Runs a command of the environment and returns what it printed. Raises Fault if it fails."""
        begin = time.perf_counter()
        said = self._done([str(self._bin / command[0]), *command[1:]], cwd)
        self.times.append((shlex.join(command), time.perf_counter() - begin))
        return said

    def refused(self, command: str, expected: str) -> None:
        """The command fails with one line that says what to install. Raises Fault."""
        done = subprocess.run(
            [self._bin / "inferd", command], cwd=self.home, env=environment(), capture_output=True, text=True,
            timeout=LONG, check=False,
        )  # fmt: skip
        if done.returncode != 1 or expected not in done.stderr or done.stderr.count("\n") != 1:
            raise Fault(f"inferd {command}: expected one line with {expected!r}, got {done.returncode}: {done.stderr}")

    def first_screen(self) -> None:
        """Runs the commands of README.md's first screen after the installation. Raises Fault."""
        screen = (ROOT / "README.md").read_text().partition("## Start")[2].partition("\n## ")[0]
        commands = re.findall(r"^\$ (.+?)(?:\s{2,}#.*)?$", screen, re.MULTILINE)
        if not any(command.startswith("pip install") for command in commands):
            raise Fault(f"README.md's first screen has no installation: {commands}")
        here, serve = self.home, ""
        for command in commands:
            if command.startswith(("pip install", "make ")):
                continue
            if command.startswith("cd "):
                here /= command[3:]
            elif command.startswith("inferd serve"):
                serve = command
            elif command.startswith(("inferd demo", "inferd init", "inferd check")):
                self.run(*shlex.split(command), cwd=here)
            else:
                if not serve:
                    raise Fault(f"{command}: expected inferd serve before it")
                with self.serving(*shlex.split(serve)[2:], cwd=here):
                    self._with_a_model(command, here)

    def _with_a_model(self, command: str, here: Path) -> None:
        words = shlex.split(command)
        if words[:2] == ["inferd", "publish"]:
            model = next(i for i, word in enumerate(words) if word.endswith(".onnx"))
            words[model] = str(ROOT / "model_repository" / "digits_onnx" / "1" / "model.onnx")
            self.run(*words, "--wait", cwd=here)
            said = self.run("inferd", "predict", words[2], "-i", f"image=@{IMAGE}", cwd=here)
        else:
            said = self.run(*words, cwd=here)
        if "digit" not in said:
            raise Fault(f"{command}: expected a digit, got {said}")

    def serve_and_ask(self, model: Path, name: str) -> None:
        """Serves a repository with this model alone, which reads digits, and asks it. Raises Fault."""
        self._empty_repository()
        shutil.copytree(model, self.home / "models" / name)
        self._ask(name, f"image=@{IMAGE}", "digit  INT64 [1]\n  [0]")

    def serve_and_answer(self, files: dict[str, bytes], given: str, expected: str) -> None:
        """Serves a model of these files, by their names, and asks it. Raises Fault."""
        self._empty_repository()
        version = self.home / "models" / "m" / "1"
        version.mkdir(parents=True)
        for name, content in files.items():
            (version / name).write_bytes(content)
        self._ask("m", given, expected)

    def _empty_repository(self) -> None:
        shutil.rmtree(self.home / "models", ignore_errors=True)

    def _ask(self, name: str, given: str, expected: str) -> None:
        with self.serving("--model-repository", "models", "--listen", "127.0.0.1:8001", "--set", "server.http=[]"):
            said = self.run("inferd", "predict", name, "-i", given)
        if expected not in said:
            raise Fault(f"{name}: expected {expected}, got {said}")

    @contextmanager
    def serving(self, *flags: str, cwd: Path | None = None) -> Iterator[None]:
        """`inferd serve` until the end of the block. Raises Fault if it does not get ready or end with 0."""
        command = [str(self._bin / "inferd"), "serve", *flags]
        begin = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=cwd or self.home, env=environment(), text=True, **pipes) as server:
            killer = threading.Timer(LONG, server.kill)
            killer.start()
            try:
                assert server.stdout is not None
                log = []
                for line in server.stdout:
                    log.append(line)
                    if " ready: grpc " in line:
                        break
                else:
                    raise Fault(f"{shlex.join(command)} did not become ready: {''.join(log)}")
                self.times.append(("inferd serve, until it is ready", time.perf_counter() - begin))
                reader = threading.Thread(target=lambda: log.extend(server.stdout or ()))  # a full pipe would stop it
                reader.start()
                yield
                server.send_signal(signal.SIGTERM)
                code = server.wait()
                reader.join()
                if code:
                    raise Fault(f"the server ended with {code}: {''.join(log)[-2000:]}")
            finally:
                killer.cancel()
                server.kill()

    def _done(self, command: list[str], cwd: Path | None = None) -> str:
        where = {"cwd": cwd or self.home, "env": environment()}
        done = subprocess.run(command, **where, capture_output=True, text=True, timeout=2 * LONG, check=False)
        if done.returncode:
            raise Fault(
                f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
            )
        return done.stdout


def environment() -> dict[str, str]:
    """For a new user's processes: without what would select other code, or settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFERD_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONUNBUFFERED": "1"}
