"""`inferd init`, `python -m inferd`, and the sample model that they use. `inferd demo` is in tests/e2e/test_demo.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.server import Served

from inferd.server.cli.first_steps.sample_model import SAMPLE, held_out

ROOT = Path(__file__).parents[2]


def test_the_sample_is_the_model_of_the_model_repository() -> None:
    for version in ("1", "2"):
        shipped = (SAMPLE / "digits" / version / "model.onnx").read_bytes()
        assert shipped == (ROOT / "model_repository" / "digits_onnx" / version / "model.onnx").read_bytes()
    images, digits = held_out()
    assert (images.shape, images.dtype, images.max()) == ((450, 64), np.float32, 16)
    assert (digits.shape, digits.dtype, set(digits)) == ((450,), np.int64, set(range(10)))


def test_init_writes_a_repository_that_is_served_and_called(cli, tmp_path: Path, monkeypatch) -> None:
    made = tmp_path / "mine"
    done = cli("init", str(made))
    assert done.code == 0, done.err
    written = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert written == ["client.py", "config.yaml", "models/digits/1/model.onnx", "models/digits/model.yaml"]
    assert all(name in done.out for name in written)
    monkeypatch.chdir(made)
    checked = cli("check", "--config", "config.yaml")
    assert checked.code == 0
    assert "1 versions would be served, 0 problems" in checked.out
    with Served(made / "models") as server:
        script = (made / "client.py").read_text().replace("127.0.0.1:8001", server.address)
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "digit: 2 from version 1" in said
    assert "it takes image FP32 [-1, 64]" in said


@pytest.mark.parametrize("content", ["config.yaml", "models/x/1/model.onnx"])
def test_init_changes_nothing_that_is_there(cli, tmp_path: Path, content: str) -> None:
    file = tmp_path / content
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    done = cli("init", str(tmp_path))
    assert done.code == 2
    assert done.err.startswith(f"inferd: {tmp_path} holds {content.partition('/')[0]}; expected a new or empty")
    assert file.read_text() == "mine"
    assert cli("init", str(file)).err == f"inferd: {file} is a file; expected a new or empty directory\n"


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "inferd", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("inferd ")
