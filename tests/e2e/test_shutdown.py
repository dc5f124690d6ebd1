"""SIGTERM at work: what was accepted is answered, what was not is refused as such, and the process ends with 0."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.marked import prepare_model, slow_onnx
from support.server import FAST, Served

from inferd.client import NO_RETRIES, Client, InferdError, RequestError, Unavailable

pytestmark = pytest.mark.timeout(120)


def test_sigterm_answers_everything_accepted(tmp_path: Path) -> None:
    directory = prepare_model("onnx", tmp_path / "models", "slow", "batching: {mode: 'off'}\n")
    slow_onnx(directory / "1", turns=20_000)
    answers: list[float] = []
    failures: list[InferdError] = []
    first = threading.Event()

    with Served(tmp_path / "models", sets=FAST) as server, Client(server.address, retry=NO_RETRIES) as client:

        def call(i: int) -> None:
            x = np.full((1, 4), i, np.float32)
            try:
                answer = client.predict("slow", {"x": x}, timeout=60.0)
            except InferdError as error:
                failures.append(error)
            else:
                np.testing.assert_array_equal(answer["y"], x)
                answers.append(i)
            first.set()

        threads = [threading.Thread(target=call, args=(i,)) for i in range(60)]
        for thread in threads:
            thread.start()
        assert first.wait(30)
        server.signal()
        for thread in threads:
            thread.join()
        assert server.wait() == 0
    assert answers, "requests in flight were answered"
    for error in failures:
        assert isinstance(error, Unavailable), error
        assert not isinstance(error, RequestError) or not error.accepted, f"accepted and lost: {error}"


def test_a_second_life_serves_at_once(tmp_path: Path) -> None:
    """Stopped and started again on the same repository."""
    directory = prepare_model("onnx", tmp_path / "models", "slow")
    slow_onnx(directory / "1", turns=1)
    for _ in range(2):
        with Served(tmp_path / "models") as server, Client(server.address) as client:
            assert client.predict("slow", {"x": np.ones((1, 4), np.float32)}).version == 1
