"""Explicit mode: nothing comes or goes unless it is named at start or an operator says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import NotFound


@pytest.fixture
def stepped(make_stepped: Callable[..., SteppedManager]) -> SteppedManager:
    return make_stepped(repository={"mode": "explicit", "load": ("named",)})


def test_only_named_models_are_loaded(stepped: SteppedManager) -> None:
    stepped.write("named/1/model", "n")
    stepped.write("m/1/model", "one")
    stepped.see()
    assert stepped.serves("named") == {1: "n"}
    assert stepped.serves("m") == {}
    with pytest.raises(NotFound):
        stepped.manager.acquire("m")
    assert stepped.manager.ready()
    assert stepped.version(1).notes == ("on disk, not served: explicit mode, and nobody asked for it",)


def test_load_and_unload(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    status = stepped.do(stepped.manager.load("m", by="me"))
    assert [(o.kind, o.value) for o in status.overrides] == [("loaded", "")]
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.unload("m", by="me"))
    assert stepped.serves() == {}


def test_changes_on_disk_wait_for_the_operator(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.do(stepped.manager.load("m", by="me"))
    stepped.write("m/2/model", "two")
    stepped.write("m/1/model", "one, changed")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    shutil.rmtree(stepped.root / "m/1")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {2: "two"}


def test_a_deleted_model_stays_until_it_is_unloaded(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.do(stepped.manager.load("m", by="me"))
    shutil.rmtree(stepped.root / "m")
    stepped.settle()
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.unload("m", by="me"))
    stepped.settle()
    assert stepped.serves() == {}


def test_one_version(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.load("m", 1, by="me"))
    assert stepped.serves() == {1: "one"}


def test_a_failed_load_is_tried_again_with_repaired_files(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "bad")
    stepped.see()
    with pytest.raises(Exception, match="bad"):
        stepped.do(stepped.manager.load("m", by="me"))
    stepped.write("m/1/model", "mended")
    stepped.settle()
    assert stepped.serves() == {1: "mended"}


def test_star_loads_everything_that_is_there_at_start(make_stepped: Callable[..., SteppedManager]) -> None:
    stepped = make_stepped(repository={"mode": "explicit", "load": ("*",)})
    stepped.write("a/1/model", "a")
    stepped.write("b/1/model", "b")
    stepped.see()
    stepped.write("c/1/model", "c")
    stepped.settle()
    assert (stepped.serves("a"), stepped.serves("b"), stepped.serves("c")) == ({1: "a"}, {1: "b"}, {})
