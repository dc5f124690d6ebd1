"""Batches whose inputs the scheduler joins in shared memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from support.scheduling import submit
from support.waiting import eventually

from inferd.server.scheduling.request import callback_request

Load = Any


def test_inputs_in_staging_memory_are_not_copied(load: Load) -> None:
    servable = load()
    instance = servable.scheduler._group.workers[0].call(lambda instance: instance).result()
    run = servable.scheduler._group.workers[0].call
    for rows in (3, 500, 3):
        stage = instance.staging(rows * 16)
        x = stage[: rows * 16].view(np.float32).reshape(rows, 4)
        for value in (1, 2):
            x[...] = value
            y = run(lambda i, x=x: i.run("serving_default", {"x": x}, None)).result(30)["y"]
            np.testing.assert_array_equal(y, np.full((rows, 4), value + 1, np.float32))
            assert (x == 0).all(), "the model writes into its inputs, so it has used this memory"
        plain = run(lambda i: i.run("serving_default", {"x": np.ones((2, 4), np.float32)}, None)).result(30)["y"]
        np.testing.assert_array_equal(plain, np.full((2, 4), 2, np.float32))


def test_a_large_batch_is_joined_in_shared_memory(load: Load) -> None:
    rows = 20_000
    servable = load(batching={"max_batch_size": 3 * rows, "preferred_batch_size": 3 * rows, "max_queue_delay": "10s"})
    instance = servable.scheduler._group.workers[0].call(lambda instance: instance).result()
    lent: list[int] = []
    staging = instance.staging

    def counted(nbytes: int) -> Any:
        lent.append(nbytes)
        return staging(nbytes)

    instance.staging = counted
    for _ in range(2):
        done = threading.Semaphore(0)
        batch = [
            callback_request(
                servable.default_signature, {"x": np.full((rows, 4), n, np.float32)}, lambda r, d=done: d.release()
            )
            for n in range(3)
        ]
        for request in batch:
            submit(servable.scheduler, request)
        for request in batch:
            assert done.acquire(timeout=60)
            assert request.batch_rows == 3 * rows
        for n, request in enumerate(batch):
            assert request.outputs is not None, request.error
            assert (request.outputs["y"] == n + 1).all()
    assert lent == [3 * rows * 16], "allocated once, used twice"


def test_memory_too_large_to_be_kept_may_be_used_for_several_runs(load: Load) -> None:
    """Only the beginning of the memory is written, so the test does not use that much."""
    servable = load()
    instance = servable.scheduler._group.workers[0].call(lambda instance: instance).result()
    run = servable.scheduler._group.workers[0].call
    stage = instance.staging(257 * 2**20)
    x = stage[:48].view(np.float32).reshape(3, 4)
    for value in (1, 2, 3):
        x[...] = value
        y = run(lambda i: i.run("serving_default", {"x": x}, None)).result(30)["y"]
        np.testing.assert_array_equal(y, np.full((3, 4), value + 1, np.float32))
    assert servable.serves
    # The worker unmaps it after it has answered.
    eventually(lambda: "257" not in mapped(servable.worker.pid), "the worker unmaps it after each run")


def mapped(pid: int) -> list[str]:
    """The sizes (MiB) of the shared memory that a process has mapped."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "inferd-tensors" in line:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            found.append(f"{(end - begin) / 2**20:g}")
    return found
