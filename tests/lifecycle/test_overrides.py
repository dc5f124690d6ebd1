"""Operators' wishes in the state directory: kept over a restart, or not believed to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import ExecutionFailed
from inferd.server.lifecycle.operations.overrides import FILE, OverridesError


def test_overrides_outlive_the_process_with_a_state_directory(
    make_stepped: Callable[..., SteppedManager], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    stepped = make_stepped(server={"state_dir": str(state)})
    assert stepped.manager.persistent
    for name in ("a", "b", "c"):
        stepped.write(f"{name}/1/model", "one")
        stepped.write(f"{name}/2/model", "two")
    stepped.see()
    stepped.do(stepped.manager.unload("a", by="alice"))
    stepped.do(stepped.manager.rollback("b", by="bob"))
    stepped.do(stepped.manager.set_label("c", "stable", 2, by="carol"))
    again = make_stepped(server={"state_dir": str(state)})
    again.see()
    assert again.serves("a") == {}
    assert again.serves("b") == {1: "one"}
    with again.manager.acquire("c", label="stable") as servable:
        assert servable.id.version == 2
    [override] = again.status("b").overrides
    assert (override.kind, override.value, override.by, override.persistent) == ("pinned", "1", "bob", True)
    assert override.at == pytest.approx(stepped.clock.wall(), abs=100)
    assert [path.name for path in state.iterdir()] == [FILE], "no temporary file is left"


def test_without_a_state_directory_the_status_says_so(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    assert not stepped.manager.persistent
    assert stepped.do(stepped.manager.unload("m", by="me")).overrides[0].persistent is False


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 9, "models": {}}', '{"format": 1, "models": {"m": [{"kind": "nonsense"}]}}']
)
def test_a_damaged_state_file_ends_the_start(
    make_stepped: Callable[..., SteppedManager], tmp_path: Path, text: str
) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(OverridesError, match="is damaged"):
        make_stepped(server={"state_dir": str(tmp_path)})


def test_an_override_that_cannot_be_written_changes_nothing(
    make_stepped: Callable[..., SteppedManager], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    stepped = make_stepped(server={"state_dir": str(state)})
    stepped.write("m/1/model", "one")
    stepped.see()
    state.rmdir()
    state.write_text("a file where a directory should be")
    with pytest.raises(ExecutionFailed, match="nothing was changed"):
        stepped.do(stepped.manager.unload("m", by="me"))
    assert stepped.serves() == {1: "one"}
    assert stepped.status().overrides == ()


def test_a_state_directory_that_cannot_be_written_to_ends_the_start(
    make_stepped: Callable[..., SteppedManager], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(OverridesError, match=r"server\.state_dir: expected a directory that can be written to"):
        make_stepped(server={"state_dir": str(tmp_path / "file" / "state")})


def test_the_format_of_the_state_file(make_stepped: Callable[..., SteppedManager], tmp_path: Path) -> None:
    stepped = make_stepped(server={"state_dir": str(tmp_path / "s")})
    stepped.write("m/1/model")
    stepped.see()
    stepped.do(stepped.manager.unload("m", 1, by="me"))
    document = json.loads((tmp_path / "s" / FILE).read_text())
    [wish] = document["models"]["m"]
    assert {key: wish[key] for key in ("kind", "version", "by", "label")} == {
        "kind": "unloaded", "version": 1, "by": "me", "label": "",
    }  # fmt: skip
