"""Faults of a model in its worker process, and what its callers see. Real processes."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.faulty import Fault, ask_for
from support.loading import ask
from support.loading import load as loaded
from support.python_models import write_model
from support.scheduling import submit
from support.settings import config_of
from support.waiting import eventually

from inferd.server.config.document import parse_document
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import ExecutionFailed, Unavailable
from inferd.server.isolation.output import Output
from inferd.server.isolation.process import WorkerProcess
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.observability.events import FIELDS
from inferd.server.observability.rate_limit import RateLimit
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.scheduling.request import callback_request

Load = Any


def gone(pid: int) -> bool:
    """Whether the process has ended and has been reaped."""
    return not Path(f"/proc/{pid}").exists()


def answers(servable: Servable) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(ask(servable, {"x": x})["y"], x + 1)


def test_answers_come_from_another_process(load: Load) -> None:
    servable = load()
    assert servable.worker is not None
    assert servable.worker.pid not in (0, os.getpid())
    assert f"isolation: in process {servable.worker.pid}" in servable.notes
    assert servable.max_batch_size == 32, "batched, although the model writes into its inputs: they are copies"
    answers(servable)
    assert servable.worker.resident() > 2**20


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.CRASH, "was killed by signal 11 (SIGSEGV)"),
        (Fault.EXIT, "ended with exit code 3"),
        (Fault.HANG, "did not answer for 2 s and was killed"),
        (Fault.STOP, "did not answer for 2 s and was killed"),
        (Fault.PROTOCOL, "broke the connection"),
    ],
)
def test_the_end_of_a_worker_fails_only_its_own_requests(load: Load, fault: Fault, reason: str) -> None:
    servable, other = load("m", hang="2s"), load("other")
    with pytest.raises(Unavailable) as failed:
        ask(servable, ask_for(fault))
    assert failed.value.message.startswith("model 'm' version 1: its worker process " + reason)
    assert failed.value.accepted, "it may have reached the model"
    assert failed.value.retry_after is not None
    assert servable.worker.lost
    assert gone(servable.worker.pid)
    assert not servable.serves
    with pytest.raises(Unavailable) as refused:
        ask(servable, ask_for(Fault.NONE))
    assert not refused.value.accepted, "this one cannot have reached the model"
    assert refused.value.retry_after is not None
    answers(other)


def test_a_worker_that_is_quiet_gives_unused_memory_back(load: Load) -> None:
    """It is quiet when nothing ran between two pings, which come four times in `hang`."""
    servable = load("m", hang="2s")
    before = servable.worker.resident()
    ask(servable, ask_for(Fault.GROW))
    answers(servable)
    eventually(lambda: servable.worker.resident() < before + 40 * 2**20, "it shrinks again", servable.worker.resident)


def test_outputs_above_their_bound_are_not_copied(tmp_path: Path) -> None:
    """Memory that was never written costs the model nothing, but its copies would cost the server."""
    version = write_model(
        tmp_path,
        "m",
        "import numpy as np\ndef predict(n):\n    return {'y': np.zeros(1 << int(n[0]), np.float32)}\n",
        "signatures: [{inputs: [{name: n, dtype: INT64, shape: [1]}], outputs: [{name: y, dtype: FP32, shape: [-1]}]}]",
    )
    config = config_of(ServerConfig(), "m", parse_document((tmp_path / "m" / "model.yaml").read_text(), "model.yaml"))
    servable = loaded(version, config, trust=CodeTrust({"*": ["python"]}), largest_answer=1 << 20)
    try:
        with pytest.raises(ExecutionFailed, match=r"the outputs take 1073741824 bytes: expected at most 1048576"):
            ask(servable, {"n": np.array([28], np.int64)})
        assert ask(servable, {"n": np.array([18], np.int64)})["y"].size == 1 << 18
    finally:
        servable.scheduler.close()
        servable.worker.end()


def test_a_worker_above_its_memory_limit_is_killed(load: Load) -> None:
    servable = load("m", memory="300MiB")
    answers(servable)
    with pytest.raises(Unavailable, match=r"took \d+ MiB of memory, more than the 300 MiB of worker.memory"):
        ask(servable, ask_for(Fault.EAT))
    assert gone(servable.worker.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_an_idle_worker_that_is_killed_is_noticed_at_once(load: Load, number: signal.Signals) -> None:
    servable = load()
    reasons: list[str] = []
    lost = threading.Event()
    servable.worker.on_lost(lambda reason: (reasons.append(reason), lost.set()))
    os.kill(servable.worker.pid, number)
    assert lost.wait(30)
    assert reasons[0].startswith(f"was killed by signal {int(number)} ({number.name})")


def test_the_reason_of_a_kill_that_came_too_late_is_not_reported(load: Load) -> None:
    """The connection ends before the process does; on a busy machine the server notices the process's end much
    later."""
    servable = load()
    servable.worker._kill_reason = "broke the connection (end of stream) and was killed"
    os.kill(servable.worker.pid, signal.SIGABRT)
    eventually(lambda: servable.worker.lost, "the end is noticed")
    assert servable.worker.lost == "was killed by signal 6 (SIGABRT)"


def test_an_idle_worker_that_is_suspended_is_noticed(load: Load) -> None:
    servable = load("m", hang="2s")
    lost = threading.Event()
    servable.worker.on_lost(lambda reason: lost.set())
    os.kill(servable.worker.pid, signal.SIGSTOP)
    assert lost.wait(30)
    assert servable.worker.lost == "did not answer for 2 s and was killed"


@pytest.mark.parametrize("gently", [True, False])
def test_processes_started_by_a_model_end_with_its_worker(
    load: Load, loader: Loader, caplog: pytest.LogCaptureFixture, gently: bool
) -> None:
    """Such a process may hold memory and a device."""
    servable = load()
    with caplog.at_level(logging.INFO, "inferd.isolation"):
        ask(servable, ask_for(Fault.FORK))
        found = eventually(lambda: re.search(r"helper (\d+)", str([r.__dict__ for r in caplog.records])), "its number")
    helper = int(found[1])
    assert not gone(helper)
    assert servable.worker is not None
    if gently:
        loader.unload(servable)
    else:
        os.kill(servable.worker.pid, signal.SIGKILL)
    eventually(lambda: gone(helper), "it is gone", limit=20)


def test_a_kill_as_the_worker_ends_leaves_no_process_that_it_has_started(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed = threading.Event()  # the watching thread notices the process's end when the test sets it
    monkeypatch.setattr(WorkerProcess, "_watch_until_end", lambda *_: noticed.wait(60))
    servable = load()
    assert servable.worker is not None
    ask(servable, ask_for(Fault.FORK))
    tasks = Path(f"/proc/{servable.worker.pid}/task").glob("*/children")
    [helper] = [int(pid) for task in tasks for pid in task.read_text().split()]
    os.kill(servable.worker.pid, signal.SIGKILL)
    eventually(lambda: ") Z " in Path(f"/proc/{servable.worker.pid}/stat").read_text(), "it has ended")
    servable.worker.kill("did not answer and was killed")
    noticed.set()
    eventually(lambda: gone(helper), "its helper is gone", limit=20)


def test_a_process_forked_by_a_model_sends_no_answers_and_writes_none(load: Load) -> None:
    """The server would take its answer for the answer to the next request; its outputs would overwrite those."""
    servable = load("m", batching={"mode": "off"})
    ask(servable, {"x": np.zeros((1, 4), np.float32)})  # from now on there is an arena for outputs
    ask(servable, ask_for(Fault.TWIN))
    for number in range(50):
        x = np.full((1, 4), number, np.float32)
        np.testing.assert_array_equal(ask(servable, {"x": x})["y"], x + 1)


def test_endless_output_does_not_block_the_watching_thread() -> None:
    """The process's end, memory and liveness are checked between two reads of its output."""
    read, write = os.pipe()
    stop = threading.Event()

    def babble() -> None:
        with os.fdopen(write, "wb", buffering=0) as pipe:
            while not stop.is_set():
                pipe.write(b"x" * 65536 + b"\n")

    writer = threading.Thread(target=babble)
    writer.start()
    output = Output(read)
    reader = threading.Thread(target=output.read, daemon=True)
    reader.start()
    reader.join(30)
    returned = not reader.is_alive()
    stop.set()
    while writer.is_alive():
        output.read()
    reader.join(30)
    output.close()
    assert returned


