"""Runs `inferd` commands of one side. Each runs in a process forked from one that has already imported inferd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from differential.side import Side

_DRIVER = """
import contextlib, io, json, os, sys, tempfile, traceback
from importlib.metadata import entry_points
main = next(iter(entry_points(group="console_scripts", name="inferd"))).load()
for words in ("config", "show"), ("check", "--help"), ("models", "--help"):
    # Import once, here, what the commands need.
    sys.argv = ["inferd", *words]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
for line in sys.stdin:
    asked = json.loads(line)
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.environ.update(asked["env"])
        sys.argv = ["inferd", *asked["argv"]]
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out.seek(0)
    err.seek(0)
    print(json.dumps([code, out.read().decode(errors="replace"), err.read().decode(errors="replace")]), flush=True)
"""


class Commands:
    """A context manager."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def __enter__(self) -> Commands:
        self._process = subprocess.Popen(
            [str(self._side.code.python), "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._side.environment(),
            cwd=self._side.place,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, *argv: str, env: Mapping[str, str] | None = None, times: bool = True) -> dict[str, Any]:
        """Runs one command. Gives the exit code, standard output (parsed if it is JSON, else lines) and standard error.
        `times`: durations in the texts are normalised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": argv, "env": dict(env or {})}) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        said = {"code": code, "out": _parsed(out), "err": err.splitlines()}
        normaliser = self._side.normaliser if times else self._side.normaliser.of_names
        found: dict[str, Any] = normaliser.value(said)
        return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text.splitlines()


def file(place: Path, name: str, text: str) -> str:
    """Writes a file for a command."""
    (place / name).write_text(text)
    return str(place / name)
