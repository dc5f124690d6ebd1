"""Operators' wishes: what they do, how long they last, what they answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Conflict, ExecutionFailed, NotFound, Unavailable
from inferd.server.lifecycle.operations.rollback import RollbackOperation
from inferd.server.lifecycle.state import State


def test_unload_sticks_until_load(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    status = stepped.do(stepped.manager.unload("m", by="alice"))
    assert [(o.kind, o.value, o.by) for o in status.overrides] == [("unloaded", "", "alice")]
    with pytest.raises(NotFound, match="model 'm' was unloaded by alice"):
        stepped.manager.acquire("m")
    with pytest.raises(NotFound, match="version 1 of model 'm' was unloaded by alice"):
        stepped.manager.acquire("m", 1)
    stepped.write("m/2/model", "two")
    stepped.settle()
    assert stepped.serves() == {}
    status = stepped.do(stepped.manager.load("m", by="bob"))
    assert stepped.serves() == {2: "two"}
    assert status.overrides == ()


def test_unload_answers_when_the_last_request_is(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    handle = stepped.manager.acquire("m")
    future = stepped.manager.unload("m", by="me")
    stepped.run()
    assert not future.done()
    with pytest.raises(Unavailable, match="unloading"):
        stepped.manager.acquire("m", 1)
    handle.release()
    stepped.run()
    assert future.result(0).versions[0].state is State.END


def test_unload_of_one_version_leaves_the_others(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped()
    stepped.write("m/model.yaml", "version_policy: {latest: 2}")
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.unload("m", 2, by="me"))
    assert stepped.serves() == {1: "one"}
    assert stepped.default() == 1
    stepped.do(stepped.manager.load("m", 2, by="me"))
    assert stepped.default() == 2


def test_unload_is_obeyed_even_if_nothing_is_left(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.unload("m", 2, by="me"))
    assert stepped.serves() == {}, "an operator's unload is not answered with another version"


def test_load_of_a_version_that_the_policy_leaves_out(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    status = stepped.do(stepped.manager.load("m", 1, by="me"))
    assert stepped.serves() == {1: "one", 2: "two"}
    assert stepped.default() == 2
    assert [(o.kind, o.value) for o in status.overrides] == [("loaded", "1")]
    stepped.do(stepped.manager.unload("m", 1, by="me"))
    assert stepped.serves() == {2: "two"}


def test_load_of_a_version_after_the_model_was_unloaded_loads_only_that(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.unload("m", by="me"))
    stepped.do(stepped.manager.load("m", 1, by="me"))
    assert stepped.serves() == {1: "one"}


def test_load_sees_what_was_copied_just_before(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "two")
    future = stepped.manager.load("m", by="me")
    stepped.run()
    assert not future.done(), "the listing that it has is older than the command"
    stepped.see()
    assert not future.done(), "not settled"
    stepped.clock.advance(2)
    stepped.see()
    assert future.result(0).versions[0].state is State.AVAILABLE
    assert stepped.default() == 2


def test_load_of_a_broken_version_is_an_error_each_time(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "bad: rotten")
    for _ in range(2):
        with pytest.raises(Conflict, match="version 2 of model 'm' failed to load: bad: rotten"):
            stepped.do(stepped.manager.load("m", by="me"))
    with pytest.raises(Conflict, match="rotten"):
        stepped.do(stepped.manager.load("m", 2, by="me"))
    assert stepped.serves() == {1: "one"}


def test_load_of_what_is_not_there(stepped: SteppedManager) -> None:
    stepped.write("model_a/1/model")
    stepped.see()
    with pytest.raises(NotFound, match=r"unknown model 'model_b'; did you mean 'model_a'\? models: model_a"):
        stepped.do(stepped.manager.load("model_b", by="me"))
    with pytest.raises(NotFound, match="model 'model_a' has no version 9 on disk; on disk: 1"):
        stepped.do(stepped.manager.load("model_a", 9, by="me"))
    assert stepped.status("model_a").overrides == ()


def test_load_of_a_version_that_is_held_back_says_by_what(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    stepped.write("m/2/weights.bin.part")
    with pytest.raises(Unavailable, match=r"weights.bin.part is still being written"):
        stepped.do(stepped.manager.load("m", 2, by="me"))


def test_a_cancelled_operation_is_forgotten(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.pool.held.add("m")
    stepped.see()
    future = stepped.manager.load("m", by="me")
    stepped.see()
    assert not future.done()
    assert future.cancel()
    stepped.run()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.serves() == {1: "good"}
    assert stepped.manager._operations._waiting == []


def test_rollback_pins_and_load_lifts(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.write("m/3/model", "three")
    stepped.see()
    assert stepped.default() == 3
    status = stepped.do(stepped.manager.rollback("m", by="alice"))
    assert [(o.kind, o.value) for o in status.overrides] == [("pinned", "2")]
    assert stepped.serves() == {2: "two"}
    stepped.write("m/4/model", "four")
    stepped.settle()
    assert stepped.serves() == {2: "two"}
    stepped.do(stepped.manager.rollback("m", 1, by="alice"))
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.load("m", by="bob"))
    assert stepped.serves() == {4: "four"}


def test_rollback_has_no_gap_and_survives_a_broken_target(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("m/2/model", "two")
    stepped.settle()
    during: list[int] = []
    stepped.loader.on_load = lambda request: during.append(stepped.default())
    stepped.do(stepped.manager.rollback("m", by="me"))
    assert during == [2]
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.load("m", by="me"))
    stepped.write("m/1/model", "bad")
    stepped.settle()
    with pytest.raises(Conflict, match="bad"):
        stepped.do(stepped.manager.rollback("m", 1, by="me"))
    assert stepped.serves() == {2: "two"}, "the version that works stays until the other one does"


def test_rollback_without_anything_to_roll_back_to(stepped: SteppedManager) -> None:
    stepped.write("m/2/model")
    stepped.see()
    with pytest.raises(Conflict, match="no version below 2"):
        stepped.do(stepped.manager.rollback("m", by="me"))
    with pytest.raises(NotFound, match="no version 1 on disk"):
        stepped.do(stepped.manager.rollback("m", 1, by="me"))


def test_the_reason_for_not_serving_is_the_override_that_decides(stepped: SteppedManager) -> None:
    for number in (1, 2):
        stepped.write(f"m/{number}/model")
    stepped.see()
    stepped.do(stepped.manager.set_label("m", "stable", 2, by="me"))
    assert stepped.version(1).notes == ("on disk, not served: version policy latest(1)",)
    stepped.do(stepped.manager.rollback("m", by="me"))
    assert stepped.version(2).notes == (), "its label keeps it"
    stepped.do(stepped.manager.set_label("m", "stable", None, by="me"))
    assert stepped.version(2).notes == ("on disk, not served: an operator pinned version 1",)
    stepped.do(stepped.manager.unload("m", by="me"))
    assert {version.notes for version in stepped.status().versions} == {
        ("on disk, not served: unloaded by an operator",)
    }


def test_load_after_a_rollback_goes_straight_to_the_version_just_published(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.rollback("m", by="me"))
    stepped.write("m/3/model", "three")
    defaults: list[int] = []
    stepped.manager.subscribe(lambda change: defaults.append(stepped.default()))
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {3: "three"}
    assert 2 not in defaults, "the version that was rolled back from does not come back"


def test_load_does_not_wait_for_ever_for_a_version_that_never_settles(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.rollback("m", by="me"))
    future = stepped.manager.load("m", by="me")
    for number in range(7):
        stepped.write("m/3/model", str(number) * number)
        stepped.see()
        stepped.clock.advance(1)
    assert stepped.default() == 2
    stepped.settle()
    assert future.result(0).versions[0].state is State.AVAILABLE


@pytest.mark.parametrize("where", ["begin", "done"])
def test_an_operation_with_a_defect_fails_alone(
    stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It would fail at every turn, and keep the loads and the other requests waiting for ever."""

    def fails(*_: object) -> bool:
        raise KeyError("what?")

    stepped.write("m/1/model", "one")
    stepped.see()
    monkeypatch.setattr(RollbackOperation, "begin", fails if where == "begin" else lambda *_: True)
    monkeypatch.setattr(RollbackOperation, "done", fails)
    bad = stepped.manager.rollback("m", by="me")
    good = stepped.manager.unload("m", by="me")
    stepped.run()
    with pytest.raises(ExecutionFailed, match="KeyError"):
        bad.result(0)
    assert stepped.do(good).versions[0].state is State.END


def test_a_load_that_is_overtaken_by_an_unload_says_so(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.do(stepped.manager.unload("m", by="me"))
    load, unload = stepped.manager.load("m", by="me"), stepped.manager.unload("m", by="another")
    stepped.do(unload)
    with pytest.raises(Conflict, match="model 'm' was unloaded again before it was loaded"):
        stepped.do(load)
