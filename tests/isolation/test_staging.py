"""Batches that are put together in shared memory by the scheduler."""

from __future__ import annotations

from typing import Any

import numpy as np

Load = Any


def test_an_instance_gives_memory_that_it_need_not_copy(load: Load) -> None:
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
            assert (x == 0).all(), "the model wrote into its inputs: this is the memory that it saw"
        plain = run(lambda i: i.run("serving_default", {"x": np.ones((2, 4), np.float32)}, None)).result(30)["y"]
        np.testing.assert_array_equal(plain, np.full((2, 4), 2, np.float32))
