"""`worker.python`: a model in an interpreter of its own, with packages that the server does not have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.loading import ask, load
from support.python_models import TEXTS, write_model
from support.settings import config_of

from inferd.backends.api import LoadError
from inferd.server.config.document import parse_document
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config, model_config
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.servable import Servable
from inferd.server.repository.code_trust import CodeTrust

CODE = """
import sys
import only_here

def predict(text):
    found = [only_here.NAME, sys.executable]
    for module in ("pydantic", "grpc", "google.protobuf", "inferd.wire", "helper"):
        try:
            __import__(module)
            found.append(module)
        except ModuleNotFoundError:
            found.append("no " + module)
    return {"upper": found}
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter in which nothing is installed."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has numpy and a module of its own."""
    place = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (installed / name).exists():
            (packages / name).symlink_to(installed / name)
    (packages / "only_here.py").write_text("NAME = 'a package of its own'\n")
    return place / "bin" / "python"


@contextmanager
def served(version: Path, python: Path, yaml: str = TEXTS) -> Iterator[Servable]:
    config = config_of(ServerConfig(), "m", parse_document(yaml, "model.yaml"))
    config = config.model_copy(update={"worker": config.worker.model_copy(update={"python": str(python)})})
    servable = load(version, config, trust=CodeTrust({"*": ["python"]}))
    try:
        yield servable
    finally:
        assert servable.worker is not None
        servable.scheduler.close()
        servable.worker.end()


def test_a_model_runs_with_the_packages_of_its_interpreter_only(tmp_path: Path, other: Path) -> None:
    version = write_model(tmp_path, "m", CODE)
    (version / "helper.py").write_text("")
    with served(version, other) as servable:
        found = [text.decode() for text in ask(servable, {"text": np.array([b"x"], object)})["upper"]]
    name, executable, *modules = found
    assert name == "a package of its own"
    assert Path(executable) == other
    assert modules == ["no pydantic", "no grpc", "no google.protobuf", "inferd.wire", "helper"]


def test_a_package_that_is_missing_is_named_with_its_interpreter(tmp_path: Path, other: Path) -> None:
    version = write_model(tmp_path, "m", "import skimage.io\n" + CODE)
    with pytest.raises(LoadError, match=f"model.py: there is no module 'skimage' in {other}: install it there"):
        served(version, other).__enter__()


def test_a_framework_that_is_missing_is_named_with_its_interpreter(tmp_path: Path, other: Path) -> None:
    pytest.importorskip("onnx")
    from support.marked import prepare_model, publish

    publish("onnx", prepare_model("onnx", tmp_path, "m"), 1, 1.0)
    (tmp_path / "m" / "1" / "steps.py").write_text("def before(x): return {'x': x}\n")
    yaml = "signatures: [{inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]}]"
    with pytest.raises(LoadError, match=rf"in {other}: .*is not installed: pip install 'inferd\[onnx\]'"):
        served(tmp_path / "m" / "1", other, yaml).__enter__()


def test_an_interpreter_in_which_no_worker_can_run_is_told(tmp_path: Path, bare: Path) -> None:
    version = write_model(tmp_path, "m", CODE)
    wrong = {
        bare: f"cannot import numpy .*: install it there, {bare} -m pip install numpy",
        Path("/bin/true"): "is no Python interpreter: it says nothing",
        tmp_path / "nowhere": "cannot be started: No such file",
        tmp_path: "cannot be started: Permission denied",
    }
    for python, reason in wrong.items():
        with pytest.raises(LoadError, match=f"worker.python: {python} {reason}"):
            served(version, python).__enter__()


def test_only_the_servers_configuration_names_interpreters() -> None:
    flags = {"server.interpreters": ["/opt/a/bin/python"]}
    named = load_config(None, {}, ["models.m.worker.python=/opt/a/bin/python"], flags=flags)
    assert config_of(named, "m").worker.python == "/opt/a/bin/python"
    assert config_of(named, "other").worker.python is None
    both = load_config(None, {}, ["worker.python=/opt/a/bin/python"], flags=flags)
    assert config_of(both, "other").worker.python == "/opt/a/bin/python"
    for setting in ("worker.python=/opt/b/bin/python", "models.m.worker.python=/opt/b/bin/python"):
        with pytest.raises(
            ConfigError, match=r"worker\.python to be one of server\.interpreters \(/opt/a/bin/python\)"
        ):
            load_config(None, {}, [setting], flags=flags)
    with pytest.raises(ConfigError, match="expected an absolute path, got 'python3'"):
        load_config(None, {}, ["server.interpreters=[python3]"])
    with pytest.raises(ConfigError, match=r"model\.yaml: worker\.python: expected this key in the server's own"):
        model_config(named, "m", {"worker": {"python": "/opt/a/bin/python"}})
