"""The real server with isolated models: workers killed and suspended under verified load; all memory is freed."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.faulty import Fault, ask_for, installed, write
from support.marked import BACKENDS, prepare_model, publish
from support.server import FAST, Served
from support.traffic import Traffic
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, InferdError, RetryPolicy, Unavailable

pytestmark = pytest.mark.timeout(240)
PATIENT = RetryPolicy(attempts=20)
ISOLATED = "isolation: process\nworker: {hang: 3s}\n"
MIB = 2**20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`walled` in a worker process, `open` in the server's."""
    root = tmp_path_factory.mktemp("isolation") / "models"
    publish("onnx", prepare_model("onnx", root, "walled", ISOLATED), 1, marker=1)
    publish("onnx", prepare_model("onnx", root, "open"), 1, marker=5)
    with Served(root) as server:
        yield server


def worker_of(client: Client, model: str, version: int = 1) -> int:
    """The id of the version's worker process."""
    status = next(v for v in client.status(model).versions if v.version == version)
    found = re.search(r"isolation: in process (\d+)", " ".join(status.notes))
    assert found is not None, status
    return int(found[1])


def metric(server: Served, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    assert found is not None, text
    return float(found[1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_ends_under_load(served: Served, number: signal.Signals) -> None:
    """Callers that retry lose no request; callers of another model are not affected."""
    name = 'inferd_worker_restarts_total{model="walled",version="1"}'
    with Client(served.address) as client, grpc.insecure_channel(served.address) as channel:
        before, restarts = worker_of(client, "walled"), metric(served, name)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="walled"), timeout=100)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with (
            Traffic(served.address, "walled", retry=PATIENT) as walled,
            Traffic(served.address, "open", threads=1) as beside,
        ):
            walled.more(100)
            os.kill(before, number)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            walled.more(100)
            beside.more(20)
        for seen in (walled.seen, beside.seen):
            assert not seen.failures, seen.failures[:3]
            assert not seen.wrong, seen.wrong[:3]
        assert worker_of(client, "walled") != before
        assert not Path(f"/proc/{before}").exists()
        assert metric(served, name) == restarts + 1
        assert metric(served, 'inferd_worker_resident_bytes{model="walled",version="1"}') > MIB


def test_a_new_version_and_a_rollback_lose_no_request(served: Served) -> None:
    root = served.repository
    with Client(served.address, timeout=60.0) as client:
        publish("onnx", prepare_model("onnx", root, "rolling", ISOLATED + "version_policy: {latest: 2}\n"), 1, marker=1)
        client.wait_ready(60.0, model="rolling")
        first = worker_of(client, "rolling")
        with Traffic(served.address, "rolling") as traffic:
            traffic.more(50)
            publish("onnx", root / "rolling", 2, marker=2)
            traffic.marker(2)
            client.rollback("rolling", to=1)
            seen = traffic.more(50)
        assert not seen.failures, seen.failures[:3]
        assert not seen.wrong, seen.wrong[:3]
        assert all(order == [1, 2, 1] for order in seen.orders), seen.orders
        assert worker_of(client, "rolling") == first
        client.unload("rolling")
        eventually(lambda: not Path(f"/proc/{first}").exists(), "the process ends")


def test_a_server_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "walled", ISOLATED), 1, marker=1)
    with Served(root) as server:
        with Client(server.address) as client:
            worker = worker_of(client, "walled")
        os.kill(worker, signal.SIGSTOP)  # the worker itself cannot notice the server's end
        server.signal(signal.SIGKILL)
        assert server.process is not None
        server.process.wait()
        eventually(lambda: not _runs(worker), "the worker is gone", limit=20)


def _runs(pid: int) -> bool:
    """Whether the process lives. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_crash_of_a_plug_in_is_reported_to_clients_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", installed(tmp_path / "site"))
    root = tmp_path / "models"
    write(root / "shaky" / "1")
    with (
        Served(root, sets=(*FAST, "isolation=process", "log.format=json")) as server,
        Client(server.address, retry=NO_RETRIES) as client,
    ):
        client.predict("shaky", ask_for(Fault.SPEAK))
        for text in ("a line on standard output", "a line on standard error"):
            line = eventually(lambda text=text: _line(server, text), "the worker's line in the log", server.tail)
            assert '"model":"shaky"' in line
            assert "worker says" in line
        with pytest.raises(Unavailable) as failed:
            client.predict("shaky", ask_for(Fault.CRASH))
        assert "its worker process was killed by signal 11 (SIGSEGV)" in failed.value.message
        assert failed.value.accepted
        eventually(lambda: _line(server, "Fatal Python error"), "where it crashed, in the log", server.tail)
        eventually(lambda: _answers(client), "it answers again")


def _line(server: Served, text: str) -> str | None:
    return next((line for line in server.log.read_text().splitlines() if text in line), None)


def _answers(client: Client) -> bool:
    try:
        return bool(client.predict("shaky", ask_for(Fault.NONE))["y"].size)
    except InferdError:
        return False


LIBRARIES = {"onnx": "onnxruntime", "torch": "libtorch", "tensorflow": "libtensorflow"}


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS)
def test_unloading_frees_all_memory(backend: str, tmp_path: Path) -> None:
    """The framework is never loaded in the server; its memory is freed when the worker process ends."""
    root = tmp_path / "models"
    publish(backend, prepare_model(backend, root, "big", ISOLATED.replace("3s", "60s")), 1, marker=1, ballast=64 * MIB)
    sets = (*FAST, "repository.mode=explicit")
    with Served(root, sets=sets) as server, Client(server.address, timeout=120.0) as client:
        before = server.memory()
        client.load("big")
        worker = worker_of(client, "big")
        for _ in range(20):
            assert client.predict("big", {"x": np.zeros((1, 4), np.float32)})["y"][0, 0] == 1
        assert LIBRARIES[backend] in Path(f"/proc/{worker}/maps").read_text()
        assert LIBRARIES[backend] not in Path(f"/proc/{server.pid}/maps").read_text()
        client.unload("big")
        eventually(lambda: not Path(f"/proc/{worker}").exists(), "the worker is gone")
        grown = server.memory() - before
        assert grown < 10 * MIB, f"{grown / MIB:.1f} MiB stayed"
