"""Scenarios with killed and stopped workers: the worker of an isolated model, a worker process of the server."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from chaos.scenario import ANY, UNAVAILABLE, Scenario
from chaos.stage import LIMIT, Setup, Stage
from support.group import wait_all_serve, workers
from support.waiting import eventually

_GROUP = Setup(sets=("server.workers=2", "grpc.max_connection_age=1s"))


def _replaced(stage: Stage, number: signal.Signals) -> None:
    """Sends a signal to the worker of the model `walled`, and waits for a new worker."""
    before = eventually(lambda: stage.worker("walled"), "walled has a worker", stage.tail, LIMIT)
    os.kill(before, number)
    eventually(lambda: stage.worker("walled") not in (None, before), "a new worker", stage.tail, LIMIT)
    stage.available("walled", 1)


class IsolatedWorkerKilled(Scenario):
    name = "isolated-worker-killed"
    shown = "isolation/test_server.py::test_a_worker_ends_under_load"
    fault = "kill -9 of an isolated model's worker process"
    promise = "its calls in flight fail with UNAVAILABLE; it is started again; other models are not affected"
    model = "walled"
    may_fail: ClassVar = {ANY: UNAVAILABLE}

    def strike(self, stage: Stage) -> None:
        _replaced(stage, signal.SIGKILL)


class IsolatedWorkerStopped(Scenario):
    name = "isolated-worker-stopped"
    shown = "isolation/test_server.py::test_a_worker_ends_under_load"
    fault = "SIGSTOP of an isolated model's worker process"
    promise = "after `worker.hang` (here 2 s) it is killed and started again; otherwise as isolated-worker-killed"
    model = "walled"
    may_fail: ClassVar = {ANY: UNAVAILABLE}

    def strike(self, stage: Stage) -> None:
        _replaced(stage, signal.SIGSTOP)


class _GroupWorker(Scenario):
    setup = _GROUP
    number: ClassVar[signal.Signals]

    def strike(self, stage: Stage) -> None:
        assert stage.server is not None
        victim = min(wait_all_serve(stage.server))
        os.kill(victim, self.number)
        server = stage.server
        eventually(lambda: victim not in workers(server), "it is gone", stage.tail, LIMIT)
        wait_all_serve(server)


class GroupWorkerKilled(_GroupWorker):
    name = "group-worker-killed"
    shown = "workers/test_workers.py::test_a_killed_worker_costs_no_request_and_comes_back"
    fault = "kill -9 of one of the server's two workers (`server.workers: 2`)"
    promise = "the client's default retries hide it; clients without retries may get UNAVAILABLE; a new worker starts"
    number = signal.SIGKILL
    may_fail: ClassVar = {"stream": UNAVAILABLE, "oip": UNAVAILABLE, "rest": UNAVAILABLE}


class GroupWorkerDrained(_GroupWorker):
    name = "group-worker-drained"
    shown = "workers/test_workers.py::test_workers_leave_one_by_one_and_no_call_fails_even_without_retries"
    fault = "SIGTERM to one of the server's two workers"
    promise = "accepted requests are answered; only calls on a stream or an HTTP connection that stays open may fail"
    number = signal.SIGTERM
    may_fail: ClassVar = {"stream": UNAVAILABLE, "rest": UNAVAILABLE}


SCENARIOS = (IsolatedWorkerKilled, IsolatedWorkerStopped, GroupWorkerKilled, GroupWorkerDrained)
