"""Frameworks report nothing to their makers and write nothing below HOME. `make test-quiet` watches the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.backends.quiet import QUIET, be_quiet

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "model_repository" / "digits_onnx" / "1" / "model.onnx"
_OPEN = """
import sys
from pathlib import Path
from inferd.backends.api import OpenRequest, Placement
from inferd.backends.onnx.backend import OnnxBackend
path = Path(sys.argv[1])
model = OnnxBackend().open(OpenRequest("m", 1, path.parent, path))
model.instance(Placement()).close()
"""
_CHECK = "import sys; from inferd.server.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("wanted", [None, "0"])
def test_onnx_runtime_writes_nothing_below_home(tmp_path: Path, wanted: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in QUIET and name != "XDG_CACHE_HOME"}
    environment["HOME"] = str(tmp_path)
    if wanted is not None:
        environment["ORT_DISABLE_TELEMETRY"] = wanted
    subprocess.run([sys.executable, "-c", _OPEN, str(MODEL)], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []


def test_check_is_quiet_before_any_framework_is_imported(tmp_path: Path) -> None:
    root, home = tmp_path / "models", tmp_path / "home"
    home.mkdir()
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").write_bytes(MODEL.read_bytes())
    environment = {name: value for name, value in os.environ.items() if name not in QUIET and name != "XDG_CACHE_HOME"}
    command = [sys.executable, "-c", _CHECK, "check", "--model-repository", str(root)]
    subprocess.run(command, env={**environment, "HOME": str(home)}, check=True, timeout=60)
    assert list(home.rglob("*")) == []


def test_the_variables_are_set_whatever_they_were() -> None:
    environment = {"ORT_DISABLE_TELEMETRY": "0", "OTHER": "kept"}
    be_quiet(environment)
    assert environment == {**QUIET, "OTHER": "kept"}


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_images_set_them_for_whatever_is_started(name: str) -> None:
    final = (ROOT / name).read_text().rpartition("\nFROM ")[2]
    assert [variable for variable, value in QUIET.items() if f"{variable}={value}" not in final] == []
