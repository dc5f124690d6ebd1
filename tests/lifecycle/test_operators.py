"""Operators' wishes: what they do, how long they last, what they answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lifecycle import House

from inferd.server.errors import Conflict, ExecutionFailed, NotFound, Unavailable
from inferd.server.lifecycle.operations.rollback import RollbackOperation
from inferd.server.lifecycle.state import State


def test_unload_sticks_until_load(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    status = house.do(house.manager.unload("m", by="alice"))
    assert [(o.kind, o.value, o.by) for o in status.overrides] == [("unloaded", "", "alice")]
    with pytest.raises(NotFound, match="model 'm' was unloaded by alice"):
        house.manager.acquire("m")
    with pytest.raises(NotFound, match="version 1 of model 'm' was unloaded by alice"):
        house.manager.acquire("m", 1)
    house.write("m/2/model", "two")
    house.settle()
    assert house.serves() == {}
    status = house.do(house.manager.load("m", by="bob"))
    assert house.serves() == {2: "two"}
    assert status.overrides == ()


def test_unload_answers_when_the_last_request_is(house: House) -> None:
    house.write("m/1/model")
    house.see()
    handle = house.manager.acquire("m")
    future = house.manager.unload("m", by="me")
    house.run()
    assert not future.done()
    with pytest.raises(Unavailable, match="unloading"):
        house.manager.acquire("m", 1)
    handle.release()
    house.run()
    assert future.result(0).versions[0].state is State.END


def test_unload_of_one_version_leaves_the_others(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.write("m/model.yaml", "version_policy: {latest: 2}")
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.unload("m", 2, by="me"))
    assert house.serves() == {1: "one"}
    assert house.default() == 1
    house.do(house.manager.load("m", 2, by="me"))
    assert house.default() == 2


def test_unload_is_obeyed_even_if_nothing_is_left(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.unload("m", 2, by="me"))
    assert house.serves() == {}, "an operator's unload is not answered with another version"


def test_load_of_a_version_that_the_policy_leaves_out(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    status = house.do(house.manager.load("m", 1, by="me"))
    assert house.serves() == {1: "one", 2: "two"}
    assert house.default() == 2
    assert [(o.kind, o.value) for o in status.overrides] == [("loaded", "1")]
    house.do(house.manager.unload("m", 1, by="me"))
    assert house.serves() == {2: "two"}


def test_load_of_a_version_after_the_model_was_unloaded_loads_only_that(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.unload("m", by="me"))
    house.do(house.manager.load("m", 1, by="me"))
    assert house.serves() == {1: "one"}


def test_load_sees_what_was_copied_just_before(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "two")
    future = house.manager.load("m", by="me")
    house.run()
    assert not future.done(), "the listing that it has is older than the command"
    house.see()
    assert not future.done(), "not settled"
    house.clock.advance(2)
    house.see()
    assert future.result(0).versions[0].state is State.AVAILABLE
    assert house.default() == 2


def test_load_of_a_broken_version_is_an_error_each_time(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "bad: rotten")
    for _ in range(2):
        with pytest.raises(Conflict, match="version 2 of model 'm' failed to load: bad: rotten"):
            house.do(house.manager.load("m", by="me"))
    with pytest.raises(Conflict, match="rotten"):
        house.do(house.manager.load("m", 2, by="me"))
    assert house.serves() == {1: "one"}


def test_load_of_what_is_not_there(house: House) -> None:
    house.write("model_a/1/model")
    house.see()
    with pytest.raises(NotFound, match=r"unknown model 'model_b'; did you mean 'model_a'\? models: model_a"):
        house.do(house.manager.load("model_b", by="me"))
    with pytest.raises(NotFound, match="model 'model_a' has no version 9 on disk; on disk: 1"):
        house.do(house.manager.load("model_a", 9, by="me"))
    assert house.status("model_a").overrides == ()


def test_load_of_a_version_that_is_held_back_says_by_what(house: House) -> None:
    house.write("m/1/model")
    house.see()
    house.write("m/2/weights.bin.part")
    with pytest.raises(Unavailable, match=r"weights.bin.part is still being written"):
        house.do(house.manager.load("m", 2, by="me"))


def test_a_cancelled_operation_is_forgotten(house: House) -> None:
    house.write("m/1/model")
    house.pool.held.add("m")
    house.see()
    future = house.manager.load("m", by="me")
    house.see()
    assert not future.done()
    assert future.cancel()
    house.run()
    house.pool.held.clear()
    house.run()
    assert house.serves() == {1: "good"}
    assert house.manager._operations._waiting == []


def test_rollback_pins_and_load_lifts(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.write("m/3/model", "three")
    house.see()
    assert house.default() == 3
    status = house.do(house.manager.rollback("m", by="alice"))
    assert [(o.kind, o.value) for o in status.overrides] == [("pinned", "2")]
    assert house.serves() == {2: "two"}
    house.write("m/4/model", "four")
    house.settle()
    assert house.serves() == {2: "two"}
    house.do(house.manager.rollback("m", 1, by="alice"))
    assert house.serves() == {1: "one"}
    house.do(house.manager.load("m", by="bob"))
    assert house.serves() == {4: "four"}


def test_rollback_has_no_gap_and_survives_a_broken_target(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.write("m/2/model", "two")
    house.settle()
    during: list[int] = []
    house.loader.on_load = lambda request: during.append(house.default())
    house.do(house.manager.rollback("m", by="me"))
    assert during == [2]
    assert house.serves() == {1: "one"}
    house.do(house.manager.load("m", by="me"))
    house.write("m/1/model", "bad")
    house.settle()
    with pytest.raises(Conflict, match="bad"):
        house.do(house.manager.rollback("m", 1, by="me"))
    assert house.serves() == {2: "two"}, "the version that works stays until the other one does"


def test_rollback_without_anything_to_roll_back_to(house: House) -> None:
    house.write("m/2/model")
    house.see()
    with pytest.raises(Conflict, match="no version below 2"):
        house.do(house.manager.rollback("m", by="me"))
    with pytest.raises(NotFound, match="no version 1 on disk"):
        house.do(house.manager.rollback("m", 1, by="me"))


def test_the_reason_for_not_serving_is_the_override_that_decides(house: House) -> None:
    for number in (1, 2):
        house.write(f"m/{number}/model")
    house.see()
    house.do(house.manager.set_label("m", "stable", 2, by="me"))
    assert house.version(1).notes == ("on disk, not served: version policy latest(1)",)
    house.do(house.manager.rollback("m", by="me"))
    assert house.version(2).notes == (), "its label keeps it"
    house.do(house.manager.set_label("m", "stable", None, by="me"))
    assert house.version(2).notes == ("on disk, not served: an operator pinned version 1",)
    house.do(house.manager.unload("m", by="me"))
    assert {version.notes for version in house.status().versions} == {("on disk, not served: unloaded by an operator",)}


def test_load_after_a_rollback_goes_straight_to_the_version_just_published(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.rollback("m", by="me"))
    house.write("m/3/model", "three")
    defaults: list[int] = []
    house.manager.subscribe(lambda change: defaults.append(house.default()))
    house.do(house.manager.load("m", by="me"))
    assert house.serves() == {3: "three"}
    assert 2 not in defaults, "the version that was rolled back from does not come back"


def test_load_does_not_wait_for_ever_for_a_version_that_never_settles(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.rollback("m", by="me"))
    future = house.manager.load("m", by="me")
    for number in range(7):
        house.write("m/3/model", str(number) * number)
        house.see()
        house.clock.advance(1)
    assert house.default() == 2
    house.settle()
    assert future.result(0).versions[0].state is State.AVAILABLE


@pytest.mark.parametrize("where", ["begin", "done"])
def test_an_operation_with_a_defect_fails_alone(house: House, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """It would fail at every turn, and keep the loads and the other requests waiting for ever."""

    def fails(*_: object) -> bool:
        raise KeyError("what?")

    house.write("m/1/model", "one")
    house.see()
    monkeypatch.setattr(RollbackOperation, "begin", fails if where == "begin" else lambda *_: True)
    monkeypatch.setattr(RollbackOperation, "done", fails)
    bad = house.manager.rollback("m", by="me")
    good = house.manager.unload("m", by="me")
    house.run()
    with pytest.raises(ExecutionFailed, match="KeyError"):
        bad.result(0)
    assert house.do(good).versions[0].state is State.END


def test_a_load_that_is_overtaken_by_an_unload_says_so(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.do(house.manager.unload("m", by="me"))
    load, unload = house.manager.load("m", by="me"), house.manager.unload("m", by="another")
    house.do(unload)
    with pytest.raises(Conflict, match="model 'm' was unloaded again before it was loaded"):
        house.do(load)
