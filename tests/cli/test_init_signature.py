"""`inferd init-signature`: what it finds out by running a model on examples, and where it writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.marked import prepare_model, publish

ROOT = Path(__file__).parents[2]
HEAD = "# Written by `inferd init-signature` from x.npy. -1: a dimension of any size.\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish("onnx", prepare_model("onnx", tmp_path / "models", "m"), 1, 1.0)
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    return tmp_path


@pytest.mark.heavy
def test_torchscript_gets_the_signature_that_its_examples_show(cli, tmp_path: Path) -> None:
    model = tmp_path / "models" / "digits"
    shutil.copytree(ROOT / "model_repository" / "digits_torch" / "1", model / "1")
    (model / "model.yaml").write_text("labels: {stable: 1}  # kept\n")
    np.save(tmp_path / "x.npy", np.zeros((3, 64), np.float32))
    flags = ("--example", str(tmp_path / "x.npy"), "--output", "probabilities", "--output", "digit")
    done = cli("init-signature", str(model), *flags)
    assert done.code == 0, done.err
    assert (model / "model.yaml").read_text() == (
        f"labels: {{stable: 1}}  # kept\n\n{HEAD}"
        "signatures:\n"
        "  - name: serving_default\n"
        "    inputs:\n"
        "      - {name: image, dtype: FP32, shape: [-1, 64]}\n"
        "    outputs:\n"
        "      - {name: probabilities, dtype: FP32, shape: [-1, 10]}\n"
        "      - {name: digit, dtype: INT64, shape: [-1]}\n"
    )
    again = cli("init-signature", str(model), *flags)
    assert again.code == 1
    assert f"{model / 'model.yaml'} has signatures already; remove them there first" in again.err
    checked = cli("check", "--model-repository", str(tmp_path / "models"))
    assert checked.code == 0
    assert "proven  image FP32[-1, 64] -> probabilities FP32[-1, 10], digit INT64[-1]" in checked.out


def test_a_file_that_describes_itself_is_told_so(cli, repository: Path) -> None:
    done = cli("init-signature", str(repository / "models" / "m"), "-e", str(repository / "x.npy"))
    assert done.code == 0, done.err
    assert "note: the file tells all of this itself; the declaration only checks it" in done.out
    assert "- {name: x, dtype: FP32, shape: [-1, 4]}" in (repository / "models" / "m" / "model.yaml").read_text()


def test_a_file_in_no_repository_is_described_on_standard_output(cli, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.onnx"
    shutil.copy(repository / "models" / "m" / "1" / "model.onnx", file)
    before = sorted(tmp_path.iterdir())
    done = cli("init-signature", str(file), "-e", str(repository / "x.npy"))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{HEAD}signatures:\n")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 5), np.float32), "declared as [-1, 5], but the model has [-1, 4]"),
        (np.ones((3, 4), np.float64), "FP64"),
        (np.array([object()]), "store texts as numpy texts"),
    ],
)
def test_an_example_that_does_not_fit_is_an_error(cli, repository: Path, array: np.ndarray, message: str) -> None:
    np.save(repository / "x.npy", array, allow_pickle=True)
    done = cli("init-signature", str(repository / "models" / "m"), "-e", str(repository / "x.npy"))
    assert done.code == 1
    assert message in done.err
    assert not (repository / "models" / "m" / "model.yaml").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "nowhere does not exist; expected a model's directory, a version's directory or a file"),
        (".", "holds no version; expected a model's directory with versions such as"),
    ],
)
def test_a_place_without_a_model_is_an_error(
    cli, repository: Path, model: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    done = cli("init-signature", model, "-e", "x.npy")
    assert done.code == 1
    assert message in done.err
