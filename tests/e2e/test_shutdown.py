"""SIGTERM under load: accepted requests are answered, later ones are refused as not accepted, the exit code is 0."""

from __future__ import annotations

import os
import re
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.bad_models import endless, endless_tensorflow, endless_torch
from support.marked import prepare_model, slow_onnx
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, InferdError, RequestError, Unavailable

pytestmark = pytest.mark.timeout(120)


def test_sigterm_answers_every_accepted_request(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopping_server_is_not_ready_and_serves_during_pre_stop(tmp_path: Path, workers: int) -> None:
    """`drain.pre_stop`: no request is refused until the load balancers have noticed that the server is not ready."""
    directory = prepare_model("onnx", tmp_path / "models", "m")
    slow_onnx(directory / "1", turns=1)

    def page(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{server.http}{path}", timeout=20) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.code)

    with Served(tmp_path / "models", sets=(*FAST, "drain.pre_stop=1h", f"server.workers={workers}")) as server:
        assert "\ninferd_ready 1.0\n" in page("/metrics")
        server.signal()
        eventually(lambda: page("/readyz") == "503", "it says that it is not ready", server.tail)
        eventually(lambda: "\ninferd_ready 0.0\n" in page("/metrics"), "and so do the metrics", server.tail, 10)
        assert "ok" in page("/healthz")
        with Client(server.address, retry=NO_RETRIES) as client:
            eventually(lambda: not client.ready(), "and so does the health service", server.tail, 10)
            assert client.predict("m", {"x": np.ones((1, 4), np.float32)}).version == 1
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL


def test_a_restarted_server_serves_at_once(tmp_path: Path) -> None:
    """The server is stopped and started again on the same repository."""
    directory = prepare_model("onnx", tmp_path / "models", "slow")
    slow_onnx(directory / "1", turns=1)
    for _ in range(2):
        with Served(tmp_path / "models") as server, Client(server.address) as client:
            assert client.predict("slow", {"x": np.ones((1, 4), np.float32)}).version == 1


@pytest.mark.heavy
def test_sigterm_during_loads_that_never_end(tmp_path: Path) -> None:
    """In native code of each framework, in the server's process and in a worker: exit code 0, and no core dump."""
    root = tmp_path / "models"
    for name, yaml in (("here", ""), ("isolated", "isolation: process\n")):
        prepare_model("onnx", root, name, yaml)
        endless(root / name / "1/model.onnx")
    endless_torch(prepare_model("torch", root, "torch"))
    endless_tensorflow(prepare_model("tensorflow", root, "tensorflow"))
    with Served(root, sets=(*FAST, "load.threads=4", "server.readiness=[]", "log.level=debug"), limit=120.0) as server:
        maps, stat = Path(f"/proc/{server.pid}/maps"), Path(f"/proc/{server.pid}/stat")

        def seconds() -> int:
            """Seconds of processor time."""
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) // os.sysconf("SC_CLK_TCK")

        def imported() -> bool:
            found = re.findall(r"libtorch_cpu|libtensorflow_cc", maps.read_text())
            return len(set(found)) == 2

        eventually(imported, "both frameworks are imported", server.tail, 120.0)
        eventually(lambda: "worker started" in server.tail(1_000_000), "the worker has started", server.tail, 120.0)
        then = seconds()
        eventually(lambda: seconds() > then + 3, "the models run and run", server.tail, 120.0)
        assert server.stop() == 0
    assert "terminate called" not in server.tail()
