"""A model's settings on disk: when a change takes effect, what it reloads, and wrong settings."""

from __future__ import annotations

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Conflict
from inferd.server.lifecycle.state import State


def test_changed_settings_take_effect_after_the_settle_time(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "version_policy: {latest: 2}")
    stepped.write("m/1/model", "1")
    stepped.write("m/2/model", "2")
    stepped.see()
    stepped.write("m/model.yaml", "version_policy: {la")
    stepped.see()
    assert stepped.status().error == ""
    stepped.write("m/model.yaml", "version_policy: {latest: 1}")
    stepped.see()
    assert set(stepped.serves()) == {1, 2}
    stepped.settle()
    assert set(stepped.serves()) == {2}


def test_a_new_model_with_settings_still_being_written_waits(stepped: SteppedManager) -> None:
    stepped.see()
    stepped.write("m/model.yaml", "version_policy: {la")
    stepped.write("m/1/model", "1")
    stepped.see()
    assert stepped.status().error == ""
    assert stepped.loader.loads == []
    stepped.write("m/model.yaml", "version_policy: {latest: 1}")
    stepped.settle()
    assert stepped.serves() == {1: "1"}
    assert stepped.version(1).state is State.AVAILABLE


def test_config_pbtxt_is_honoured_and_unknown_fields_are_reported(stepped: SteppedManager) -> None:
    stepped.write("m/config.pbtxt", 'name: "m"\nversion_policy: { all { } }\noptimization { priority: PRIORITY_MAX }')
    stepped.write("m/1/model", "1")
    stepped.write("m/2/model", "2")
    stepped.write("n/config.pbtxt", 'name: "m"')
    stepped.write("n/1/model", "1")
    stepped.see()
    assert set(stepped.serves()) == {1, 2}
    assert any("not honoured: optimization" in note for note in stepped.version(1).notes)
    assert "expected 'n' (the directory's name)" in stepped.status("n").error


def test_only_settings_that_the_loader_uses_cause_a_reload(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    stepped.write("m/model.yaml", "labels: {stable: 1}")
    stepped.settle()
    assert len(stepped.loader.loads) == 1
    stepped.write("m/model.yaml", "labels: {stable: 1}\ndefault_priority: 3")
    stepped.settle()
    assert len(stepped.loader.loads) == 2
    assert stepped.version(1).generation == 2


def test_wrong_settings_keep_the_served_versions_and_are_reported(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "one")
    stepped.write("ok/1/model", "fine")
    stepped.see()
    stepped.write("m/model.yaml", "version_polcy: {latest: 2}")
    stepped.write("m/2/model", "two")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    assert "version_polcy" in stepped.status().error
    assert "version_policy" in stepped.status().error
    assert stepped.serves("ok") == {1: "fine"}
    stepped.write("m/model.yaml", "version_policy: {latest: 2}")
    stepped.settle()
    assert stepped.serves() == {1: "one", 2: "two"}
    assert stepped.status().error == ""


def test_wrong_settings_of_a_new_model_are_reported(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "backend: [")
    stepped.write("m/1/model")
    stepped.see()
    with pytest.raises(Conflict, match=r"model 'm' cannot be served: .*model.yaml"):
        stepped.manager.acquire("m")
    assert stepped.manager.ready()
