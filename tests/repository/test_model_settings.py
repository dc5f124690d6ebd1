"""A model's settings on disk: when a change takes effect, what it reloads, and wrong settings."""

from __future__ import annotations

import pytest
from support.lifecycle import SteppedManager

from inferd.backends.files import Found, OpenRoot
from inferd.server.config.document import Document
from inferd.server.errors import Conflict
from inferd.server.lifecycle.state import State
from inferd.server.repository import model_scanner, model_settings
from inferd.server.repository.tree import Tree


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


@pytest.mark.parametrize("error", [MemoryError("no room"), RecursionError("too deep"), ValueError("5,000 digits")])
def test_whatever_goes_wrong_with_one_models_settings_is_its_own_error(
    stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    read = model_settings.decode_document

    def failing(data: bytes, source: str) -> Document:
        if "bad" in source:
            raise error
        return read(data, source)

    monkeypatch.setattr(model_settings, "decode_document", failing)
    for name in ("bad", "good"):
        stepped.write(f"{name}/model.yaml", "default_priority: 2")
        stepped.write(f"{name}/1/model", "one")
    stepped.see()
    assert stepped.serves("good") == {1: "one"}
    assert f"{type(error).__name__}: {error}" in stepped.status("bad").error


def test_whatever_goes_wrong_while_a_model_is_scanned_is_its_own_error(
    stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = model_scanner.tree_of

    def failing(root: OpenRoot, directory: Found) -> Tree:
        if "/bad/" in directory.shown:
            raise MemoryError("no room")
        return tree(root, directory)

    stepped.write("bad/1/model", "one")
    stepped.see()
    monkeypatch.setattr(model_scanner, "tree_of", failing)
    stepped.write("good/1/model", "one")
    stepped.settle()
    assert stepped.serves("good") == stepped.serves("bad") == {1: "one"}
    assert "MemoryError: no room" in stepped.version(1, "bad").error


def test_settings_behind_a_link_are_read(stepped: SteppedManager) -> None:
    """As a ConfigMap mounts them."""
    stepped.write("m/..data/model.yaml", "labels: {stable: 1}")
    stepped.write("m/1/model", "one")
    (stepped.root / "m/model.yaml").symlink_to("..data/model.yaml")
    stepped.see()
    assert stepped.status().labels == {"stable": 1}


def test_a_note_names_only_some_of_many_unknown_fields(stepped: SteppedManager) -> None:
    stepped.write("m/config.pbtxt", "".join(f"x{number}: 1 " for number in range(10_000)))
    stepped.write("m/1/model", "one")
    stepped.see()
    (note,) = (note for note in stepped.version(1).notes if "not honoured" in note)
    assert note.endswith("x18, x19 and 9980 more")
