"""The example plug-in as a user installs it: a separate package that the server finds without changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "backend_plugin"

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from inferd.backends.api import OpenRequest, Placement
from inferd.backends.registry import Registry

registry = Registry()
assert "numpy_linear" in registry.names(), registry.names()
assert "onnx" in registry.names()
directory = Path(sys.argv[1])
backend, artefact = registry.detect(directory)
assert backend is registry.get("numpy_linear")
model = backend.open(OpenRequest("m", 1, directory, artefact, (), {"scale": 2}))
instance = model.instance(Placement())
y = instance.run(model.signatures[0].name, {"x": np.ones((1, 2), np.float32)})["y"]
instance.close(); model.close()
print(y.tolist())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in, built and installed by pip into a separate directory, without network access."""
    target = tmp_path_factory.mktemp("plugin")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(PLUGIN)],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_an_installed_plug_in_is_found_and_runs(installed: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", weight=np.array([[1.0], [2.0]]), bias=np.array([0.5]))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[6.5]]"
