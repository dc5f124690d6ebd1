"""A version goes live only if it can answer: what fails on seeded data, or on data that its predecessor answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper, save
from support.server import Served
from support.waiting import eventually

from inferd.client import Client, RequestError, ServerFailure, VersionState, VersionStatus

X = np.ones((1, 2), np.float32)


def write(directory: Path, *nodes: Any, inner: Any = 2, weights: dict[str, np.ndarray] | None = None) -> None:
    """Publishes a version: y from x FP32 [n, inner]."""
    hidden = directory.with_name(f".{directory.name}")
    hidden.mkdir(parents=True)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["n", inner])],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, hidden / "model.onnx")
    hidden.rename(directory)


def answers(directory: Path, **options: Any) -> None:
    write(directory, helper.make_node("Identity", ["x"], ["y"]), **options)


def fails(directory: Path) -> None:
    """Fails inside, for every input."""
    write(
        directory,
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("Reshape", ["z", "seven"], ["y"]),
        weights={"zero": np.zeros(1, np.float32), "seven": np.array([7])},
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("broken") / "models"
    for name in ("swap", "place", "counted"):
        answers(root / name / "1")
    fails(root / "first" / "1")
    with Served(root) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=60.0) as client:
        yield client


def version_of(client: Client, model: str, number: int) -> VersionStatus | None:
    return next((v for v in client.status(model).versions if v.version == number), None)


def failed(client: Client, model: str, number: int) -> VersionStatus:
    def found() -> VersionStatus | None:
        version = version_of(client, model, number)
        return version if version is not None and version.state is VersionState.FAILED else None

    return eventually(found, f"{model}/{number} has failed", lambda: client.status(model))


def test_a_version_that_fails_where_its_predecessor_answers_is_held_back(served: Served, client: Client) -> None:
    fails(served.repository / "swap" / "2")
    version = failed(client, "swap", 2)
    assert "held back: it fails on seeded data that version 1 answers" in version.error
    assert "cannot be reshaped" in version.error
    assert any("or an operator loads this version by number" in note for note in version.notes)
    assert client.predict("swap", {"x": X}).version == 1
    with pytest.raises(RequestError, match="held back"):
        client.load("swap")  # not by number
    client.load("swap", version=2)
    version = version_of(client, "swap", 2)
    assert version is not None
    assert version.state is VersionState.AVAILABLE
    assert any("no warm-up, it fails on seeded data" in note for note in version.notes)
    with pytest.raises(ServerFailure, match="cannot be reshaped"):
        client.predict("swap", {"x": X})


def test_changed_files_end_the_holding_back(served: Served, client: Client) -> None:
    broken = served.repository / "counted" / "2"
    fails(broken)
    failed(client, "counted", 2)
    (broken / "model.onnx").rename(broken / ".old")
    answers(served.repository / "counted" / "3")
    (served.repository / "counted" / "3" / "model.onnx").rename(broken / "model.onnx")
    eventually(
        lambda: 2 in client.status("counted").available, "the repaired version serves", lambda: client.status("counted")
    )


def test_content_in_place_is_compared_with_what_serves(served: Served, client: Client) -> None:
    directory = served.repository / "place"
    fails(directory / "9")
    failed(client, "place", 9)
    (directory / "9" / "model.onnx").rename(directory / "1" / "model.onnx")

    def told() -> VersionStatus | None:
        version = version_of(client, "place", 1)
        return version if version is not None and "held back" in version.error else None

    version = eventually(told, "the new content is held back", lambda: client.status("place"))
    assert version.state is VersionState.AVAILABLE
    assert "that the content that is in service answers" in version.error
    assert client.predict("place", {"x": X}).version == 1


def test_without_a_predecessor_it_is_a_note(client: Client) -> None:
    version = version_of(client, "first", 1)
    assert version is not None
    assert version.state is VersionState.AVAILABLE
    assert any("no warm-up, it fails on seeded data" in note for note in version.notes)


def test_other_inputs_are_not_compared(served: Served, client: Client) -> None:
    """The version in service cannot take what the new one is tried with: that shows nothing."""
    answers(served.repository / "other" / "1", inner=5)
    eventually(lambda: _serves(client, "other", 1), "version 1 serves")
    fails(served.repository / "other" / "2")
    eventually(lambda: _serves(client, "other", 2), "version 2 serves", lambda: client.status("other"))


def _serves(client: Client, model: str, version: int) -> bool:
    try:
        return version in client.status(model).available
    except RequestError:
        return False
