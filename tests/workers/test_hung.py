"""A worker process that is suspended: it is killed and replaced, and no request fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.group import GROUP, LONG, metrics, wait_all_serve, workers
from support.marked import prepare_model, publish
from support.server import Served
from support.traffic import Traffic
from support.waiting import eventually

from inferd.client import RetryPolicy

pytestmark = pytest.mark.timeout(400)


def test_a_stopped_worker_is_replaced_and_its_clients_go_to_the_others(tmp_path: Path) -> None:
    publish("onnx", prepare_model("onnx", tmp_path / "models", "m"), 1, marker=1)
    with Served(tmp_path / "models", sets=(*GROUP, "server.worker_hang=2s"), limit=LONG) as server:
        before = wait_all_serve(server)
        victim = max(before)
        with Traffic(server.address, "m", threads=6, retry=RetryPolicy()) as traffic:
            traffic.more(100)
            os.kill(victim, signal.SIGSTOP)
            eventually(lambda: victim not in workers(server), "it is killed", server.tail, LONG)
            assert before - {victim} < wait_all_serve(server), "another one serves, and the other one goes on"
            traffic.more(100)
            seen = traffic.end()
        assert not seen.failures, seen.failures[:3]
        assert not seen.wrong, seen.wrong[:3]
        assert metrics(server)["inferd_group_restarts_total"] == 1
        assert '"worker does not answer and is killed"' in server.log.read_text()
        assert server.stop() == 0
