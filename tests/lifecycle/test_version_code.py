"""Versions with Python code in the real loader: where they run, what is declared, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.ensembles import write_ensemble
from support.loading import ask, load
from support.marked import prepare_model, publish
from support.python_models import TEXTS, UPPER, write_model
from support.settings import config_of

from inferd.backends.api import LoadError
from inferd.server.config.document import parse_document
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.servable import Servable
from inferd.server.repository.code_trust import CodeTrust

PYTHON = CodeTrust({"*": ["python"]})
MARKED = "signatures: [{inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]}]\n"
STEPS = "import os\ndef before(x): return {'x': x + x.dtype.type(100)}\n"


@pytest.fixture
def loaded() -> Iterator[Any]:
    servables: list[Servable] = []

    def of(version: Path, yaml: str, **settings: Any) -> Servable:
        config = config_of(ServerConfig(), "m", {**parse_document(yaml, "model.yaml"), **settings})
        servables.append(load(version, config, trust=PYTHON))
        return servables[-1]

    yield of
    for servable in servables:
        servable.scheduler.close()
        if servable.worker is not None:
            servable.worker.end()


@pytest.fixture
def stepped(tmp_path: Path) -> Path:
    """y = x + 1 in ONNX, with a step that adds 100 before."""
    publish("onnx", prepare_model("onnx", tmp_path, "m", MARKED), 1, 1.0)
    (tmp_path / "m" / "1" / "steps.py").write_text(STEPS)
    return tmp_path / "m" / "1"


@pytest.mark.parametrize("isolation", ["auto", "process", "none"])
def test_code_runs_in_a_process_of_its_own_unless_it_is_declared_otherwise(
    tmp_path: Path, stepped: Path, loaded: Any, isolation: str
) -> None:
    model = loaded(write_model(tmp_path, "upper", UPPER), TEXTS, isolation=isolation)
    steps = loaded(stepped, MARKED, isolation=isolation)
    assert ask(model, {"text": np.array([b"a"], object)})["upper"].tolist() == [b"A"]
    assert ask(steps, {"x": np.zeros((2, 4), np.float32)})["y"].tolist() == [[101] * 4] * 2
    for servable in (model, steps):
        assert (servable.worker is None) == (isolation == "none")
        assert not servable.max_batch_size


@pytest.mark.parametrize(("own", "threads"), [({}, 1), ({"threads": 1, "count": 2}, 1)])
def test_libraries_take_the_models_threads(
    tmp_path: Path, loaded: Any, monkeypatch: pytest.MonkeyPatch, own: dict[str, int], threads: int
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    code = "import os\ndef predict(text): return {'upper': [os.environ[name.decode()] for name in text]}\n"
    servable = loaded(
        write_model(tmp_path, "m", code),
        TEXTS.replace("[-1]}]\n    out", "[-1], sample: PATH}]\n    out"),
        instances=own,
    )
    names = np.array([b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"MKL_NUM_THREADS"], object)
    assert [int(text) for text in ask(servable, {"text": names})["upper"]] == [threads, threads, 7]


def test_a_model_without_code_stays_in_the_servers_process(stepped: Path, loaded: Any) -> None:
    (stepped / "steps.py").unlink()
    assert loaded(stepped, MARKED).worker is None


def test_in_the_servers_process_nothing_is_left_when_it_is_closed(
    tmp_path: Path, stepped: Path, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    servable = loaded(stepped, MARKED, isolation="none")
    assert os.listdir(place)
    servable.scheduler.close()
    assert not os.listdir(place)


def test_a_signature_between_steps_needs_steps(stepped: Path, loaded: Any) -> None:
    inner = [{"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}]}]
    assert loaded(stepped, MARKED, inner_signatures=inner).serves
    (stepped / "steps.py").unlink()
    with pytest.raises(LoadError, match=r"inner_signatures are declared, but the version has no steps\.py"):
        loaded(stepped, MARKED, inner_signatures=inner)


def test_a_sample_may_be_a_file_of_the_model(tmp_path: Path, loaded: Any) -> None:
    version = write_model(tmp_path, "m", UPPER)
    (tmp_path / "m" / "sample.txt").write_bytes(b"from a file")
    whole = TEXTS.replace("shape: [-1]}]\n    outputs", "shape: [-1], sample: {file: sample.txt}}]\n    outputs")
    assert loaded(version, whole).serves
    (tmp_path / "m" / "sample.txt").write_bytes(b"")
    with pytest.raises(LoadError, match=r"the declared sample .* failed: expected a text, got an empty one"):
        loaded(version, whole)
    for name, reason in {
        "gone.txt": "gone.txt cannot be read: No such file",
        "../secret": "expected a file in the model's directory, got '../secret'",
        "/etc/passwd": "expected a file in the model's directory",
    }.items():
        with pytest.raises(LoadError, match=reason):
            loaded(version, whole.replace("sample.txt", name))
    with pytest.raises(LoadError, match=r"expected a text or \{file: NAME\}"):
        loaded(version, whole.replace("file: sample.txt", "path: sample.txt"))


def test_an_ensemble_runs_no_code_of_its_own(tmp_path: Path) -> None:
    from inferd.backends.registry import Registry
    from inferd.server.lifecycle.inspection import inspect_repository

    root = tmp_path / "models"
    for name, marker in (("prepare", 1.0), ("classify", 10.0), ("finish", 100.0)):
        publish("onnx", prepare_model("onnx", root, name), 1, marker)
    write_ensemble(root)
    config = ServerConfig.model_validate({"repository": {"roots": [str(root)]}})
    assert all(finding.ok for finding in inspect_repository(config, Registry()))
    (root / "chain" / "1" / "steps.py").write_text(STEPS)
    (bad,) = [finding for finding in inspect_repository(config, Registry()) if not finding.ok]
    assert bad.model == "chain"
    assert bad.error.startswith("steps.py lies in a version of an ensemble, which runs no code of its own")
