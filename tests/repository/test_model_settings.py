"""A model's settings on disk: when a change takes effect, what it reloads, and wrong settings."""

from __future__ import annotations

import pytest
from support.lifecycle import House

from inferd.server.errors import Conflict
from inferd.server.lifecycle.state import State


def test_changed_settings_take_effect_after_the_settle_time(house: House) -> None:
    house.write("m/model.yaml", "version_policy: {latest: 2}")
    house.write("m/1/model", "1")
    house.write("m/2/model", "2")
    house.see()
    house.write("m/model.yaml", "version_policy: {la")
    house.see()
    assert house.status().error == ""
    house.write("m/model.yaml", "version_policy: {latest: 1}")
    house.see()
    assert set(house.serves()) == {1, 2}
    house.settle()
    assert set(house.serves()) == {2}


def test_a_new_model_with_settings_still_being_written_waits(house: House) -> None:
    house.see()
    house.write("m/model.yaml", "version_policy: {la")
    house.write("m/1/model", "1")
    house.see()
    assert house.status().error == ""
    assert house.loader.loads == []
    house.write("m/model.yaml", "version_policy: {latest: 1}")
    house.settle()
    assert house.serves() == {1: "1"}
    assert house.version(1).state is State.AVAILABLE


def test_config_pbtxt_is_honoured_and_unknown_fields_are_reported(house: House) -> None:
    house.write("m/config.pbtxt", 'name: "m"\nversion_policy: { all { } }\noptimization { priority: PRIORITY_MAX }')
    house.write("m/1/model", "1")
    house.write("m/2/model", "2")
    house.write("n/config.pbtxt", 'name: "m"')
    house.write("n/1/model", "1")
    house.see()
    assert set(house.serves()) == {1, 2}
    assert any("not honoured: optimization" in note for note in house.version(1).notes)
    assert "expected 'n' (the directory's name)" in house.status("n").error


def test_only_settings_that_the_loader_uses_cause_a_reload(house: House) -> None:
    house.write("m/1/model")
    house.see()
    house.write("m/model.yaml", "labels: {stable: 1}")
    house.settle()
    assert len(house.loader.loads) == 1
    house.write("m/model.yaml", "labels: {stable: 1}\ndefault_priority: 3")
    house.settle()
    assert len(house.loader.loads) == 2
    assert house.version(1).generation == 2


def test_wrong_settings_keep_the_served_versions_and_are_reported(house: House) -> None:
    house.write("m/1/model", "one")
    house.write("ok/1/model", "fine")
    house.see()
    house.write("m/model.yaml", "version_polcy: {latest: 2}")
    house.write("m/2/model", "two")
    house.settle()
    assert house.serves() == {1: "one"}
    assert "version_polcy" in house.status().error
    assert "version_policy" in house.status().error
    assert house.serves("ok") == {1: "fine"}
    house.write("m/model.yaml", "version_policy: {latest: 2}")
    house.settle()
    assert house.serves() == {1: "one", 2: "two"}
    assert house.status().error == ""


def test_wrong_settings_of_a_new_model_are_reported(house: House) -> None:
    house.write("m/model.yaml", "backend: [")
    house.write("m/1/model")
    house.see()
    with pytest.raises(Conflict, match=r"model 'm' cannot be served: .*model.yaml"):
        house.manager.acquire("m")
    assert house.manager.ready()
