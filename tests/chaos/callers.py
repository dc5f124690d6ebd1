"""Clients of four kinds that call a model y = x + version and check every answer until they are stopped."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from chaos.tally import Tally
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from inferd.client import AsyncClient, Client, InferdError, Prediction, RequestError, RetryPolicy

DEADLINE = 30.0  # seconds; a request that takes longer is lost
PAUSE = 0.02  # seconds after an error, so that an unreachable server is not called in a tight loop
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
_CODES[504] = "DEADLINE_EXCEEDED"
INPUTS = [
    np.random.default_rng(i).integers(0, 1000, size=(1 + i % 3, 4)).astype(np.float32) for i in range(61)
]  # the inputs differ in values and in number of rows, so the answer of another request is detected


@dataclass(frozen=True)
class Target:
    """The server and the model to call.

    grpc, http   HOST:PORT
    retry        retries of the native client
    stateful     as in `Client.predict`; with None, the client needs a running server to decide about a retry
    """

    grpc: str
    http: str
    model: str
    retry: RetryPolicy
    stateful: bool | None = None


class Caller(Protocol):
    """Calls until `stop` is set, then waits for the requests in flight. Counts every request in `tally`."""

    def __call__(self, target: Target, tally: Tally, stop: threading.Event) -> None: ...


def native(target: Target, tally: Tally, stop: threading.Event, in_flight: int = 24) -> None:
    """inferd's asyncio client, with so many requests in flight."""

    async def call(client: AsyncClient, i: int) -> None:
        while not stop.is_set():
            x = INPUTS[i % len(INPUTS)]
            i += in_flight
            tally.send()
            try:
                answer = await client.predict(target.model, {"x": x}, stateful=target.stateful)
            except InferdError as error:
                _refused(tally, "native", error)
                await asyncio.sleep(PAUSE)
            else:
                _check(tally, x, answer["y"], answer.version)

    async def call_all() -> None:
        async with AsyncClient(target.grpc, retry=target.retry, timeout=DEADLINE) as client:
            await asyncio.gather(*(call(client, i) for i in range(in_flight)))

    asyncio.run(call_all())


def beside(target: Target, tally: Tally, stop: threading.Event) -> None:
    """A light load of `native`."""
    native(target, tally, stop, in_flight=2)


def stream(target: Target, tally: Tally, stop: threading.Event, in_flight: int = 16) -> None:
    """A stream of inferd's client. If it breaks, a new one is opened; the requests of the old one are not repeated."""

    def take(open_calls: deque[tuple[Any, Future[Prediction]]]) -> None:
        x, future = open_calls.popleft()
        try:
            answer = future.result(timeout=DEADLINE)
        except TimeoutError as error:
            tally.refuse("stream", "DEADLINE_EXCEEDED", str(error))
        except InferdError as error:
            _refused(tally, "stream", error)
        else:
            _check(tally, x, answer["y"], answer.version)

    with Client(target.grpc, timeout=DEADLINE) as client:
        i = 0
        while not stop.is_set():
            open_calls: deque[tuple[Any, Future[Prediction]]] = deque()
            calls = client.stream(in_flight=in_flight)
            try:
                while not stop.is_set():
                    i += 1
                    x = INPUTS[i % len(INPUTS)]
                    future = calls.submit(target.model, {"x": x})
                    tally.send()
                    open_calls.append((x, future))
                    if len(open_calls) >= in_flight:
                        take(open_calls)
            except InferdError:  # the stream is broken, and this request was not sent
                stop.wait(PAUSE)
            while open_calls:
                take(open_calls)
            calls.cancel()


def oip(target: Target, tally: Tally, stop: threading.Event) -> None:
    """Triton's own client over gRPC, one request at a time, without retries."""
    i = 0
    with InferenceServerClient(target.grpc) as client:
        while not stop.is_set():
            i += 1
            x = INPUTS[i % len(INPUTS)]
            tensor = InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            tally.send()
            try:
                answer = client.infer(target.model, [tensor], client_timeout=DEADLINE)
            except InferenceServerException as error:
                code = (error.status() or "").removeprefix("StatusCode.") or "none"
                tally.refuse("oip", code, error.message())
                stop.wait(PAUSE)
            else:
                _check(tally, x, answer.as_numpy("y"), int(answer.get_response().model_version))


def rest(target: Target, tally: Tally, stop: threading.Event) -> None:
    """JSON over one HTTP connection, one request at a time, without retries."""
    i = 0
    connection = http.client.HTTPConnection(target.http, timeout=DEADLINE)
    while not stop.is_set():
        i += 1
        x = INPUTS[i % len(INPUTS)]
        tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
        tally.send()
        try:
            connection.request("POST", f"/v2/models/{target.model}/infer", json.dumps({"inputs": [tensor]}))
            response = connection.getresponse()
            body = response.read()
        except TimeoutError as error:
            tally.refuse("rest", "DEADLINE_EXCEEDED", str(error))
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            tally.refuse("rest", "UNAVAILABLE", f"connection: {error!r}")
            connection.close()
            stop.wait(PAUSE)
        else:
            if response.status != 200:
                code = _CODES.get(response.status, str(response.status))
                tally.refuse("rest", code, body.decode(errors="replace"))
                stop.wait(PAUSE)
                continue
            answer = json.loads(body)
            output = answer["outputs"][0]
            y = np.array(output["data"], np.float32).reshape(output["shape"])
            _check(tally, x, y, int(answer["model_version"]))
    connection.close()


ALL: tuple[Caller, ...] = (native, stream, oip, rest)


def _check(tally: Tally, x: Any, y: Any, version: int) -> None:
    if y.shape == x.shape and bool((y == x + np.float32(version)).all()):
        tally.answer(True)
    else:
        tally.answer(False, f"version {version}: {x.tolist()} -> {y.tolist()}")


def _refused(tally: Tally, kind: str, error: InferdError) -> None:
    code = error.code.name if isinstance(error, RequestError) else type(error).__name__
    tally.refuse(kind, code, str(error))
