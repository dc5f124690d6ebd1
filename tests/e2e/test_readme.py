"""The README's server, Python code and commands work: they are what a new user tries first."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import INFERD, Served

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("readme") / "models"
    shutil.copytree(ROOT / "model_repository" / "digits_onnx", root / "digits_onnx")
    with Served(root) as server:
        yield server


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_python_works(served: Served) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = run(sys.executable, "-c", code.replace("localhost:8001", served.address))
    assert re.match(r"\[0\] .* from version 2", said), "the digit is a zero"


@pytest.mark.parametrize(
    "command", re.findall(r"^\$ \.venv/bin/inferd ((?:models|predict|bench).*?)(?: {2,}#.*)?$", README, re.M)
)
def test_the_readmes_commands_work(served: Served, command: str) -> None:
    more = ["-d", "0.2"] if command.startswith("bench") else []
    said = run(str(INFERD), *command.split(), *more, "--address", served.address)
    assert "digits_onnx" in said
    if command.startswith("predict"):
        assert "digit  INT64 [1]\n  [0]" in said
