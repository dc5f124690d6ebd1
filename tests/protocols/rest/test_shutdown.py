"""SIGTERM while REST requests run: accepted requests are answered, later ones are refused with 503."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import pytest
from support.marked import prepare_model, slow_onnx
from support.server import FAST, Served

pytestmark = pytest.mark.timeout(120)


def test_sigterm_answers_every_accepted_request(tmp_path: Path) -> None:
    directory = prepare_model("onnx", tmp_path / "models", "slow", "batching: {mode: 'off'}\n")
    slow_onnx(directory / "1", turns=5_000)
    answered: list[int] = []
    refused: list[tuple[int, str]] = []
    unreachable: list[OSError] = []
    first = threading.Event()

    with Served(tmp_path / "models", sets=FAST) as server:

        def call(i: int) -> None:
            connection = http.client.HTTPConnection(server.http, timeout=60)
            try:
                connection.request("POST", "/v1/models/slow:predict", json.dumps({"instances": [[i] * 4]}))
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except ConnectionRefusedError as error:
                unreachable.append(error)
                return
            finally:
                connection.close()
            if answer.status == 200:
                assert told == {"predictions": [[float(i)] * 4]}
                answered.append(i)
            else:
                refused.append((answer.status, told["error"]))
            first.set()

        threads = [threading.Thread(target=call, args=(i,)) for i in range(40)]
        for thread in threads:
            thread.start()
        assert first.wait(60)
        server.signal()
        for thread in threads:
            thread.join()
        assert server.wait() == 0
    assert answered, "requests in flight were answered"
    assert len(answered) + len(refused) + len(unreachable) == 40, "a connection broke in the middle of a request"
    assert {status for status, _ in refused} <= {503}
