"""Adapters that give the asyncio client the methods of the blocking one, so that the same tests run with both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.client import LONG

from inferd.client import AsyncClient, Client


@dataclass
class OverAsync:
    """An AsyncClient with the methods of Client. Its event loop runs on a thread of its own."""

    def __init__(self, address: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.client = self.run(self._make(address, options))

    @staticmethod
    async def _make(address: Any, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(address, **options)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **options: Any) -> Any:
            return self.run(method(*args, **options))

        return call

    def predict_many(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self._iterate(self.client.predict_many(*args, **options))

    def watch(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self._iterate(self.client.watch(*args, **options))

    def _iterate(self, source: AsyncIterator[Any]) -> Iterator[Any]:
        generator: Any = source
        try:
            while True:
                try:
                    yield self.run(anext(generator))
                except StopAsyncIteration:
                    return
        finally:
            self.run(generator.aclose())

    @contextmanager
    def stream(self, **options: Any) -> Iterator[StreamOverAsync]:
        async def opened() -> Any:
            return self.client.stream(**options)

        stream = self.run(opened())
        try:
            yield StreamOverAsync(self, stream)
        except BaseException:
            self.run(stream.cancel())
            raise
        self.run(stream.close())

    def close(self) -> None:
        if not self._loop.is_closed():
            self.run(self.client.close())

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG)
        self._loop.close()

    def __enter__(self) -> OverAsync:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class StreamOverAsync:
    client: OverAsync
    stream: Any

    def submit(self, *args: Any, **options: Any) -> ResultOverAsync:
        return ResultOverAsync(self.client, self.client.run(self.stream.submit(*args, **options)))


@dataclass
class ResultOverAsync:
    client: OverAsync
    future: Any

    def result(self, timeout: float = LONG) -> Any:
        async def wait() -> Any:
            return await asyncio.wait_for(self.future, timeout)

        return self.client.run(wait())


class OverSync(Client):
    def end(self) -> None:
        self.close()
