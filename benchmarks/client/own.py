"""The cost of a call in the client alone: arguments, encoding, decoding, futures.

The gRPC channel is replaced by a function that returns a prepared answer. The fastest of many short rounds counts, in
which nothing else disturbed the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

from benchmarks.report import Table
from inferd.client import AsyncClient, Client
from inferd.wire.native import encode_response

CALLS, ROUNDS = 100, 300
MODEL, NOWHERE = "tiny", "127.0.0.1:1"
INPUTS = {"x": np.ones((1, 64), np.float32)}
ANSWER = encode_response(MODEL, 1, "serving_default", {"y": np.ones((1, 10), np.float32)})


class Ready:
    """A call that has been answered, with the methods of gRPC's future that the client uses."""

    def result(self) -> bytes:
        return ANSWER

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)


class Method:
    """Takes the place of a method of a gRPC channel."""

    def __call__(self, request: bytes, **_: object) -> bytes:
        return ANSWER

    def future(self, request: bytes, **_: object) -> Ready:
        return Ready()


async def answer_at_once(request: bytes, **_: object) -> bytes:
    """Takes the place of a method of a grpc.aio channel."""
    return ANSWER


def smallest(run: Callable[[], None]) -> float:
    """Microseconds for each call, in the fastest round. `run` makes CALLS calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / CALLS


def measure_own() -> Table:
    """Measures the client's methods, and tritonclient's `infer` with its stub replaced in the same way."""
    table = Table(
        "Clients: their own part, without gRPC and the server",
        ("way", "µs/call"),
        how=f"The channel answers at once; the smallest of {ROUNDS} rounds of {CALLS} calls; 64 floats in, 10 out.",
    )
    with Client(NOWHERE) as client:
        client._predict = Method()

        def predict() -> None:
            for _ in range(CALLS):
                client.predict(MODEL, INPUTS)["y"]

        def submit() -> None:
            for _ in range(CALLS):
                client.submit(MODEL, INPUTS).result()["y"]

        def many() -> None:
            for answer in client.predict_many(MODEL, repeat(INPUTS, CALLS)):
                answer["y"]

        ways = {"predict": predict, "submit": submit, "predict_many": many}
        table.rows += [[f"inferd, {name}", smallest(run)] for name, run in ways.items()]
    table.rows += asyncio.run(_own_async())
    table.rows.append(["tritonclient, infer", smallest(_triton())])
    return table


async def _own_async() -> list[list[Any]]:
    async with AsyncClient(NOWHERE) as client:
        client._connection.methods.predict = answer_at_once

        async def predict() -> None:
            for _ in range(CALLS):
                (await client.predict(MODEL, INPUTS))["y"]

        async def many() -> None:
            async for answer in client.predict_many(MODEL, repeat(INPUTS, CALLS)):
                answer["y"]

        rows: list[list[Any]] = []
        for name, run in {"predict": predict, "predict_many": many}.items():
            best = float("inf")
            for _ in range(ROUNDS):
                began = time.perf_counter()
                await run()
                best = min(best, time.perf_counter() - began)
            rows.append([f"inferd, async {name}", 1e6 * best / CALLS])
        return rows


def _triton() -> Callable[[], None]:
    import tritonclient.grpc as triton
    from tritonclient.grpc import service_pb2 as pb

    response = pb.ModelInferResponse(model_name=MODEL, model_version="1")
    response.outputs.add(name="y", datatype="FP32", shape=[1, 10])
    response.raw_output_contents.append(bytes(40))
    answer = response.SerializeToString()

    class Stub:
        def ModelInfer(self, request: Any, **_: object) -> Any:  # noqa: N802 - the stub's own name
            request.SerializeToString()
            return pb.ModelInferResponse.FromString(answer)

    client = triton.InferenceServerClient(NOWHERE)
    client._client_stub = Stub()

    def infer() -> None:
        for _ in range(CALLS):
            x = triton.InferInput("x", (1, 64), "FP32")
            x.set_data_from_numpy(INPUTS["x"])
            client.infer(MODEL, [x]).as_numpy("y")

    return infer
