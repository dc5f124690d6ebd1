"""Real TorchScript and SavedModel models with real inputs, run by the backends without a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import in_service
from support.real_models import noise, package_file, speech, tone

from inferd.backends.api import Instance, InvalidInput, Model, OpenRequest, Placement, Signature, TensorSpec
from inferd.backends.registry import Registry
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
Array = np.ndarray[Any, Any]
WINDOW = 512
SILERO = Signature(
    "serving_default",
    (TensorSpec("x", DType.FP32, (-1, WINDOW)), TensorSpec("sr", DType.INT64, ())),
    (TensorSpec("probability", DType.FP32, (-1, 1)),),
)


@contextmanager
def served(version: Path, *declared: Signature) -> Iterator[tuple[Model, Instance]]:
    backend, artefact = Registry().detect(version)
    assert backend.complete(artefact) is None
    with in_service(backend.open(OpenRequest("m", 1, version, artefact, declared)), Placement("cpu", 1)) as both:
        yield both


@pytest.fixture
def silero(version: Path) -> Path:
    pytest.importorskip("torch")
    shutil.copyfile(package_file("silero_vad", "data", "silero_vad.jit"), version / "model.pt")
    return version


def probabilities(instance: Instance, samples: Array, output: str = "probability") -> Array:
    found = []
    for i in range(len(samples) // WINDOW):
        window = samples[None, i * WINDOW : (i + 1) * WINDOW]
        got = instance.run("serving_default", {"x": window, "sr": np.array(16000)})
        found.append(float(got[output][0, 0]))
    return np.array(found)


def test_silero_finds_speech_and_not_noise(silero: Path) -> None:
    with served(silero, SILERO) as (model, instance):
        assert model.traits.stateful
        assert probabilities(instance, speech()).max() > 0.99
    with served(silero, SILERO) as (_, instance):
        assert probabilities(instance, noise()).max() < 0.1


def test_silero_serves_without_any_declaration(silero: Path) -> None:
    with served(silero) as (model, instance):
        (signature,) = model.signatures
        assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [
            ("x", DType.FP32, None),
            ("sr", DType.INT64, ()),
        ]
        assert [s.name for s in signature.outputs] == ["output__0"]
        assert any("model.yaml" in note for note in model.traits.notes)
        assert probabilities(instance, speech(), "output__0").max() > 0.99


def test_silero_agrees_with_the_onnx_version(silero: Path, tmp_path: Path) -> None:
    twin = tmp_path / "onnx"
    twin.mkdir()
    shutil.copyfile(package_file("silero_vad", "data", "silero_vad.onnx"), twin / "model.onnx")
    with served(silero, SILERO) as (_, script), served(twin) as (_, onnx):
        samples = speech()
        of_script = probabilities(script, samples)
        state = np.zeros((2, 1, 128), np.float32)
        before = np.zeros(64, np.float32)
        of_onnx = []
        for i in range(len(of_script)):
            window = samples[i * WINDOW : (i + 1) * WINDOW]
            inputs = {"input": np.concatenate([before, window])[None], "state": state, "sr": np.array(16000)}
            got = onnx.run("serving_default", inputs)
            state, before = got["stateN"], window[-64:]
            of_onnx.append(float(got["output"][0, 0]))
        np.testing.assert_allclose(of_script, of_onnx, atol=1e-5)


def test_each_silero_instance_has_its_own_state(silero: Path) -> None:
    with served(silero, SILERO) as (model, first):
        second = model.instance(Placement())
        alone = probabilities(second, speech())
        second.close()
        third = model.instance(Placement())
        mixed = []
        for i in range(len(alone)):
            probabilities(first, noise()[: WINDOW * 2])
            mixed.append(probabilities(third, speech()[i * WINDOW : (i + 1) * WINDOW])[0])
        third.close()
        np.testing.assert_allclose(mixed, alone, atol=1e-6)


def test_silero_refuses_an_unknown_sample_rate(silero: Path) -> None:
    with served(silero, SILERO) as (_, instance):
        with pytest.raises(InvalidInput, match=r"(?i)sampling rate") as refused:
            instance.run("serving_default", {"x": np.zeros((1, WINDOW), np.float32), "sr": np.array(12345)})
        assert "Traceback" not in str(refused.value)
        with pytest.raises(InvalidInput, match="sr"):
            instance.run("serving_default", {"x": np.zeros((1, WINDOW), np.float32), "sr": np.array([1, 2])})
        assert probabilities(instance, speech()).max() > 0.99


def test_another_method_of_silero_is_a_signature_when_declared(silero: Path) -> None:
    whole = Signature(
        "audio_forward",
        (TensorSpec("x", DType.FP32, (-1, -1)), TensorSpec("sr", DType.INT64, ())),
        (TensorSpec("probabilities", DType.FP32, (-1, -1)),),
    )
    with served(silero, SILERO, whole) as (model, instance):
        assert [s.name for s in model.signatures] == ["serving_default", "audio_forward"]
        samples = speech()[None, : 80 * WINDOW]
        at_once = instance.run("audio_forward", {"x": samples, "sr": np.array(16000)})["probabilities"]
        assert at_once.shape[0] == 1
        assert at_once.max() > 0.99


@pytest.fixture
def basic_pitch(version: Path) -> Path:
    pytest.importorskip("tensorflow")
    shutil.copytree(package_file("basic_pitch", "saved_models", "icassp_2022", "nmp"), version, dirs_exist_ok=True)
    return version


def test_a_keras_2_saved_model_loads_in_a_session_and_finds_the_note(basic_pitch: Path) -> None:
    with served(basic_pitch) as (model, instance):
        (signature,) = model.signatures
        assert signature.name == "serving_default"
        assert signature.method_name == "tensorflow/serving/predict"
        assert [(s.name, s.shape) for s in signature.inputs] == [("input_2", (-1, 43844, 1))]
        assert [s.name for s in signature.outputs] == ["contour", "note", "onset"]
        assert not model.traits.stateful
        assert not any("tf.saved_model.load" in note for note in model.traits.notes)
        got = instance.run("serving_default", {"input_2": np.concatenate([tone(440.0), tone(880.0)])})
        assert {n: v.shape for n, v in got.items()} == {
            "contour": (2, 172, 264),
            "note": (2, 172, 88),
            "onset": (2, 172, 88),
        }
        assert [int(21 + row.mean(axis=0).argmax()) for row in got["note"]] == [69, 81]


def test_the_saved_model_agrees_with_the_onnx_version(basic_pitch: Path, tmp_path: Path) -> None:
    twin = tmp_path / "onnx"
    twin.mkdir()
    file = package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
    shutil.copyfile(file, twin / "model.onnx")
    x = tone(440.0)
    with served(basic_pitch) as (_, tensorflow), served(twin) as (_, onnx):
        of_tensorflow = tensorflow.run("serving_default", {"input_2": x})
        of_onnx = onnx.run("serving_default", {"serving_default_input_2:0": x})
    for name, number in {"contour": 0, "note": 1, "onset": 2}.items():
        np.testing.assert_allclose(of_tensorflow[name], of_onnx[f"StatefulPartitionedCall:{number}"], atol=2e-6)
