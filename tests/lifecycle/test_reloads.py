"""Files of a version that change while it serves: what is loaded again, and what serves meanwhile."""

from __future__ import annotations

import os

from support.lifecycle import SteppedManager

from inferd.server.lifecycle.state import State

S, L, A = State.START, State.LOADING, State.AVAILABLE


def test_replacing_files_in_place_reloads_beside_the_old_generation(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "old")
    stepped.see()
    handle = stepped.manager.acquire("m", 1)
    stepped.write("m/1/model", "new")
    during: list[dict[int, str]] = []
    stepped.loader.on_load = lambda request: during.append(stepped.serves())
    stepped.settle()
    assert during == [{1: "old"}]
    assert stepped.serves() == {1: "new"}
    assert stepped.version(1).generation == 2
    assert stepped.loader.unloads == []
    assert stepped.loader.texts[handle.servable.generation] == "old"
    handle.release()
    stepped.run()
    assert stepped.loader.unloads == [("m", 1, 1)]
    assert stepped.story() == [(1, S), (1, L), (1, A), (1, A)], "for others the version was available all the time"
    assert stepped.version(1).state is A


def test_bad_content_in_place_keeps_the_old_generation(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "old")
    stepped.see()
    stepped.write("m/1/model", "bad: truncated")
    stepped.settle()
    status = stepped.version(1)
    assert (status.state, status.generation) == (A, 1)
    assert status.error == "files on disk differ: bad: truncated"
    assert stepped.serves() == {1: "old"}
    stepped.later(1.0)
    assert len(stepped.loader.loads) == 3, "tried again with backoff"
    stepped.write("m/1/model", "new")
    stepped.settle()
    assert stepped.serves() == {1: "new"}
    assert stepped.version(1).error == ""


def test_restoring_the_old_content_needs_no_reload(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "old")
    stepped.see()
    stepped.write("m/1/model", "bad")
    stepped.settle()
    loads = len(stepped.loader.loads)
    stepped.write("m/1/model", "old")
    stepped.settle()
    assert len(stepped.loader.loads) == loads
    assert stepped.version(1).error == ""
    assert stepped.version(1).generation == 1
    stepped.later(120)
    assert len(stepped.loader.loads) == loads, "nothing is left to try"


def test_touch_does_not_reload(stepped: SteppedManager) -> None:
    file = stepped.write("m/1/model", "same")
    stepped.see()
    os.utime(file, (1, 1))
    stepped.settle()
    assert len(stepped.loader.loads) == 1
    # The same bytes under another inode, as git-sync and rsync leave them.
    twin = stepped.write("m/1/.twin", "same")
    os.replace(twin, file)
    stepped.settle()
    assert len(stepped.loader.loads) == 1
    stepped.write("m/1/model", "else")
    stepped.settle()
    assert len(stepped.loader.loads) == 2


def test_a_change_before_the_first_hash_is_known_reloads(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "old")
    stepped.pool.later.append(("m", lambda: None))
    stepped.scan()
    stepped.manager.turn()
    stepped.pool.urgent.pop(0)[1]()
    stepped.manager.turn()
    stepped.pool.later.clear()  # the hash never comes
    stepped.write("m/1/model", "new")
    stepped.settle()
    assert stepped.serves() == {1: "new"}


def test_files_that_change_under_a_running_load_are_loaded_again(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "first")
    stepped.pool.held.add("m")
    stepped.see()
    stepped.write("m/1/model", "second")
    stepped.settle()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.serves() == {1: "second"}
    assert stepped.version(1).state is A


def test_content_that_changes_while_it_loads_never_serves(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "first")

    def overtake(request: object) -> None:
        stepped.loader.on_load = lambda request: None
        stepped.write("m/1/model", "second")
        for _ in range(2):
            stepped.scan()
            stepped.manager.turn()
            stepped.clock.advance(2)

    stepped.loader.on_load = overtake
    stepped.see()
    stepped.settle()
    assert list(stepped.loader.texts.values()) == ["second"]
    assert stepped.story() == [(1, S), (1, L), (1, S), (1, L), (1, A)]


def test_a_failed_reload_of_files_that_change_again_does_not_keep_the_manager_busy(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "old")
    stepped.see()
    stepped.write("m/1/model", "bad")
    stepped.settle()
    stepped.write("m/1/model.part")
    stepped.settle()
    stepped.later(300)
    assert stepped.manager.turn() is None, "nothing is due while the files are held back"
    assert stepped.serves() == {1: "old"}


def test_resource_preserving_in_place(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "transition: resource")
    stepped.write("m/1/model", "old")
    stepped.see()
    stepped.write("m/1/model", "new")
    counts: list[int] = []
    stepped.loader.on_load = lambda request: counts.append(len(stepped.loader.unloads))
    stepped.settle()
    assert counts == [1]
    assert stepped.serves() == {1: "new"}
