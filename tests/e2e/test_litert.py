"""LiteRT models on every protocol: floats, int8, texts, several signatures, in the server and in a process of their
own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.litert_graphs import GraphBuilder, packed
from support.litert_models import OUT_SCALE, digits, float_digits, int8_digits, quantised
from support.protocols import PROTOCOLS, Callers, Outcome
from support.real_models import package_file, tone
from support.server import INFERD, Served

ISOLATED = "isolation: process\n"


def signed() -> bytes:
    graph = GraphBuilder()
    graph.sign("serving_default", {"y": graph("RESHAPE", graph.input("t", "STRING", (-1, 1)), [-1, 1])})
    other = GraphBuilder(graph)
    other.sign("negative", {"y": other("NEG", other.input("x", "FLOAT32", (-1, 2)))})
    return packed(graph._model)


def install(root: Path, model: str, content: bytes, settings: str = "") -> None:
    (root / model / "1").mkdir(parents=True)
    (root / model / "1" / "model.tflite").write_bytes(content)
    if settings:
        (root / model / "model.yaml").write_text(settings)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("litert") / "models"
    install(root, "digits", float_digits(), "instances: {count: 2}\n")
    install(root, "digits_int8", int8_digits())
    install(root, "digits_isolated", float_digits(), ISOLATED)
    install(root, "words", signed())
    (root / "pitch" / "1").mkdir(parents=True)
    shutil.copy(
        package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite"), root / "pitch" / "1" / "model.tflite"
    )
    install(root, "cut", float_digits()[:-500])
    return root


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[Served]:
    with Served(repository, limit=120) as running:
        yield running


@pytest.fixture(scope="module")
def callers(served: Served) -> Iterator[Callers]:
    with Callers(served) as clients:
        yield clients


def only(outcome: Outcome) -> Any:
    """The only output. TensorFlow Serving's REST does not name it."""
    (output,) = outcome.outputs.values()
    return output


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["digits", "digits_isolated", "digits_int8"])
def test_served_accuracy_is_that_of_the_model(callers: Callers, protocol: str, model: str) -> None:
    data = digits()
    images = quantised(data.images) if model == "digits_int8" else data.images
    count = 32  # rows of a batch; more are split
    outcome = callers.send(protocol, model, {"image": images[: 2 * count]})
    assert outcome.code == "OK", outcome
    scores = np.asarray(only(outcome), np.float32) * (OUT_SCALE if model == "digits_int8" else 1)
    exact = data.images[: 2 * count] @ data.weights.T + data.bias
    np.testing.assert_allclose(scores, exact, atol=0.08 if model == "digits_int8" else 1e-4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_pass_through(callers: Callers, protocol: str) -> None:
    words = np.array([["grün".encode()], [b"b"]], object)
    outcome = callers.send(protocol, "words", {"t": words})
    assert outcome.code == "OK", outcome
    found = [word.encode() if isinstance(word, str) else word for word in np.asarray(only(outcome), object).flat]
    assert found == list(words.flat)


@pytest.mark.parametrize("protocol", ["native", "tfs", "rest v1"])
def test_signatures_are_chosen_by_name(callers: Callers, protocol: str) -> None:
    outcome = callers.send(protocol, "words", {"x": np.array([[1, 2]], np.float32)}, signature="negative")
    assert np.asarray(only(outcome)).tolist() == [[-1, -2]]


def test_a_real_model_answers_over_the_wire(callers: Callers) -> None:
    outcome = callers.send("native", "pitch", {"input_2": tone()})
    assert outcome.outputs["note"].shape == (1, 172, 88)
    assert outcome.outputs["note"].max() > 0.3


def test_wrong_inputs_are_the_callers_fault(callers: Callers) -> None:
    for protocol in ("native", "oip", "tfs"):
        outcome = callers.send(protocol, "digits", {"image": np.ones((1, 63), np.float32)})
        assert outcome.code == "INVALID_ARGUMENT"
        assert "image" in outcome.text


def test_a_file_that_is_cut_short_is_never_served(callers: Callers) -> None:
    assert callers.send("native", "cut", {"image": np.ones((1, 64), np.float32)}).code in (
        "UNAVAILABLE",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
    )


def told(*command: str) -> str:
    done = subprocess.run([str(INFERD), *command], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout


def test_operators_see_the_proof_and_how_quantised_inputs_are_sent(served: Served, repository: Path) -> None:
    shown = told("models", "-a", served.address)
    assert "send INT8 numbers, round(value / 0.00390625) - 128" in shown
    for model in ("digits", "digits_int8", "digits_isolated", "pitch"):
        assert re.search(rf"^{model} .*up to 32 rows", shown, re.MULTILINE), shown
    checked = told("check", "--model-repository", str(repository))
    assert "image INT8[-1, 64] -> scores INT8[-1, 10]" in checked
    assert "PROBLEM: model.tflite is cut short" in checked
