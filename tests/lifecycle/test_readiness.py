"""Ready once, and for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Unavailable
from inferd.server.lifecycle.readiness import not_served

HELD = "model.part is still being written (its name ends like a temporary file)"


def test_an_empty_repository_is_ready(stepped: SteppedManager) -> None:
    assert not stepped.manager.ready()
    with pytest.raises(Unavailable, match="has not read its repository yet"):
        stepped.manager.acquire("m")
    stepped.see()
    assert stepped.manager.ready()
    assert stepped.manager.wait_ready(0)


def test_ready_when_everything_is_available_or_has_failed_once(stepped: SteppedManager) -> None:
    stepped.write("good/1/model")
    stepped.write("broken/1/model", "bad")
    stepped.write("slow/1/model")
    stepped.pool.held |= {"slow", "broken"}
    stepped.see()
    assert not stepped.manager.ready()
    stepped.pool.held.remove("broken")
    stepped.run()
    assert not stepped.manager.ready()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.manager.ready()


def test_ready_never_goes_back(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    stepped.do(stepped.manager.unload("m", by="me"))
    stepped.write("n/1/model", "bad")
    stepped.settle()
    assert stepped.manager.ready()


def test_strict_wants_everything(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(server={"readiness": "strict"})
    stepped.write("good/1/model")
    stepped.write("broken/1/model", "bad")
    stepped.see()
    assert not stepped.manager.ready()
    stepped.later(300)
    assert not stepped.manager.ready()
    stepped.write("broken/1/model", "mended")
    stepped.settle()
    assert stepped.manager.ready()


def test_strict_wants_models_whose_settings_are_wrong_too(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(server={"readiness": "strict"})
    stepped.write("m/1/model")
    stepped.write("m/model.yaml", "nonsense: 1")
    stepped.see()
    assert not stepped.manager.ready()
    stepped.write("m/model.yaml", "")
    stepped.settle()
    assert stepped.manager.ready()


def test_a_list_of_models(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(server={"readiness": ("a", "b")})
    stepped.write("a/1/model")
    stepped.write("other/1/model", "bad")
    stepped.see()
    assert not stepped.manager.ready()
    stepped.write("b/1/model")
    stepped.settle()
    assert stepped.manager.ready()


def test_a_version_that_settles_at_start_is_waited_for(stepped: SteppedManager) -> None:
    file = stepped.write("m/1/model")
    stepped.clock.offset = file.stat().st_ctime + 0.5 - stepped.clock()
    stepped.see()
    assert not stepped.manager.ready()
    stepped.clock.advance(2)
    stepped.see()
    assert stepped.manager.ready()
    assert stepped.serves() == {1: "good"}


def fresh(stepped: SteppedManager) -> None:
    """Makes all files that are on disk by now count as just written in the first scan."""
    newest = max((path.stat().st_ctime for path in stepped.root.rglob("*")), default=0.0)
    stepped.clock.offset = newest - stepped.clock()


def test_fresh_files_are_waited_for_until_they_are_loaded_however_long_that_takes(stepped: SteppedManager) -> None:
    """`cp -r` and serve at once, an init container: nothing has settled when the server starts."""
    stepped.write("plain/1/model")
    stepped.write("configured/1/model")
    stepped.write("configured/model.yaml", "version_policy: {all: true}\n")
    stepped.write("configured/2/model")
    fresh(stepped)
    stepped.pool.held |= {"plain", "configured"}
    stepped.see()
    assert not stepped.manager.ready()
    assert "model.yaml: still being written" in str(stepped.manager.waiting_for())
    assert "plain:1 (its files are still changing" in str(stepped.manager.waiting_for())
    for _ in range(100):  # loading takes long: importing a framework, for example
        stepped.clock.advance(1)
        stepped.see()
        assert not stepped.manager.ready()
    assert stepped.manager.waiting_for() == ("configured:1 (loading)", "configured:2 (loading)", "plain:1 (loading)")
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.manager.ready()
    assert stepped.manager.waiting_for() == ()


def test_a_newer_version_that_has_not_settled_is_waited_for_beside_one_that_has(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("m/2/model")
    stepped.write("m/2/model.part")
    stepped.see()
    assert stepped.serves() == {1: "good"}
    assert not stepped.manager.ready()
    assert "m:2 (model.part is still being written" in str(stepped.manager.waiting_for())
    (stepped.root / "m/2/model.part").unlink()
    stepped.settle()
    assert stepped.manager.ready()
    assert stepped.serves() == {2: "good"}


def test_a_slow_copy_is_waited_for_while_it_goes_on(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    fresh(stepped)
    stepped.see()
    for number in range(60):
        assert not stepped.manager.ready()
        stepped.write("m/1/model", "good" * number)
        stepped.clock.advance(1)
        stepped.see()
    stepped.settle()
    assert stepped.manager.ready()
    assert list(stepped.serves()) == [1]


def test_files_that_never_stop_changing_are_not_waited_for_for_ever(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    fresh(stepped)
    stepped.see()
    for number in range(310):
        assert stepped.manager.ready() == (number >= 300)
        stepped.write("m/1/model", "x" * (number + 1))
        stepped.clock.advance(1)
        stepped.see()


def test_a_copy_that_was_left_unfinished_is_not_waited_for_for_ever(stepped: SteppedManager) -> None:
    stepped.write("m/1/model.part")
    stepped.see()
    for second in range(8):
        assert stepped.manager.ready() == (second >= 5)
        stepped.clock.advance(1)
        stepped.run()
    [status] = stepped.manager.models()
    assert not_served([status]) == {"m:1": f"waiting: {HELD}"}


def test_a_version_that_takes_the_place_of_one_that_was_there_is_waited_for(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.pool.held.add("m")
    stepped.see()
    stepped.write("m/2/model")
    stepped.clock.advance(3)
    stepped.see()
    stepped.clock.advance(3)
    stepped.see()
    assert not stepped.manager.ready()
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.manager.ready()
    assert list(stepped.serves()) == [2]


def test_a_version_that_came_later_is_not_waited_for(stepped: SteppedManager) -> None:
    stepped.write("slow/1/model")
    stepped.pool.held |= {"slow", "late"}
    stepped.see()
    stepped.write("late/1/model")
    stepped.settle()
    stepped.pool.held.remove("slow")
    stepped.run()
    assert stepped.manager.ready()


def test_an_older_version_that_stands_in_for_a_broken_one_is_waited_for(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.write("m/2/model", "bad")
    stepped.see()
    assert stepped.manager.ready()
    assert stepped.serves() == {1: "good"}


def test_nonempty_waits_for_a_model_that_is_served(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(server={"readiness": "nonempty"})
    stepped.see()
    assert not stepped.manager.ready()
    assert stepped.manager.waiting_for() == ()
    stepped.write("broken/1/model", "bad")
    stepped.settle()
    assert not stepped.manager.ready()
    assert stepped.manager.waiting_for() == ("a version of any model",)
    stepped.write("good/1/model")
    stepped.settle()
    assert stepped.manager.ready()


def test_nonempty_waits_for_everything_that_came_with_the_first_model(
    make_stepped: Callable[..., SteppedManager],
) -> None:
    stepped = make_stepped(server={"readiness": "nonempty"})
    stepped.see()
    stepped.write("a/1/model")
    stepped.write("b/1/model")
    stepped.pool.held.add("b")
    stepped.settle()
    assert stepped.manager.waiting_for() == ("b:1 (loading)",)
    stepped.pool.held.clear()
    stepped.run()
    assert stepped.manager.ready()


def test_what_is_not_served_is_named_with_the_reason(stepped: SteppedManager) -> None:
    stepped.write("good/1/model")
    stepped.write("broken/1/model", "bad file")
    stepped.write("odd/1/model")
    stepped.write("odd/model.yaml", "nonsense: 1")
    stepped.write("twice/1/model")
    stepped.write("twice/01/model")
    stepped.see()
    assert stepped.manager.ready()
    found = not_served(stepped.manager.models())
    assert list(found) == ["broken:1", "odd", "twice:1"]
    assert found["broken:1"] == "bad file"
    assert "nonsense" in found["odd"]
    assert "2 directories: 01, 1" in found["twice:1"]
    stepped.do(stepped.manager.unload("broken", by="me"))
    assert list(not_served(stepped.manager.models())) == ["odd", "twice:1"]


def test_listeners_hear_once(stepped: SteppedManager) -> None:
    heard: list[str] = []
    stepped.manager.on_ready(lambda: heard.append("before"))
    stepped.manager.on_ready(lambda: 1 / 0)  # type: ignore[func-returns-value]
    stepped.manager.on_ready(lambda: heard.append("too"))
    stepped.see()
    stepped.settle()
    stepped.manager.on_ready(lambda: heard.append("after"))
    assert heard == ["before", "too", "after"]


def test_a_root_that_is_not_there_yet(tmp_path: Path, make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(repository={"roots": (str(tmp_path / "later"),)})
    stepped.see()
    assert not stepped.manager.ready()
    (tmp_path / "later").mkdir()
    stepped.see()
    assert stepped.manager.ready()
