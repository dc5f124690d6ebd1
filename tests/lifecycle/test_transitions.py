"""Versions come and go: what serves meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Conflict, NotFound, Unavailable
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.state import State

S, L, A, U, E = State.START, State.LOADING, State.AVAILABLE, State.UNLOADING, State.END


def test_the_states_of_a_version_that_goes_live(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    assert stepped.serves() == {1: "one"}
    assert stepped.story() == [(1, S), (1, L), (1, A)]
    assert stepped.version(1).backend == "fake"


def test_a_state_is_announced_when_it_is_true(stepped: SteppedManager) -> None:
    seen: list[tuple[State, bool]] = []

    def look(change: object) -> None:
        state = stepped.changes[-1].status.state
        try:
            stepped.manager.acquire("m", 1).release()
            seen.append((state, True))
        except (Unavailable, NotFound):
            seen.append((state, False))

    stepped.manager.subscribe(look)
    stepped.write("m/1/model")
    stepped.see()
    stepped.manager.unload("m", by="me")
    stepped.run()
    assert seen == [(S, False), (L, False), (A, True), (U, True), (E, False)]


def test_the_new_version_serves_before_the_old_one_goes(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "two")
    serving: list[int] = []
    stepped.loader.on_load = lambda request: serving.append(stepped.default())
    stepped.settle()
    assert serving == [1]
    assert stepped.serves() == {2: "two"}
    assert stepped.story()[3:] == [(2, S), (2, L), (2, A), (1, U), (1, E)]
    assert stepped.loader.unloads == [("m", 1, 1)]


def test_the_old_one_drains_before_it_is_closed(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    handle = stepped.manager.acquire("m")
    stepped.write("m/2/model")
    stepped.settle()
    assert stepped.version(1).state is U
    assert stepped.loader.unloads == []
    assert "finishes 1 request" in " ".join(stepped.version(1).notes)
    handle.release()
    handle.release()
    stepped.run()
    assert stepped.loader.unloads == [("m", 1, 1)]
    assert stepped.version(1).state is E


def test_a_fresh_version_waits_until_it_has_settled(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    stepped.write("m/2/model", "half")
    stepped.see()
    stepped.clock.advance(1.9)
    stepped.see()
    assert stepped.default() == 1
    assert "still changing" in " ".join(stepped.version(2).notes)
    with pytest.raises(Unavailable, match="still changing"):
        stepped.manager.acquire("m", 2)
    stepped.write("m/2/model", "whole now")
    stepped.see()
    stepped.clock.advance(1.9)
    stepped.see()
    assert stepped.default() == 1
    stepped.clock.advance(0.1)
    stepped.see()
    assert stepped.serves() == {2: "whole now"}
    assert [text for _, _, text in stepped.loader.loads] == ["good", "whole now"]


def test_a_broken_version_takes_no_traffic_and_is_retried_without_end(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "bad: no magic number")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    status = stepped.version(2)
    assert (status.state, status.error) == (State.FAILED, "bad: no magic number")
    assert "next try at" in " ".join(status.notes)
    with pytest.raises(Conflict, match="version 2 of model 'm' failed to load: bad: no magic number"):
        stepped.manager.acquire("m", 2)
    waits = []
    tries = len(stepped.loader.loads)
    for _ in range(9):
        wait = stepped.manager.turn()
        assert wait is not None
        waits.append(round(wait))
        stepped.later(wait - 0.001)
        assert len(stepped.loader.loads) == tries, "tried too early"
        stepped.later(0.002)
        assert len(stepped.loader.loads) == tries + 1
        tries += 1
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert stepped.serves() == {1: "one"}


def test_after_an_unload_no_next_try_is_promised(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "bad file")
    stepped.see()
    assert "next try at" in str(stepped.version(1).notes)
    stepped.do(stepped.manager.unload("m", by="me"))
    status = stepped.version(1)
    assert (status.state, status.error) == (E, "bad file")
    assert "next try" not in str(status.notes)
    loads = len(stepped.loader.loads)
    stepped.later(100)
    assert len(stepped.loader.loads) == loads


def test_a_version_that_cannot_be_read_has_failed_until_it_is_mended(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("m/01/model")
    stepped.see()
    failed = stepped.version(1)
    assert failed.state is State.FAILED
    assert failed.error.startswith("version 1 has 2 directories: 01, 1")
    assert stepped.story() == [(1, State.FAILED)]
    shutil.rmtree(stepped.root / "m/01")
    stepped.settle()
    assert stepped.story() == [(1, State.FAILED), (1, L), (1, A)]


def test_an_older_version_that_cannot_be_read_and_is_not_wanted_has_not_failed(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("m/01/model")
    stepped.write("m/2/model")
    stepped.see()
    assert stepped.story() == [(2, S), (2, L), (2, A)]


def test_a_repaired_version_is_tried_at_once(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "bad: a")
    stepped.see()
    for _ in range(6):
        stepped.later(60)
    stepped.write("m/1/model", "bad: b")
    stepped.settle()
    assert stepped.version(1).error == "bad: b"
    assert "failed once" in " ".join(stepped.version(1).notes), "other content has not been tried before"
    stepped.write("m/1/model", "good")
    stepped.settle()
    assert stepped.serves() == {1: "good"}
    assert stepped.version(1).error == ""


def test_a_broken_newest_version_does_not_keep_the_next_one_from_serving_after_a_restart(
    stepped: SteppedManager,
) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.write("m/3/model", "bad")
    stepped.see()
    assert stepped.serves() == {2: "two"}
    stepped.write("m/3/model", "three")
    stepped.settle()
    assert stepped.serves() == {3: "three"}


def test_a_deleted_version_is_replaced_without_a_gap(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    shutil.rmtree(stepped.root / "m/2")
    during: list[dict[int, str]] = []
    stepped.loader.on_load = lambda request: during.append(stepped.serves())
    stepped.settle()
    assert during == [{2: "two"}]
    assert stepped.serves() == {1: "one"}
    assert stepped.version(2).state is E


def test_a_deleted_version_serves_on_while_its_successor_is_still_being_written(stepped: SteppedManager) -> None:
    """Deleted too early, with nothing else to answer: there is no gap, and it goes when the other one serves."""
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "two")
    shutil.rmtree(stepped.root / "m/1")
    stepped.see()
    assert stepped.serves() == {1: "one"}
    serving: list[int] = []
    stepped.loader.on_load = lambda request: serving.append(stepped.default())
    stepped.settle()
    assert serving == [1]
    assert stepped.serves() == {2: "two"}


def test_a_deleted_model_is_unloaded_and_remembered(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("other/1/model")
    stepped.see()
    shutil.rmtree(stepped.root / "m")
    stepped.see()
    assert stepped.serves() == {1: "good"}, "gone for a moment is not gone"
    stepped.settle()
    with pytest.raises(NotFound, match="model 'm' has no version in service"):
        stepped.manager.acquire("m")
    assert [(v.id.version, v.state) for v in stepped.status().versions] == [(1, E)]
    stepped.write("m/1/model", "back")
    stepped.settle()
    assert stepped.serves() == {1: "back"}


def test_history_keeps_the_last_sixteen(stepped: SteppedManager) -> None:
    for number in range(1, 21):
        stepped.write(f"m/{number}/model")
        stepped.settle()
        shutil.rmtree(stepped.root / f"m/{number - 1}", ignore_errors=True)
    stepped.settle()
    numbers = [version.id.version for version in stepped.status().versions]
    assert numbers == list(range(20, 3, -1))
    assert {version.notes for version in stepped.status().versions[1:]} == {("removed from disk",)}


def test_latest_n_all_and_specific(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped()
    for number in (1, 2, 3, 10):
        stepped.write(f"a/{number}/model", str(number))
        stepped.write(f"b/{number}/model", str(number))
        stepped.write(f"c/{number}/model", str(number))
    stepped.write("a/model.yaml", "version_policy: {latest: 2}")
    stepped.write("b/model.yaml", "version_policy: {all: true}")
    stepped.write("c/model.yaml", "version_policy: {specific: [2, 7]}")
    stepped.see()
    assert set(stepped.serves("a")) == {10, 3}
    assert set(stepped.serves("b")) == {1, 2, 3, 10}
    assert set(stepped.serves("c")) == {2}
    assert stepped.status("c").version_policy == "specific(2, 7)"
    with pytest.raises(NotFound, match="on disk, not served: version policy specific"):
        stepped.manager.acquire("c", 3)
    stepped.write("a/model.yaml", "version_policy: {latest: 1}")
    stepped.settle()
    assert set(stepped.serves("a")) == {10}
    assert len([load for load in stepped.loader.loads if load[0] == "a"]) == 2, "a policy is no reason to reload"


def test_resource_preserving_unloads_first(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "transition: resource")
    stepped.write("m/1/model", "one")
    stepped.see()
    handle = stepped.manager.acquire("m")
    stepped.write("m/2/model", "two")
    stepped.settle()
    assert len(stepped.loader.loads) == 1, "the old one still holds its memory"
    with pytest.raises(Unavailable):
        stepped.manager.acquire("m")
    handle.release()
    stepped.run()
    assert stepped.serves() == {2: "two"}
    assert stepped.story()[3:] == [(2, S), (1, U), (1, E), (2, L), (2, A)]


def test_resource_preserving_reloads_a_version_after_its_end(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "transition: resource")
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/1/model", "one, changed")
    stepped.settle()
    assert stepped.serves() == {1: "one, changed"}
    assert stepped.story()[2:] == [(1, A), (1, U), (1, E), (1, S), (1, L), (1, A)]


def test_a_version_no_longer_wanted_while_it_loads_is_dropped(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.pool.held.add("m")
    stepped.see()
    stepped.manager.unload("m", by="me")
    stepped.run()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.serves() == {}
    assert stepped.version(1).state is E
    assert stepped.loader.texts == {}


def test_a_hanging_load_does_not_stop_other_models(stepped: SteppedManager) -> None:
    stepped.write("a/1/model")
    stepped.see()
    stepped.pool.held.add("hanging")
    stepped.write("hanging/1/model")
    stepped.write("a/2/model", "two")
    stepped.settle()
    assert stepped.serves("a") == {2: "two"}
    with pytest.raises(Unavailable, match="version 1 of model 'hanging' is loading"):
        stepped.manager.acquire("hanging")
    for _ in range(5):
        stepped.settle()
    assert len(stepped.pool.urgent) == 1, "a version that hangs takes one thread, not all"


def test_a_version_that_is_wanted_again_before_its_load_has_ended_is_loaded_once(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.pool.held.add("m")
    stepped.see()
    stepped.manager.unload("m", by="me")
    stepped.run()
    stepped.manager.load("m", by="me")
    stepped.see()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.serves() == {1: "one"}
    assert len(stepped.loader.loads) == 1


def test_an_error_at_one_model_leaves_the_others_alone(
    stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = stepped.manager._overrides
    of, broken = overrides.of, {"m"}

    def wishes(name: str) -> ModelOverrides:
        if name in broken:
            raise MemoryError("none left")
        return of(name)

    monkeypatch.setattr(overrides, "of", wishes)
    for name in ("before", "m", "then"):
        stepped.write(f"{name}/1/model", name)
    stepped.scan()
    wait = stepped.manager.turn()
    stepped.run()
    assert (stepped.serves("before"), stepped.serves("then")) == ({1: "before"}, {1: "then"})
    assert wait == stepped.config.load.retry_min, "nobody needs to touch it for that"
    said = [record for record in caplog.records if record.getMessage().startswith("the manager failed at a model")]
    assert {record.exc_info[0] for record in said if record.exc_info} == {MemoryError}
    stepped.later(wait)
    later = stepped.manager.turn()
    assert later == 2 * wait, "ever more seldom"
    broken.clear()
    stepped.later(later)
    assert stepped.serves() == {1: "m"}
    assert stepped.manager.turn() is None


def test_a_version_whose_files_are_not_complete_is_announced_as_waiting(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    part = stepped.write("m/2/model.part")
    stepped.see()
    assert stepped.story() == [(2, S), (1, S), (1, L), (1, A)]
    assert "waiting: model.part is still being written" in str(stepped.version(2).notes)
    shutil.rmtree(part.parent)
    stepped.settle()
    assert stepped.story()[4:] == [(2, E)]
    assert stepped.serves() == {1: "good"}


def test_an_older_version_whose_files_are_not_complete_is_nobodys_concern(stepped: SteppedManager) -> None:
    stepped.write("m/1/model.part")
    stepped.write("m/2/model")
    stepped.see()
    assert stepped.story() == [(2, S), (2, L), (2, A)]


def test_versions_of_a_model_whose_settings_cannot_be_read_have_failed(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("m/model.yaml", "nonsense: 1")
    stepped.see()
    status = stepped.version(1)
    assert status.state is State.FAILED
    assert status.error == stepped.status().error
    assert "nonsense" in status.error
    with pytest.raises(Conflict, match=r"model 'm' cannot be served: .*nonsense"):
        stepped.manager.acquire("m")
    with pytest.raises(Conflict, match=r"version 1 of model 'm' failed to load: .*nonsense"):
        stepped.manager.acquire("m", 1)
    stepped.do(stepped.manager.unload("m", by="me"))
    assert stepped.version(1).state is State.END
    assert "unloaded by an operator" in str(stepped.version(1).notes)
    stepped.write("m/model.yaml", "")
    stepped.settle()
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {1: "good"}
