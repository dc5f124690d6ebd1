"""No model name from a caller leads out of the repository: not by dots, slashes, NUL, look-alikes or links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.marked import prepare_model, publish
from support.server import FAST, Served

from inferd.client import NO_RETRIES, Client, FailedPrecondition, InvalidArgument, InvalidInput, NotFound

ROWS = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose repository has the model "m" and a link to the model "outside", which lies outside of it."""
    root = tmp_path_factory.mktemp("confined")
    publish("onnx", prepare_model("onnx", root, "outside"), 1, marker=666)
    publish("onnx", prepare_model("onnx", root / "models", "m"), 1, marker=1)
    publish("onnx", prepare_model("onnx", root / "models", ".hidden"), 1, marker=2)
    (root / "models" / "link").symlink_to(root / "outside")
    sets = (*FAST, "repository.mode=explicit", "repository.load=[m]")
    with Served(root / "models", sets=sets) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, retry=NO_RETRIES) as client:
        yield client


def names(root: Path) -> list[str]:
    outside = root.parent / "outside"
    dots = ("../outside", "m/../../outside", "./../outside", "..", ".", "", "..\\outside", "%2e%2e/outside")
    return [*dots, str(outside), f"m/{outside}", "../outside\0", "m\0", "ⅿ", "．．/outside", ".hidden", "link", "m/1"]


@pytest.mark.parametrize("number", range(17))
def test_names_that_lead_out_of_the_repository_are_refused(served: Served, client: Client, number: int) -> None:
    name = names(served.repository)[number]
    for ask in (lambda: client.load(name), lambda: client.predict(name, ROWS), lambda: client.load(name, version=1)):
        with pytest.raises((NotFound, InvalidArgument, InvalidInput, FailedPrecondition)):
            ask()


def test_only_the_one_model_is_served_after_all_attempts(served: Served, client: Client) -> None:
    assert len(names(served.repository)) == 17
    assert client.predict("m", ROWS)["y"].tolist() == [[2.0] * 4]
    assert {model.name for model in client.list_models() if model.available} == {"m"}
