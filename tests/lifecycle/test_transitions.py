"""Versions come and go: what serves meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from support.lifecycle import House

from inferd.server.errors import Conflict, NotFound, Unavailable
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.state import State

S, L, A, U, E = State.START, State.LOADING, State.AVAILABLE, State.UNLOADING, State.END


def test_the_states_of_a_version_that_goes_live(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    assert house.serves() == {1: "one"}
    assert house.story() == [(1, S), (1, L), (1, A)]
    assert house.version(1).backend == "fake"


def test_a_state_is_announced_when_it_is_true(house: House) -> None:
    seen: list[tuple[State, bool]] = []

    def look(change: object) -> None:
        state = house.changes[-1].status.state
        try:
            house.manager.acquire("m", 1).release()
            seen.append((state, True))
        except (Unavailable, NotFound):
            seen.append((state, False))

    house.manager.subscribe(look)
    house.write("m/1/model")
    house.see()
    house.manager.unload("m", by="me")
    house.run()
    assert seen == [(S, False), (L, False), (A, True), (U, True), (E, False)]


def test_the_new_version_serves_before_the_old_one_goes(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "two")
    serving: list[int] = []
    house.loader.on_load = lambda request: serving.append(house.default())
    house.settle()
    assert serving == [1]
    assert house.serves() == {2: "two"}
    assert house.story()[3:] == [(2, S), (2, L), (2, A), (1, U), (1, E)]
    assert house.loader.unloads == [("m", 1, 1)]


def test_the_old_one_drains_before_it_is_closed(house: House) -> None:
    house.write("m/1/model")
    house.see()
    handle = house.manager.acquire("m")
    house.write("m/2/model")
    house.settle()
    assert house.version(1).state is U
    assert house.loader.unloads == []
    assert "finishes 1 request" in " ".join(house.version(1).notes)
    handle.release()
    handle.release()
    house.run()
    assert house.loader.unloads == [("m", 1, 1)]
    assert house.version(1).state is E


def test_a_fresh_version_waits_until_it_has_settled(house: House) -> None:
    house.write("m/1/model")
    house.see()
    house.write("m/2/model", "half")
    house.see()
    house.clock.advance(1.9)
    house.see()
    assert house.default() == 1
    assert "still changing" in " ".join(house.version(2).notes)
    with pytest.raises(Unavailable, match="still changing"):
        house.manager.acquire("m", 2)
    house.write("m/2/model", "whole now")
    house.see()
    house.clock.advance(1.9)
    house.see()
    assert house.default() == 1
    house.clock.advance(0.1)
    house.see()
    assert house.serves() == {2: "whole now"}
    assert [text for _, _, text in house.loader.loads] == ["good", "whole now"]


def test_a_broken_version_takes_no_traffic_and_is_retried_without_end(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "bad: no magic number")
    house.settle()
    assert house.serves() == {1: "one"}
    status = house.version(2)
    assert (status.state, status.error) == (S, "bad: no magic number")
    assert "next try at" in " ".join(status.notes)
    with pytest.raises(Conflict, match="version 2 of model 'm' failed to load: bad: no magic number"):
        house.manager.acquire("m", 2)
    waits = []
    tries = len(house.loader.loads)
    for _ in range(9):
        wait = house.manager.turn()
        assert wait is not None
        waits.append(round(wait))
        house.later(wait - 0.001)
        assert len(house.loader.loads) == tries, "tried too early"
        house.later(0.002)
        assert len(house.loader.loads) == tries + 1
        tries += 1
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert house.serves() == {1: "one"}


def test_a_repaired_version_is_tried_at_once(house: House) -> None:
    house.write("m/1/model", "bad: a")
    house.see()
    for _ in range(6):
        house.later(60)
    house.write("m/1/model", "bad: b")
    house.settle()
    assert house.version(1).error == "bad: b"
    assert "failed once" in " ".join(house.version(1).notes), "other content has not been tried before"
    house.write("m/1/model", "good")
    house.settle()
    assert house.serves() == {1: "good"}
    assert house.version(1).error == ""


def test_a_broken_newest_version_does_not_keep_the_next_one_from_serving_after_a_restart(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.write("m/3/model", "bad")
    house.see()
    assert house.serves() == {2: "two"}
    house.write("m/3/model", "three")
    house.settle()
    assert house.serves() == {3: "three"}


def test_a_deleted_version_is_replaced_without_a_gap(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    shutil.rmtree(house.root / "m/2")
    during: list[dict[int, str]] = []
    house.loader.on_load = lambda request: during.append(house.serves())
    house.settle()
    assert during == [{2: "two"}]
    assert house.serves() == {1: "one"}
    assert house.version(2).state is E


def test_a_deleted_version_serves_on_while_its_successor_is_still_being_written(house: House) -> None:
    """Deleted too early, with nothing else to answer: there is no gap, and it goes when the other one serves."""
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "two")
    shutil.rmtree(house.root / "m/1")
    house.see()
    assert house.serves() == {1: "one"}
    serving: list[int] = []
    house.loader.on_load = lambda request: serving.append(house.default())
    house.settle()
    assert serving == [1]
    assert house.serves() == {2: "two"}


def test_a_deleted_model_is_unloaded_and_remembered(house: House) -> None:
    house.write("m/1/model")
    house.write("other/1/model")
    house.see()
    shutil.rmtree(house.root / "m")
    house.see()
    assert house.serves() == {1: "good"}, "gone for a moment is not gone"
    house.settle()
    with pytest.raises(NotFound, match="model 'm' has no version in service"):
        house.manager.acquire("m")
    assert [(v.id.version, v.state) for v in house.status().versions] == [(1, E)]
    house.write("m/1/model", "back")
    house.settle()
    assert house.serves() == {1: "back"}


def test_history_keeps_the_last_sixteen(house: House) -> None:
    for number in range(1, 21):
        house.write(f"m/{number}/model")
        house.settle()
        shutil.rmtree(house.root / f"m/{number - 1}", ignore_errors=True)
    house.settle()
    numbers = [version.id.version for version in house.status().versions]
    assert numbers == list(range(20, 3, -1))
    assert {version.notes for version in house.status().versions[1:]} == {("removed from disk",)}


def test_latest_n_all_and_specific(make_house: Callable[..., House]) -> None:
    house = make_house()
    for number in (1, 2, 3, 10):
        house.write(f"a/{number}/model", str(number))
        house.write(f"b/{number}/model", str(number))
        house.write(f"c/{number}/model", str(number))
    house.write("a/model.yaml", "version_policy: {latest: 2}")
    house.write("b/model.yaml", "version_policy: {all: true}")
    house.write("c/model.yaml", "version_policy: {specific: [2, 7]}")
    house.see()
    assert set(house.serves("a")) == {10, 3}
    assert set(house.serves("b")) == {1, 2, 3, 10}
    assert set(house.serves("c")) == {2}
    assert house.status("c").version_policy == "specific(2, 7)"
    with pytest.raises(NotFound, match="on disk, not served: version policy specific"):
        house.manager.acquire("c", 3)
    house.write("a/model.yaml", "version_policy: {latest: 1}")
    house.settle()
    assert set(house.serves("a")) == {10}
    assert len([load for load in house.loader.loads if load[0] == "a"]) == 2, "a policy is no reason to reload"


def test_resource_preserving_unloads_first(house: House) -> None:
    house.write("m/model.yaml", "transition: resource")
    house.write("m/1/model", "one")
    house.see()
    handle = house.manager.acquire("m")
    house.write("m/2/model", "two")
    house.settle()
    assert len(house.loader.loads) == 1, "the old one still holds its memory"
    with pytest.raises(Unavailable):
        house.manager.acquire("m")
    handle.release()
    house.run()
    assert house.serves() == {2: "two"}
    assert house.story()[3:] == [(2, S), (1, U), (1, E), (2, L), (2, A)]


def test_resource_preserving_reloads_a_version_after_its_end(house: House) -> None:
    house.write("m/model.yaml", "transition: resource")
    house.write("m/1/model", "one")
    house.see()
    house.write("m/1/model", "one, changed")
    house.settle()
    assert house.serves() == {1: "one, changed"}
    assert house.story()[2:] == [(1, A), (1, U), (1, E), (1, S), (1, L), (1, A)]


def test_a_version_no_longer_wanted_while_it_loads_is_dropped(house: House) -> None:
    house.write("m/1/model", "one")
    house.pool.held.add("m")
    house.see()
    house.manager.unload("m", by="me")
    house.run()
    house.pool.held.clear()
    house.run()
    assert house.serves() == {}
    assert house.version(1).state is E
    assert house.loader.texts == {}


def test_a_hanging_load_does_not_stop_other_models(house: House) -> None:
    house.write("a/1/model")
    house.see()
    house.pool.held.add("hanging")
    house.write("hanging/1/model")
    house.write("a/2/model", "two")
    house.settle()
    assert house.serves("a") == {2: "two"}
    with pytest.raises(Unavailable, match="version 1 of model 'hanging' is loading"):
        house.manager.acquire("hanging")
    for _ in range(5):
        house.settle()
    assert len(house.pool.urgent) == 1, "a version that hangs takes one thread, not all"


def test_a_version_that_is_wanted_again_before_its_load_has_ended_is_loaded_once(house: House) -> None:
    house.write("m/1/model", "one")
    house.pool.held.add("m")
    house.see()
    house.manager.unload("m", by="me")
    house.run()
    house.manager.load("m", by="me")
    house.see()
    house.pool.held.clear()
    house.run()
    assert house.serves() == {1: "one"}
    assert len(house.loader.loads) == 1


def test_an_error_at_one_model_leaves_the_others_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = house.manager._overrides
    of, broken = overrides.of, {"m"}

    def wishes(name: str) -> ModelOverrides:
        if name in broken:
            raise MemoryError("none left")
        return of(name)

    monkeypatch.setattr(overrides, "of", wishes)
    for name in ("before", "m", "then"):
        house.write(f"{name}/1/model", name)
    house.scan()
    wait = house.manager.turn()
    house.run()
    assert (house.serves("before"), house.serves("then")) == ({1: "before"}, {1: "then"})
    assert wait == house.config.load.retry_min, "nobody needs to touch it for that"
    said = [record for record in caplog.records if record.getMessage().startswith("the manager failed at a model")]
    assert {record.exc_info[0] for record in said if record.exc_info} == {MemoryError}
    house.later(wait)
    later = house.manager.turn()
    assert later == 2 * wait, "ever more seldom"
    broken.clear()
    house.later(later)
    assert house.serves() == {1: "m"}
    assert house.manager.turn() is None
