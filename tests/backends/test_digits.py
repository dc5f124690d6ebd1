"""The digit models of model_repository/: their accuracy is that of the README, and the frameworks agree."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.backends.api import OpenRequest, Placement, Signature, TensorSpec
from inferd.backends.registry import Registry
from inferd.wire.dtypes import DType

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model_repository"
Array = np.ndarray[Any, Any]
MODELS = ("digits_onnx/1", "digits_onnx/2", "digits_torch/1", "digits_pt2/1", "digits_tf/1")
SAME_WEIGHTS = MODELS[1:]
DECLARED = Signature(
    "serving_default",
    (TensorSpec("image", DType.FP32, (-1, 64)),),
    (TensorSpec("probabilities", DType.FP32, (-1, 10)), TensorSpec("digit", DType.INT64, (-1,))),
)


@pytest.fixture(scope="module")
def script() -> Any:
    """The module examples/train_digits.py."""
    spec = importlib.util.spec_from_file_location("train_digits", ROOT / "examples" / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module in sys.modules.
    import sys

    sys.modules["train_digits"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def split(script: Any) -> Any:
    return script.digits()


def answers(name: str, images: Array) -> dict[str, Array]:
    """The outputs of a model of model_repository/, computed by its backend."""
    directory = REPOSITORY / name
    backend, artefact = Registry().detect(directory)
    assert backend.complete(artefact) is None
    model_name, _, version = name.partition("/")
    # The signatures that the models' model.yaml declares; the other models describe themselves.
    declared = (DECLARED,) if (directory.parent / "model.yaml").exists() else ()
    model = backend.open(OpenRequest(model_name, int(version), directory, artefact, declared))
    assert {s.name: (s.dtype, s.shape) for s in model.signatures[0].inputs} == {"image": (DType.FP32, (-1, 64))}
    assert {s.name: s.dtype for s in model.signatures[0].outputs} == {
        "probabilities": DType.FP32,
        "digit": DType.INT64,
    }
    instance = model.instance(Placement())
    try:
        return dict(instance.run(model.signatures[0].name, {"image": images}))
    finally:
        instance.close()
        model.close()


def stated() -> dict[str, float]:
    """The accuracies in the README, by model."""
    text = (REPOSITORY / "README.md").read_text()
    return {name: float(value) for name, value in re.findall(r"^\| (\w+/\d+) \| (0\.\d+) \|$", text, re.MULTILINE)}


def test_the_readme_names_every_model() -> None:
    there = {f"{p.parent.name}/{p.name}" for p in REPOSITORY.glob("*/*") if p.is_dir()}
    assert there == set(MODELS) == set(stated())


@pytest.mark.heavy
@pytest.mark.parametrize("name", MODELS)
def test_held_out_accuracy_is_as_stated(name: str, split: Any) -> None:
    got = answers(name, split.held_out_images)
    assert got["digit"].shape == split.held_out_digits.shape
    np.testing.assert_array_equal(got["digit"], got["probabilities"].argmax(axis=1))
    accuracy = float((got["digit"] == split.held_out_digits).mean())
    assert accuracy == pytest.approx(stated()[name], abs=5e-5)


def test_the_second_version_is_better() -> None:
    accuracies = stated()
    assert accuracies["digits_onnx/2"] > 0.97
    assert accuracies["digits_onnx/2"] - accuracies["digits_onnx/1"] > 0.05


@pytest.mark.heavy
def test_all_frameworks_compute_the_same_probabilities(split: Any) -> None:
    reference = answers(SAME_WEIGHTS[0], split.held_out_images)["probabilities"]
    np.testing.assert_allclose(reference.sum(axis=1), 1, atol=1e-5)
    for name in SAME_WEIGHTS[1:]:
        got = answers(name, split.held_out_images)["probabilities"]
        np.testing.assert_allclose(got, reference, atol=1e-5, err_msg=name)


def test_the_held_out_digits_are_constant_and_not_used_in_training(script: Any, split: Any) -> None:
    again = script.digits()
    np.testing.assert_array_equal(again.held_out_images, split.held_out_images)
    assert len(split.held_out_images) == 450
    assert len(split.train_images) == 1797 - 450


def test_the_script_trains_and_writes_onnx(script: Any, split: Any, tmp_path: Path) -> None:
    """Trains a small network, writes it as ONNX, and compares onnxruntime's outputs."""
    network = script.train(split, units=8, epochs=3)
    version = script.version_directory(tmp_path, "digits", 1)
    script.write_onnx(network, version)
    backend, artefact = Registry().detect(version)
    model = backend.open(OpenRequest("digits", 1, version, artefact))
    instance = model.instance(Placement())
    images = split.held_out_images[:5]
    got = instance.run("serving_default", {"image": images})["probabilities"]
    np.testing.assert_allclose(got, network.probabilities(images), atol=1e-5)
    instance.close()
    model.close()


def test_no_model_contains_a_path_of_the_machine_that_wrote_it() -> None:
    import zipfile

    for file in REPOSITORY.rglob("*"):
        if not file.is_file():
            continue
        texts = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                texts += [archive.read(name) for name in archive.namelist()]
        for text in texts:
            assert b"site-packages" not in text, file
            assert str(ROOT).encode() not in text, file
