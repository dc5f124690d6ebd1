"""Files of a version that change while it serves: what is loaded again, and what serves meanwhile."""

from __future__ import annotations

import os

from support.lifecycle import House

from inferd.server.lifecycle.state import State

S, L, A = State.START, State.LOADING, State.AVAILABLE


def test_replacing_files_in_place_reloads_beside_the_old_generation(house: House) -> None:
    house.write("m/1/model", "old")
    house.see()
    handle = house.manager.acquire("m", 1)
    house.write("m/1/model", "new")
    during: list[dict[int, str]] = []
    house.loader.on_load = lambda request: during.append(house.serves())
    house.settle()
    assert during == [{1: "old"}]
    assert house.serves() == {1: "new"}
    assert house.version(1).generation == 2
    assert house.loader.unloads == []
    assert house.loader.texts[handle.servable.generation] == "old"
    handle.release()
    house.run()
    assert house.loader.unloads == [("m", 1, 1)]
    assert house.story() == [(1, S), (1, L), (1, A), (1, A)], "for others the version was available all the time"
    assert house.version(1).state is A


def test_bad_content_in_place_keeps_the_old_generation(house: House) -> None:
    house.write("m/1/model", "old")
    house.see()
    house.write("m/1/model", "bad: truncated")
    house.settle()
    status = house.version(1)
    assert (status.state, status.generation) == (A, 1)
    assert status.error == "files on disk differ: bad: truncated"
    assert house.serves() == {1: "old"}
    house.later(1.0)
    assert len(house.loader.loads) == 3, "tried again with backoff"
    house.write("m/1/model", "new")
    house.settle()
    assert house.serves() == {1: "new"}
    assert house.version(1).error == ""


def test_restoring_the_old_content_needs_no_reload(house: House) -> None:
    house.write("m/1/model", "old")
    house.see()
    house.write("m/1/model", "bad")
    house.settle()
    loads = len(house.loader.loads)
    house.write("m/1/model", "old")
    house.settle()
    assert len(house.loader.loads) == loads
    assert house.version(1).error == ""
    assert house.version(1).generation == 1
    house.later(120)
    assert len(house.loader.loads) == loads, "nothing is left to try"


def test_touch_does_not_reload(house: House) -> None:
    file = house.write("m/1/model", "same")
    house.see()
    os.utime(file, (1, 1))
    house.settle()
    assert len(house.loader.loads) == 1
    # The same bytes under another inode, as git-sync and rsync leave them.
    twin = house.write("m/1/.twin", "same")
    os.replace(twin, file)
    house.settle()
    assert len(house.loader.loads) == 1
    house.write("m/1/model", "else")
    house.settle()
    assert len(house.loader.loads) == 2


def test_a_change_before_the_first_hash_is_known_reloads(house: House) -> None:
    house.write("m/1/model", "old")
    house.pool.later.append(("m", lambda: None))
    house.scan()
    house.manager.turn()
    house.pool.urgent.pop(0)[1]()
    house.manager.turn()
    house.pool.later.clear()  # the hash never comes
    house.write("m/1/model", "new")
    house.settle()
    assert house.serves() == {1: "new"}


def test_files_that_change_under_a_running_load_are_loaded_again(house: House) -> None:
    house.write("m/1/model", "first")
    house.pool.held.add("m")
    house.see()
    house.write("m/1/model", "second")
    house.settle()
    house.pool.held.clear()
    house.run()
    assert house.serves() == {1: "second"}
    assert house.version(1).state is A


def test_content_that_changes_while_it_loads_never_serves(house: House) -> None:
    house.write("m/1/model", "first")

    def overtake(request: object) -> None:
        house.loader.on_load = lambda request: None
        house.write("m/1/model", "second")
        for _ in range(2):
            house.scan()
            house.manager.turn()
            house.clock.advance(2)

    house.loader.on_load = overtake
    house.see()
    house.settle()
    assert list(house.loader.texts.values()) == ["second"]
    assert house.story() == [(1, S), (1, L), (1, S), (1, L), (1, A)]


def test_a_failed_reload_of_files_that_change_again_does_not_keep_the_manager_busy(house: House) -> None:
    house.write("m/1/model", "old")
    house.see()
    house.write("m/1/model", "bad")
    house.settle()
    house.write("m/1/model.part")
    house.settle()
    house.later(300)
    assert house.manager.turn() is None, "nothing is due while the files are held back"
    assert house.serves() == {1: "old"}


def test_resource_preserving_in_place(house: House) -> None:
    house.write("m/model.yaml", "transition: resource")
    house.write("m/1/model", "old")
    house.see()
    house.write("m/1/model", "new")
    counts: list[int] = []
    house.loader.on_load = lambda request: counts.append(len(house.loader.unloads))
    house.settle()
    assert counts == [1]
    assert house.serves() == {1: "new"}
