"""Ready once, and for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.lifecycle import House

from inferd.server.errors import Unavailable


def test_an_empty_repository_is_ready(house: House) -> None:
    assert not house.manager.ready()
    with pytest.raises(Unavailable, match="has not read its repository yet"):
        house.manager.acquire("m")
    house.see()
    assert house.manager.ready()
    assert house.manager.wait_ready(0)


def test_ready_when_everything_is_available_or_has_failed_once(house: House) -> None:
    house.write("good/1/model")
    house.write("broken/1/model", "bad")
    house.write("slow/1/model")
    house.pool.held |= {"slow", "broken"}
    house.see()
    assert not house.manager.ready()
    house.pool.held.remove("broken")
    house.run()
    assert not house.manager.ready()
    house.pool.held.clear()
    house.run()
    assert house.manager.ready()


def test_ready_never_goes_back(house: House) -> None:
    house.write("m/1/model")
    house.see()
    house.do(house.manager.unload("m", by="me"))
    house.write("n/1/model", "bad")
    house.settle()
    assert house.manager.ready()


def test_strict_wants_everything(make_house: Callable[..., House]) -> None:
    house = make_house(server={"readiness": "strict"})
    house.write("good/1/model")
    house.write("broken/1/model", "bad")
    house.see()
    assert not house.manager.ready()
    house.later(300)
    assert not house.manager.ready()
    house.write("broken/1/model", "mended")
    house.settle()
    assert house.manager.ready()


def test_strict_wants_models_whose_settings_are_wrong_too(make_house: Callable[..., House]) -> None:
    house = make_house(server={"readiness": "strict"})
    house.write("m/1/model")
    house.write("m/model.yaml", "nonsense: 1")
    house.see()
    assert not house.manager.ready()
    house.write("m/model.yaml", "")
    house.settle()
    assert house.manager.ready()


def test_a_list_of_models(make_house: Callable[..., House]) -> None:
    house = make_house(server={"readiness": ("a", "b")})
    house.write("a/1/model")
    house.write("other/1/model", "bad")
    house.see()
    assert not house.manager.ready()
    house.write("b/1/model")
    house.settle()
    assert house.manager.ready()


def test_a_version_that_settles_at_start_is_waited_for(house: House) -> None:
    file = house.write("m/1/model")
    house.clock.offset = file.stat().st_ctime + 0.5 - house.clock()
    house.see()
    assert not house.manager.ready()
    house.clock.advance(2)
    house.see()
    assert house.manager.ready()
    assert house.serves() == {1: "good"}


def test_a_version_that_never_settles_is_not_waited_for_for_ever(house: House) -> None:
    file = house.write("m/1/model")
    house.clock.offset = file.stat().st_ctime - house.clock()
    house.see()
    for number in range(8):
        assert house.manager.ready() == (number >= 5)
        house.write("m/1/model", f"{number}" * number)
        house.clock.advance(1)
        house.see()


def test_listeners_hear_once(house: House) -> None:
    heard: list[str] = []
    house.manager.on_ready(lambda: heard.append("before"))
    house.manager.on_ready(lambda: 1 / 0)  # type: ignore[func-returns-value]
    house.manager.on_ready(lambda: heard.append("too"))
    house.see()
    house.settle()
    house.manager.on_ready(lambda: heard.append("after"))
    assert heard == ["before", "too", "after"]


def test_a_root_that_is_not_there_yet(tmp_path: Path, make_house: Callable[..., House]) -> None:
    house = make_house(repository={"roots": (str(tmp_path / "later"),)})
    house.see()
    assert not house.manager.ready()
    (tmp_path / "later").mkdir()
    house.see()
    assert house.manager.ready()
