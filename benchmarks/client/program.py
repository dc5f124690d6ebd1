"""Calls a server in one way, again and again. It is a separate process, so its processor time is that of the client.

`program.py MODE ADDRESS IN_FLIGHT` prints "serving MODE". Then it reads a number of seconds from each line of its
input, calls for so long, and prints "CALLS SECONDS CPU_SECONDS".
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import grpc
import numpy as np

MODEL = "tiny"
X = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
INPUTS = {"x": X}
OUTPUTS = 10
Way = Callable[[float], int]
"""Calls the server for so many seconds. Returns the number of calls."""


def checked(y: Any) -> None:
    """Checks an answer's shape, so that the answer is used as a caller would use it. Raises ValueError."""
    if y.shape != (1, OUTPUTS):
        raise ValueError(f"expected [1, {OUTPUTS}], got {y.shape}")


def until(seconds: float, item: object) -> Iterator[object]:
    """Yields the same item again and again until the time is over."""
    end = time.perf_counter() + seconds
    for again in repeat(item):
        if time.perf_counter() >= end:
            return
        yield again


def blocking(call: Callable[[], None], threads: int) -> Way:
    """A way that makes a blocking call from each of several threads."""

    def one(seconds: float, counts: list[int]) -> None:
        done = 0
        for _ in until(seconds, None):
            call()
            done += 1
        counts.append(done)

    def run(seconds: float) -> int:
        counts: list[int] = []
        if threads == 1:
            one(seconds, counts)
        else:
            started = [threading.Thread(target=one, args=(seconds, counts)) for _ in range(threads)]
            for thread in started:
                thread.start()
            for thread in started:
                thread.join()
        return sum(counts)

    return run


def tasks(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[None]], in_flight: int) -> Way:
    """A way that awaits a call in each of several tasks of one event loop."""

    async def one(seconds: float) -> int:
        done = 0
        for _ in until(seconds, None):
            await call()
            done += 1
        return done

    async def all_(seconds: float) -> int:
        return sum(await asyncio.gather(*(one(seconds) for _ in range(in_flight))))

    return lambda seconds: loop.run_until_complete(all_(seconds))


def drained(answers: Iterable[Any]) -> int:
    """Checks every answer of an iterator. Returns their number."""
    done = 0
    for answer in answers:
        checked(answer["y"])
        done += 1
    return done


def inferd_sync(address: str, in_flight: int) -> Way:
    from inferd.client import Client

    client = Client(address)
    return blocking(lambda: checked(client.predict(MODEL, INPUTS)["y"]), in_flight)


def inferd_many(address: str, in_flight: int) -> Way:
    from inferd.client import Client

    client = Client(address)
    return lambda seconds: drained(client.predict_many(MODEL, until(seconds, INPUTS), in_flight=in_flight))


def inferd_stream(address: str, in_flight: int) -> Way:
    from inferd.client import Client

    client = Client(address)

    def run(seconds: float) -> int:
        done = 0
        window: list[Any] = []
        with client.stream(in_flight=in_flight) as stream:
            for item in until(seconds, INPUTS):
                window.append(stream.submit(MODEL, item))
                if len(window) == in_flight:
                    checked(window.pop(0).result()["y"])
                    done += 1
            for future in window:
                checked(future.result()["y"])
                done += 1
        return done

    return run


def inferd_shared_stream(address: str, in_flight: int) -> Way:
    """Many threads submit to one stream."""
    from inferd.client import Client

    client = Client(address)
    stream = client.stream(in_flight=2 * in_flight)
    return blocking(lambda: checked(stream.submit(MODEL, INPUTS).result()["y"]), in_flight)


def inferd_aio(address: str, in_flight: int) -> Way:
    from inferd.client import AsyncClient

    loop, client = asyncio.new_event_loop(), AsyncClient(address)

    async def call() -> None:
        checked((await client.predict(MODEL, INPUTS))["y"])

    return tasks(loop, call, in_flight)


