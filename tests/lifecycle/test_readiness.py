"""Ready once, and for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Unavailable


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


def test_a_version_that_never_settles_is_not_waited_for_for_ever(stepped: SteppedManager) -> None:
    file = stepped.write("m/1/model")
    stepped.clock.offset = file.stat().st_ctime - stepped.clock()
    stepped.see()
    for number in range(8):
        assert stepped.manager.ready() == (number >= 5)
        stepped.write("m/1/model", f"{number}" * number)
        stepped.clock.advance(1)
        stepped.see()


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
