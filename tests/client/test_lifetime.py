"""Closing, forking, event loops: a client that cannot be used raises ClientClosed."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError

import grpc
import pytest
from support.client import LONG, Failure, FakeServer, Script, rows

from inferd.client import AsyncClient, Client, ClientClosed, RetryPolicy


def test_every_method_of_a_closed_client_raises_client_closed(client):
    client.predict("m", {"x": rows()})
    client.close()
    client.close()
    for call in (
        lambda: client.predict("m", {"x": rows()}),
        lambda: client.as_arrays("m", [1]),
        client.list_models,
        lambda: client.load("m"),
        client.ready,
        lambda: client.wait_ready(1.0),
    ):
        with pytest.raises(ClientClosed, match="closed"):
            call()


def test_closing_ends_calls_in_flight(client, script: Script):
    arrived = threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        script.cancelled.wait(LONG)

    script.hold = hold
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.predict("m", {"x": rows()}, timeout=LONG)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert arrived.wait(LONG)
    client.close()
    thread.join(LONG)
    assert isinstance(caught[0], ClientClosed)
    assert script.cancelled.wait(LONG)


def test_a_with_block_closes(server: FakeServer):
    with Client(server.address) as client:
        client.predict("m", {"x": rows()})
    with pytest.raises(ClientClosed):
        client.submit("m", {"x": rows()})
    with pytest.raises(ClientClosed), client:
        pass


def test_one_client_serves_many_threads(server: FakeServer):
    wrong: list[int] = []
    with Client(server.address) as client:

        def call(number: int) -> None:
            for i in range(30):
                value = rows() + number * 100 + i
                if not (client.predict("m", {"x": value})["y"] == value).all():
                    wrong.append(number)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert wrong == []


def test_a_submitted_request_can_be_cancelled_on_the_server(server: FakeServer):
    script = server.script
    arrived = threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        script.cancelled.wait(LONG)

    script.hold = hold
    with Client(server.address) as client:
        future = client.submit("m", {"x": rows()})
        assert arrived.wait(LONG)
        assert future.cancel()
        assert script.cancelled.wait(LONG)
        with pytest.raises(CancelledError):
            future.result(LONG)


def test_a_submitted_request_can_be_cancelled_twice(server: FakeServer, caplog):
    server.script.hold = lambda request: server.script.cancelled.wait(LONG) and None
    with Client(server.address) as client:
        future = client.submit("m", {"x": rows()})
        assert (future.cancel(), future.cancel()) == (True, True)
    assert caplog.messages == []


def test_a_request_that_is_cancelled_between_two_attempts_is_not_sent_again(server: FakeServer):
    script = server.script
    asked = threading.Event()
    go_on = threading.Event()

    def token() -> str:
        if script.requests:  # the second attempt
            asked.set()
            go_on.wait(LONG)
        return "t"

    script.refuse = lambda request: Failure(grpc.StatusCode.UNAVAILABLE, "gone", (("inferd-accepted", "0"),))
    arrived = threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        script.cancelled.wait(LONG)

    with Client(server.address, token=token, retry=RetryPolicy(backoff=0.0)) as client:
        future = client.submit("m", {"x": rows()})
        assert asked.wait(LONG)
        script.refuse = lambda request: None
        script.hold = hold
        go_on.set()
        assert arrived.wait(LONG)
        script.cancelled.clear()
        assert future.cancel()
        assert script.cancelled.wait(LONG)


def test_closing_ends_submitted_requests(server: FakeServer):
    script = server.script
    arrived = threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        script.cancelled.wait(LONG)

    script.hold = hold
    client = Client(server.address)
    future = client.submit("m", {"x": rows()})
    assert arrived.wait(LONG)
    client.close()
    with pytest.raises(ClientClosed):
        future.result(LONG)


def test_cancelling_a_task_cancels_the_request_on_the_server(server: FakeServer):
    script = server.script
    arrived = threading.Event()

    def hold(request: object) -> None:
        arrived.set()
        script.cancelled.wait(LONG)

    script.hold = hold

    async def main() -> None:
        async with AsyncClient(server.address) as client:
            task = asyncio.create_task(client.predict("m", {"x": rows()}))
            await asyncio.to_thread(arrived.wait, LONG)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(script.cancelled.wait, LONG)

    asyncio.run(main())


def test_a_client_raises_client_closed_in_a_forked_process(server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    client = Client(server.address)
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    with pytest.raises(ClientClosed, match="does not survive a fork"):
        client.predict("m", {"x": rows()})
    monkeypatch.undo()
    assert client.predict("m", {"x": rows()}).version == 3
    client.close()


def test_an_async_client_belongs_to_one_event_loop(server: FakeServer):
    client = AsyncClient(server.address)

    async def use() -> None:
        await client.predict("m", {"x": rows()})

    async def use_and_close() -> None:
        await use()
        with pytest.raises(ClientClosed, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use())
        await client.close()

    asyncio.run(use_and_close())
