"""Explicit mode: nothing comes or goes unless it is named at start or an operator says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from support.lifecycle import House

from inferd.server.errors import NotFound


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house(repository={"mode": "explicit", "load": ("named",)})


def test_only_named_models_are_loaded(house: House) -> None:
    house.write("named/1/model", "n")
    house.write("m/1/model", "one")
    house.see()
    assert house.serves("named") == {1: "n"}
    assert house.serves("m") == {}
    with pytest.raises(NotFound):
        house.manager.acquire("m")
    assert house.manager.ready()
    assert house.version(1).notes == ("on disk, not served: explicit mode, and nobody asked for it",)


def test_load_and_unload(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    status = house.do(house.manager.load("m", by="me"))
    assert [(o.kind, o.value) for o in status.overrides] == [("loaded", "")]
    assert house.serves() == {1: "one"}
    house.do(house.manager.unload("m", by="me"))
    assert house.serves() == {}


def test_changes_on_disk_wait_for_the_operator(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.do(house.manager.load("m", by="me"))
    house.write("m/2/model", "two")
    house.write("m/1/model", "one, changed")
    house.settle()
    assert house.serves() == {1: "one"}
    shutil.rmtree(house.root / "m/1")
    house.settle()
    assert house.serves() == {1: "one"}
    house.do(house.manager.load("m", by="me"))
    assert house.serves() == {2: "two"}


def test_a_deleted_model_stays_until_it_is_unloaded(house: House) -> None:
    house.write("m/1/model", "one")
    house.see()
    house.do(house.manager.load("m", by="me"))
    shutil.rmtree(house.root / "m")
    house.settle()
    house.settle()
    assert house.serves() == {1: "one"}
    house.do(house.manager.unload("m", by="me"))
    house.settle()
    assert house.serves() == {}


def test_one_version(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.see()
    house.do(house.manager.load("m", 1, by="me"))
    assert house.serves() == {1: "one"}


def test_a_failed_load_is_tried_again_with_repaired_files(house: House) -> None:
    house.write("m/1/model", "bad")
    house.see()
    with pytest.raises(Exception, match="bad"):
        house.do(house.manager.load("m", by="me"))
    house.write("m/1/model", "mended")
    house.settle()
    assert house.serves() == {1: "mended"}


def test_star_loads_everything_that_is_there_at_start(make_house: Callable[..., House]) -> None:
    house = make_house(repository={"mode": "explicit", "load": ("*",)})
    house.write("a/1/model", "a")
    house.write("b/1/model", "b")
    house.see()
    house.write("c/1/model", "c")
    house.settle()
    assert (house.serves("a"), house.serves("b"), house.serves("c")) == ({1: "a"}, {1: "b"}, {})
