"""Two workers under verified load: one is killed, one leaves, all are replaced, and no request is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.group import GROUP, LONG, by_worker, metrics, requests, running, wait_all_serve, workers
from support.marked import prepare_model, publish
from support.server import INFERD, Served
from support.traffic import Seen, Traffic
from support.waiting import eventually

from inferd.client import Client, FailedPrecondition, NotFound, RetryPolicy, VersionState
from inferd.v1 import predict_service_pb2, tensor_pb2

pytestmark = pytest.mark.timeout(400)
ONE = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("group") / "models"
    publish("onnx", prepare_model("onnx", root, "m"), 1, marker=1)
    sets = (*GROUP, "server.metrics=127.0.0.1:0")
    with Served(root, "--state-dir", str(root.parent / "state"), sets=sets, limit=150) as server:
        yield server


def assert_clean(seen: Seen) -> None:
    assert not seen.failures, seen.failures[:3]
    assert not seen.wrong, seen.wrong[:3]


def answers(server: Served, model: str, label: str | None = None) -> list[float]:
    """The answers on eight new connections, which reach one worker or the other."""
    found = []
    for _ in range(8):
        with Client(server.address) as client:
            found.append(float(client.predict(model, ONE, label=label)["y"][0, 0]))
    return found


def test_requests_reach_both_workers(server: Served) -> None:
    assert server.ready_line.endswith("; 2 workers")
    wait_all_serve(server)
    of_metrics = re.search(r"; metrics (127\.0\.0\.1:\d+);", server.ready_line)
    assert of_metrics is not None, server.ready_line
    with urllib.request.urlopen(f"http://{of_metrics[1]}/metrics", timeout=10) as answer:
        assert b"inferd_group_workers 2.0" in answer.read()
    with Traffic(server.address, "m") as traffic:
        eventually(lambda: set(by_worker(server)) == {"1", "2"} and min(by_worker(server).values()) > 20, "both answer")
        seen = traffic.end()
    assert_clean(seen)
    assert requests(server) == seen.answers, "one worker's metrics page counts the requests of both"


def test_a_second_server_on_the_groups_state_directory_is_refused(server: Served, tmp_path: Path) -> None:
    state = server.repository.parent / "state"
    command = [str(INFERD), "serve", "--model-repository", str(tmp_path), "--state-dir", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"{state} is in use by another server (process {server.pid}): each needs its own" in done.stderr


def test_a_killed_worker_costs_no_request_and_comes_back(server: Served) -> None:
    before = wait_all_serve(server)
    victim = min(before)
    restarts = metrics(server)["inferd_group_restarts_total"]
    with Client(server.address) as client, Traffic(server.address, "m", retry=RetryPolicy()) as traffic:
        client.set_label("m", "stable", 1)
        traffic.more(200)
        counted = requests(server)
        os.kill(victim, signal.SIGKILL)

        def replaced() -> bool:
            nonlocal counted
            now = metrics(server)
            total = sum(value for name, value in now.items() if name.startswith("inferd_requests_total{"))
            assert total >= counted, "a counter went backwards"
            counted = total
            return now["inferd_group_workers"] == 2 and now["inferd_group_restarts_total"] == restarts + 1

        eventually(replaced, "another worker serves", server.tail, LONG)
        traffic.more(200)
        seen = traffic.end()
        assert_clean(seen)
        assert victim not in wait_all_serve(server)
        assert set(answers(server, "m", label="stable")) == {2.0}, "the new worker has the operators' overrides"
        client.set_label("m", "stable", None)


def test_workers_leave_one_by_one_and_no_call_fails_even_without_retries(server: Served) -> None:
    """One worker gets SIGTERM, then all are replaced. The clients have no retry policy, and some are plain gRPC."""
    before = wait_all_serve(server)
    request = _message()
    stop = threading.Event()
    counted = requests(server)

    def call() -> int:
        answers = 0
        with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = channel.unary_unary("/inferd.v1.PredictService/Predict")
            while not stop.is_set():
                predict(request, timeout=20)
                answers += 1
        return answers

    def call_anew() -> int:
        answers = 0
        while not stop.is_set():
            with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                channel.unary_unary("/inferd.v1.PredictService/Predict")(request, timeout=20)
            answers += 1
        return answers

    with ThreadPoolExecutor(6) as pool, Traffic(server.address, "m", threads=3) as traffic:
        callers = [pool.submit(ask) for ask in (call, call, call, call_anew, call_anew, call_anew)]
        traffic.more(50)
        os.kill(max(before), signal.SIGTERM)
        server.signal(signal.SIGHUP)
        try:
            eventually(lambda: not before & workers(server), "all workers are others", server.tail, LONG)
            wait_all_serve(server)
            traffic.more(50)
        finally:
            stop.set()
        seen = traffic.end()
    assert_clean(seen)
    others = [caller.result() for caller in callers]
    assert min(others) > 0
    assert requests(server) == counted + seen.answers + sum(others), "the counts of the workers that left are kept"


def test_a_new_version_serves_everywhere_and_never_goes_back(server: Served) -> None:
    wait_all_serve(server)
    model = server.repository / "swapped"
    publish("onnx", prepare_model("onnx", server.repository, "swapped"), 1, marker=1)
    with Client(server.address) as client:
        eventually(lambda: _available(client, "swapped") == (1,), "version 1 serves", server.tail)
        with Traffic(server.address, "swapped", threads=6) as traffic:
            traffic.more(100)
            publish("onnx", model, 2, marker=2)
            traffic.marker(2)
            seen = traffic.end()
        assert_clean(seen)
        eventually(lambda: _available(client, "swapped") == (2,), "version 2 serves", server.tail)


def test_overrides_reach_all_workers(server: Served) -> None:
    publish("onnx", prepare_model("onnx", server.repository, "wished", "version_policy: {all: true}\n"), 1, marker=1)
    publish("onnx", server.repository / "wished", 2, marker=2)
    with Client(server.address) as client:
        eventually(lambda: _available(client, "wished") == (2, 1), "both versions serve", server.tail)
        labelled = client.set_label("wished", "stable", 1)
        assert (labelled.model.labels, labelled.persistent) == ({"stable": 1}, True)
        kept = json.loads((server.repository.parent / "state" / "overrides.json").read_text())["models"]["wished"]
        assert [(override["label"], override["version"]) for override in kept] == [("stable", 1)]
        assert set(answers(server, "wished", label="stable")) == {2.0}, "every worker knows the label"
        assert client.rollback("wished").model.available == (1,)
        assert set(answers(server, "wished")) == {2.0}
        with pytest.raises(FailedPrecondition, match="is not available"):
            client.set_label("wished", "canary", 2)
        assert client.load("wished").model.available == (2, 1)
        assert set(answers(server, "wished")) == {3.0}
        unloaded = client.unload("wished").model
        assert {version.state for version in unloaded.versions} == {VersionState.END}
        with pytest.raises(NotFound, match="unloaded by"):
            client.predict("wished", ONE)
        assert client.load("wished").model.available == (2, 1)


def test_sigterm_ends_everything(server: Served) -> None:
    before = wait_all_serve(server)
    assert server.stop() == 0
    assert [pid for pid in before if running(pid)] == []


def _available(client: Client, model: str) -> tuple[int, ...]:
    try:
        return client.status(model).available
    except NotFound:
        return ()


def _message() -> bytes:
    x = tensor_pb2.Tensor(
        name="x", dtype=tensor_pb2.DATA_TYPE_FP32, shape=[1, 4], data=np.ones(4, np.float32).tobytes()
    )
    return predict_service_pb2.PredictRequest(model={"name": "m"}, inputs=[x]).SerializeToString()