def inferd_aio_many(address: str, in_flight: int) -> Way:
    from inferd.client import AsyncClient

    loop, client = asyncio.new_event_loop(), AsyncClient(address)

    async def run(seconds: float) -> int:
        done = 0
        async for answer in client.predict_many(MODEL, until(seconds, INPUTS), in_flight=in_flight):
            checked(answer["y"])
            done += 1
        return done

    return lambda seconds: loop.run_until_complete(run(seconds))


def inferd_aio_stream(address: str, in_flight: int) -> Way:
    """Many tasks submit to one stream."""
    from inferd.client import AsyncClient

    loop, client = asyncio.new_event_loop(), AsyncClient(address)

    async def run(seconds: float) -> int:
        async with client.stream(in_flight=in_flight) as stream:

            async def one() -> int:
                done = 0
                for item in until(seconds, INPUTS):
                    checked((await (await stream.submit(MODEL, item)))["y"])
                    done += 1
                return done

            return sum(await asyncio.gather(*(one() for _ in range(in_flight))))

    return lambda seconds: loop.run_until_complete(run(seconds))


def _triton_input(module: Any) -> list[Any]:
    found = module.InferInput("x", X.shape, "FP32")
    found.set_data_from_numpy(X)
    return [found]


def triton_sync(address: str, in_flight: int) -> Way:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    return blocking(lambda: checked(client.infer(MODEL, _triton_input(triton)).as_numpy("y")), in_flight)


def triton_async(address: str, in_flight: int) -> Way:
    """`async_infer` with a callback, with `in_flight` calls at the same time."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)

    def run(seconds: float) -> int:
        room, done, failed = threading.Semaphore(in_flight), [0], list[object]()

        def finished(result: Any, error: object) -> None:
            if error is None:
                checked(result.as_numpy("y"))
                done[0] += 1
            else:
                failed.append(error)
            room.release()

        for _ in until(seconds, None):
            room.acquire()
            client.async_infer(MODEL, _triton_input(triton), finished)
        for _ in range(in_flight):
            room.acquire()
        if failed:
            raise RuntimeError(f"{len(failed)} calls failed, the first with {failed[0]}")
        return done[0]

    return run


def triton_aio(address: str, in_flight: int) -> Way:
    import tritonclient.grpc.aio as triton

    loop = asyncio.new_event_loop()

    async def opened() -> Any:
        return triton.InferenceServerClient(address)

    client = loop.run_until_complete(opened())

    async def call() -> None:
        checked((await client.infer(MODEL, _triton_input(triton))).as_numpy("y"))

    return tasks(loop, call, in_flight)


def bare_sync(address: str, in_flight: int) -> Way:
    """grpc alone, with a message that was encoded once and answers that are not read: the least that a call costs."""
    from inferd.wire.native import encode_request

    method = grpc.insecure_channel(address).unary_unary("/inferd.v1.PredictService/Predict", _registered_method=True)
    body = encode_request(MODEL, INPUTS)

    def call() -> None:
        method(body)

    return blocking(call, in_flight)


def bare_aio(address: str, in_flight: int) -> Way:
    """The same with grpc.aio."""
    from inferd.wire.native import encode_request

    loop = asyncio.new_event_loop()
    body = encode_request(MODEL, INPUTS)

    async def opened() -> Any:
        return grpc.aio.insecure_channel(address).unary_unary("/inferd.v1.PredictService/Predict")

    method = loop.run_until_complete(opened())

    async def call() -> None:
        await method(body)

    return tasks(loop, call, in_flight)


WAYS = {
    way.__name__: way
    for way in (
        inferd_sync,
        inferd_many,
        inferd_stream,
        inferd_shared_stream,
        inferd_aio,
        inferd_aio_many,
        inferd_aio_stream,
        triton_sync,
        triton_async,
        triton_aio,
        bare_sync,
        bare_aio,
    )
}


def main(mode: str, address: str, in_flight: int) -> None:
    """Runs until the input ends."""
    run = WAYS[mode](address, in_flight)
    run(0.05)
    print("serving", mode, flush=True)
    for line in sys.stdin:
        cpu, began = time.process_time(), time.perf_counter()
        calls = run(float(line))
        print(calls, time.perf_counter() - began, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