def test_lines_beyond_the_rate_limit_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The reading thread shares the processor with the callers of all other models."""
    read, write = os.pipe()
    output = Output(read)
    output._limit = RateLimit(per_second=20.0, burst=200, clock=lambda: 0.0)  # the real rate, on a clock that stands
    with caplog.at_level(logging.INFO, "inferd.isolation"), os.fdopen(write, "wb", buffering=0) as pipe:
        pipe.write(b"".join(b"%d\n" % number for number in range(180)))  # fewer than `burst`: all are logged
        output.read()
        assert [record.__dict__[FIELDS]["line"] for record in caplog.records] == [str(n) for n in range(180)]
        pipe.write(b"a\n" * 30_000 + b"the last one\nbegun")
        output.read()
    assert output.last == "the last one"
    assert len(caplog.records) <= 200
    assert sum(bucket.skipped for bucket in output._limit._buckets.values()) >= 30_001 + 180 - 200
    output.close()
    assert output.last == "begun"


def test_workers_ignore_the_servers_signals(load: Load) -> None:
    servable = load()
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    for number in (*ending, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPROF, signal.SIGRTMIN):
        os.kill(servable.worker.pid, number)
    answers(servable)


def test_an_exception_is_the_same_as_in_process(load: Load) -> None:
    messages = []
    for isolation in ("none", "process"):
        servable = load(isolation, isolation=isolation)
        with pytest.raises(ExecutionFailed) as failed:
            ask(servable, ask_for(Fault.RAISE))
        messages.append(failed.value.message.replace(isolation, "m"))
        with pytest.raises(ExecutionFailed):
            ask(servable, ask_for(Fault.LEAVE))
        answers(servable)
    assert messages[0] == messages[1]
    assert "unexpected KeyError" in messages[0]


def test_a_batch_lost_in_a_crash_is_not_run_again(load: Load) -> None:
    """One of the requests has ended the worker; which one is unknown."""
    servable = load("m", batching={"max_queue_delay": "10s", "preferred_batch_size": 3, "max_batch_size": 3})
    done = threading.Semaphore(0)
    batch = [callback_request(servable.default_signature, ask_for(fault), lambda r: done.release()) for fault in _THREE]
    for request in batch:
        submit(servable.scheduler, request)
    for _ in batch:
        assert done.acquire(timeout=30)
    assert [request.batch_rows for request in batch] == [3, 3, 3]
    for request in batch:
        assert isinstance(request.error, Unavailable)
        assert request.error.accepted


_THREE = (Fault.CRASH, Fault.NONE, Fault.NONE)


def test_requests_queued_behind_a_crash_are_refused(load: Load) -> None:
    servable = load("m", batching={"mode": "off"})
    done = threading.Semaphore(0)
    waiting = [
        callback_request(servable.default_signature, ask_for(fault), lambda r: done.release())
        for fault in (Fault.CRASH, *[Fault.NONE] * 20)
    ]
    for request in waiting:
        submit(servable.scheduler, request)
    for _ in waiting:
        assert done.acquire(timeout=30)
    assert all(isinstance(request.error, Unavailable) for request in waiting)


def test_a_model_that_hangs_while_it_is_unloaded_ends_with_its_process(
    load: Load, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = load("m", hang="1h")
    done = threading.Event()
    request = callback_request(servable.default_signature, ask_for(Fault.HANG), lambda r: done.set())
    submit(servable.scheduler, request)
    eventually(lambda: request.started_at, "the run has begun")
    monkeypatch.setattr(servable.scheduler, "close", _close_soon(servable))
    loader.unload(servable)
    assert gone(servable.worker.pid)
    assert done.wait(30)
    assert isinstance(request.error, Unavailable)


def _close_soon(servable: Servable) -> Any:
    close = servable.scheduler.close
    return lambda: close(0.1)
