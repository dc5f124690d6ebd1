"""Handles: what is held is not closed, what is retired is not given out."""

from __future__ import annotations

import sys
import threading

from support.lifecycle import SteppedManager, fake_servable

from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import State


def test_a_retired_servable_gives_no_handles_and_is_idle_at_once() -> None:
    servable = fake_servable()
    idle: list[Servable] = []
    servable.retire(idle.append)
    assert idle == [servable]
    assert servable.acquire() is None
    assert servable.handles == 0


def test_idle_is_reported_when_the_last_handle_is_released() -> None:
    servable = fake_servable()
    one, two = servable.acquire(), servable.acquire()
    assert one is not None
    assert two is not None
    assert servable.handles == 2
    idle: list[Servable] = []
    servable.retire(idle.append)
    one.release()
    one.release()
    assert idle == []
    two.release()
    assert idle == [servable]


def test_a_handle_is_a_context_manager() -> None:
    servable = fake_servable()
    handle = servable.acquire()
    assert handle is not None
    with handle as inside:
        assert inside is servable
        assert servable.handles == 1
    assert servable.handles == 0


def test_coinciding_releases_close_once(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    handles = [stepped.manager.acquire("m") for _ in range(2)]
    stepped.manager.unload("m", by="me")
    stepped.run()
    for handle in handles:
        handle.release()
    # A request with an old look at the map tries, fails, and so finds it idle once more.
    assert handles[0].servable.acquire() is None
    stepped.run()
    assert stepped.loader.unloads == [("m", 1, 1)]


def test_a_version_whose_closing_fails_still_ends(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    unload = stepped.loader.unload

    def fails(servable: Servable) -> None:
        unload(servable)
        raise RuntimeError("the framework's last word")

    stepped.loader.unload = fails  # type: ignore[method-assign]
    gone = stepped.manager.unload("m", by="me")
    stepped.run()
    assert gone.result(timeout=0).versions[0].state is State.END
    stepped.loader.unload = unload  # type: ignore[method-assign]
    stepped.manager.load("m", by="me")
    stepped.see()
    assert list(stepped.serves()) == [1]


def test_threads_never_lose_count() -> None:
    servable = fake_servable()
    idle = threading.Event()
    refused = threading.Barrier(9)
    retired = threading.Event()
    late: list[object] = []

    def hammer() -> None:
        while not retired.is_set():
            handle = servable.acquire()
            if handle is not None:
                handle.release()
        late.append(servable.acquire())
        refused.wait()

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    servable.retire(lambda _: idle.set())
    retired.set()
    refused.wait()
    for thread in threads:
        thread.join()
    assert late == [None] * 8
    assert idle.wait(10)
    assert servable.handles == 0


def test_acquire_under_swaps_never_gives_what_is_closed(stepped: SteppedManager) -> None:
    """Readers on threads, swaps on this one: every handle that a reader holds is of a servable that is open."""
    stepped.write("m/1/model", "0")
    stepped.see()
    stop = threading.Event()
    wrong: list[str] = []
    count = [0] * 4

    def read(number: int) -> None:
        while not stop.is_set():
            try:
                handle = stepped.manager.acquire("m")
            except Exception as error:
                wrong.append(f"refused: {error}")
                return
            if handle.servable.scheduler.closed:  # type: ignore[attr-defined]
                wrong.append(f"closed: {handle.servable}")
            count[number] += 1
            handle.release()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # they take turns five hundred times as often as usual
    try:
        for thread in threads:
            thread.start()
        for turn in range(1, 40):
            stepped.write("m/1/model", str(turn))
            stepped.settle()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    stepped.run()
    assert wrong == []
    assert all(count)
    assert len(stepped.loader.unloads) == 39
    assert stepped.serves() == {1: "39"}
