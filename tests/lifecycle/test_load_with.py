"""Loads that bring settings or files of their own: in force until the next plain load, undone when they fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lifecycle import SteppedManager

from inferd.server.config.schema import ModelConfig
from inferd.server.errors import Conflict, InvalidRequest, NotFound, Overloaded, ServingError, Unavailable
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.state import State
from inferd.server.repository import uploads

BOTH = pytest.mark.parametrize("mode", ["watch", "explicit"])


@pytest.fixture
def stepped(tmp_path: Path, mode: str) -> Iterator[SteppedManager]:
    """With version 1 and 2 of "m", loaded by the policy (the newest)."""
    found = SteppedManager(
        tmp_path / "models",
        repository={"mode": mode, "load": ("m",)},
        server={"state_dir": str(tmp_path / "state")},
        admin={"max_upload": 1000},
    )
    found.write("m/1/model", "one")
    found.write("m/2/model", "two")
    found.see()
    assert found.serves() == {2: "two"}
    yield found
    found.uploads.close()


def load(stepped: SteppedManager, files: dict[str, str] | None = None, /, name: str = "m", **config: Any) -> Any:
    contents = {path: text.encode() for path, text in (files or {}).items()}
    return stepped.do(stepped.manager.load(name, by="me", replacement=Replacement(json.dumps(config), contents)))


def config(stepped: SteppedManager) -> ModelConfig:
    return stepped.loader.requests[-1].config


def uploaded(stepped: SteppedManager) -> list[str]:
    place = Path(str(stepped.config.server.state_dir)) / "uploads"
    return sorted(
        str(path.relative_to(place).as_posix().split("/", 1)[1]) for path in place.rglob("*") if path.is_file()
    )


@BOTH
def test_settings_of_a_load_apply_until_the_next_plain_load(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "batching: {max_batch_size: 3}\nlabels: {stable: 2}\n")
    stepped.settle()
    stepped.do(stepped.manager.load("m", by="me"))
    assert config(stepped).batching.max_batch_size == 3
    status = load(stepped, max_batch_size=7, versionPolicy={"all": {}}, instance_group=[{"count": "2"}], rate=1)
    assert stepped.serves() == {1: "one", 2: "two"}
    assert config(stepped).batching.max_batch_size == 7
    assert config(stepped).instances.count == 2
    assert config(stepped).labels == {"stable": 2}
    assert [(o.kind, o.by, o.persistent) for o in status.overrides if o.kind == "config"] == [("config", "me", False)]
    assert "'config' of the load: not honoured: rate" in stepped.version(1).notes
    stepped.settle()
    stepped.do(stepped.manager.load("m", 2, by="me"))  # of one version: not a load of the model
    assert stepped.serves() == {1: "one", 2: "two"}
    status = stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {2: "two"}
    assert config(stepped).batching.max_batch_size == 3
    assert not [o for o in status.overrides if o.kind == "config"]


@BOTH
def test_an_unload_ends_the_settings_of_a_load(stepped: SteppedManager) -> None:
    load(stepped, version_policy={"specific": {"versions": ["1"]}})
    assert stepped.serves() == {1: "one"}
    stepped.do(stepped.manager.unload("m", by="me"))
    assert stepped.serves() == {}
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {2: "two"}


@BOTH
def test_settings_stand_in_for_a_file_that_cannot_be_read(stepped: SteppedManager) -> None:
    stepped.write("m/config.pbtxt", "max_batch_size: ten")
    stepped.settle()
    with pytest.raises(Conflict, match="expected an integer"):
        stepped.do(stepped.manager.load("m", by="me"))
    status = load(stepped, max_batch_size=7)
    assert status.error == ""
    assert config(stepped).batching.max_batch_size == 7


@BOTH
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "'config' of the load: expected JSON"),
        ("[]", r"the whole: expected an object \{...\}, got \[\]"),
        ("[" * 100_000, "nested too deep|expected JSON"),
        ('{"max_batch_size": "ten"}', "max_batch_size: expected an integer, got 'ten'"),
        ('{"max_batch_size": true}', "max_batch_size: expected an integer, got 'true'"),
        ('{"input": {}}', "input: expected a list, got {}"),
        ('{"input": [1]}', r"input: expected an object \{...\}, got 1"),
        ('{"backend": ["x"]}', "backend: expected a single value"),
        ('{"name": "other"}', "expected the name of the model's directory, 'm'"),
        ('{"version_policy": {"specific": {"versions": [9]}}}', "want no version of model 'm' that is there: 1, 2"),
        (json.dumps({"name": "m" * 2**20}), "at most 1048576 characters"),
    ],
)
def test_invalid_settings_change_nothing(stepped: SteppedManager, text: str, words: str) -> None:
    before = stepped.story()
    with pytest.raises(ServingError, match=words):
        stepped.do(stepped.manager.load("m", by="me", replacement=Replacement(text)))
    stepped.settle()
    assert stepped.serves() == {2: "two"}
    assert stepped.story() == before


@BOTH
def test_uploaded_files_replace_the_models_directory(stepped: SteppedManager) -> None:
    status = load(stepped, {"5/model": "five", "05/deeper/x": "y"})
    assert stepped.serves() == {5: "five"}
    assert uploaded(stepped) == ["5/deeper/x", "5/model"]
    assert "upload" in [o.kind for o in status.overrides]
    stepped.write("m/6/model", "six")
    stepped.settle()
    assert stepped.serves() == {5: "five"}
    load(stepped, {"5/model": "another five"})
    assert stepped.serves() == {5: "another five"}
    assert uploaded(stepped) == ["5/model"]
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {6: "six"}
    assert uploaded(stepped) == []


@BOTH
def test_a_model_that_the_repository_does_not_have(stepped: SteppedManager) -> None:
    load(stepped, {"1/model": "brought"}, name="new")
    stepped.settle()
    assert stepped.serves("new") == {1: "brought"}
    with pytest.raises(NotFound, match="it stays"):
        stepped.do(stepped.manager.load("new", by="me"))
    assert stepped.serves("new") == {1: "brought"}
    stepped.do(stepped.manager.unload("new", by="me"))
    with pytest.raises(NotFound):
        stepped.manager.acquire("new")
    stepped.settle()
    assert uploaded(stepped) == []
    with pytest.raises(NotFound, match="'newer'"):
        load(stepped, name="newer")


@BOTH
def test_a_load_that_fails_changes_nothing(stepped: SteppedManager) -> None:
    for files in ({"2/model": "bad graph"}, {"9/model": "bad graph"}):
        with pytest.raises(Conflict, match="bad graph"):
            load(stepped, files)
        stepped.settle()
        stepped.later(100)
        assert stepped.serves() == {2: "two"}
        assert stepped.version(2).state is State.AVAILABLE
        assert stepped.version(2).error == ""
        assert stepped.loader.loads[-1][2] == "bad graph"  # once: it is not tried again
        assert uploaded(stepped) == []
    load(stepped, {"3/model": "three"})
    with pytest.raises(Conflict, match="bad graph"):
        load(stepped, {"2/model": "bad graph"})
    stepped.settle()
    assert stepped.serves() == {3: "three"}
    assert uploaded(stepped) == ["3/model"]


@BOTH
def test_a_failed_load_of_an_unloaded_model_leaves_it_unloaded(stepped: SteppedManager) -> None:
    stepped.do(stepped.manager.unload("m", by="me"))
    with pytest.raises(Conflict, match="bad graph"):
        load(stepped, {"2/model": "bad graph"})
    stepped.settle()
    assert stepped.serves() == {}
    assert [o.kind for o in stepped.status().overrides] == ["unloaded"]


@BOTH
@pytest.mark.parametrize(
    "path",
    ["", "1", "1/", "/1/model", "1//model", "../1/model", "1/../../model", "1/..", "1/.", "x/model", "-1/model",
     "1/a\0b", "1/a\nb", "1/" + "n" * 256, "1" + "/d" * 20, "¹/model", "1.0/model"],
)  # fmt: skip
def test_paths_that_lead_out_of_the_directory_are_refused(stepped: SteppedManager, path: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest, match="file:"):
        load(stepped, {path: "x", "1/model": "one"})
    assert sorted(tmp_path.rglob("*")) == before
    assert stepped.serves() == {2: "two"}


@BOTH
@pytest.mark.parametrize("name", ["../m", "/etc", ".hidden", "a/b", "m\0", "m.tmp", "", ".."])
def test_invalid_model_names_are_refused(stepped: SteppedManager, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name that a model's directory could have"):
        load(stepped, {"1/model": "one"}, name=name)
    assert uploaded(stepped) == []


@BOTH
def test_contradicting_or_too_many_files_are_refused(stepped: SteppedManager) -> None:
    for files, words in (
        ({"1/a": "", "1/a/b": ""}, "given as a file and as a directory"),
        ({"1/a": "", "01/a": ""}, "given twice"),
        ({"1/model.part": "x"}, "still being written"),
        ({f"1/{number}": "" for number in range(1001)}, "at most 1000 files"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            load(stepped, files)
    assert uploaded(stepped) == []


@BOTH
def test_uploads_are_bounded_together(stepped: SteppedManager) -> None:
    load(stepped, {"1/model": "x" * 600}, name="a")
    with pytest.raises(Overloaded, match="1000 bytes together: 600 are taken, got 401 more"):
        load(stepped, {"1/model": "x" * 401}, name="b")
    load(stepped, {"1/model": "x" * 400}, name="b")
    stepped.do(stepped.manager.unload("a", by="me"))
    load(stepped, {"1/model": "x" * 600}, name="c")


@BOTH
def test_of_two_loads_at_once_the_second_waits(stepped: SteppedManager) -> None:
    first = stepped.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": b"three"}))
    second = stepped.manager.load("m", by="you", replacement=Replacement("{}", {"4/model": b"bad four"}))
    stepped.do(first)
    with pytest.raises(Conflict, match="bad four"):
        stepped.do(second)
    stepped.settle()
    assert stepped.serves() == {3: "three"}
    assert uploaded(stepped) == ["3/model"]


@BOTH
def test_a_plain_load_ends_a_load_with_settings(stepped: SteppedManager) -> None:
    stepped.pool.held.add("m")
    brought = stepped.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": b"three"}))
    stepped.see()
    plain = stepped.manager.load("m", by="you")
    stepped.see()
    with pytest.raises(Conflict, match="another load or unload came"):
        brought.result(timeout=0)
    stepped.pool.held.clear()
    stepped.do(plain)
    stepped.settle()
    assert stepped.serves() == {2: "two"}
    assert uploaded(stepped) == []


def test_files_left_by_an_earlier_process_are_removed(
    tmp_path: Path, make_stepped: Callable[..., SteppedManager]
) -> None:
    left = tmp_path / "state" / "uploads" / "model-1" / "1"
    left.mkdir(parents=True)
    stepped = make_stepped(server={"state_dir": str(tmp_path / "state")})
    stepped.uploads.clean()
    assert not left.exists()
    assert (tmp_path / "state").exists()


def ask_for(stepped: SteppedManager, text: str) -> Any:
    """An upload of version 3, which somebody is about to ask for."""
    return stepped.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": text.encode()}))


def give_up(stepped: SteppedManager, text: str) -> None:
    """Such an upload, whose caller goes away while the version loads."""
    stepped.pool.held.add("m")
    future = ask_for(stepped, text)
    stepped.see()
    assert future.cancel()
    stepped.pool.held.clear()
    stepped.run()


@BOTH
def test_a_failed_load_is_undone_after_its_caller_has_gone(stepped: SteppedManager) -> None:
    """A client's deadline may be shorter than a load."""
    give_up(stepped, "bad: broken")
    stepped.settle()
    assert stepped.serves() == {2: "two"}
    assert not [override for override in stepped.status().overrides if override.kind == "upload"]
    assert uploaded(stepped) == []


@BOTH
def test_replaced_files_are_removed_after_the_caller_has_gone(stepped: SteppedManager) -> None:
    assert load(stepped, {"3/model": "three"}).versions[0].state is State.AVAILABLE
    give_up(stepped, "three, mended")
    assert stepped.serves() == {3: "three, mended"}
    assert len(uploaded(stepped)) == 1


@BOTH
def test_a_load_that_cannot_begin_yet_leaves_failed_versions_their_pauses(stepped: SteppedManager) -> None:
    stepped.write("m/3/model", "bad: broken")
    stepped.settle()
    if stepped.config.repository.mode == "explicit":
        with pytest.raises(Conflict, match="broken"):
            stepped.do(stepped.manager.load("m", by="me"))
    stepped.write("m/4/model", "four")
    stepped.see()
    loads = len(stepped.loader.loads)
    brought = stepped.manager.load("m", by="me", replacement=Replacement("{}"))
    stepped.see()
    assert not brought.done(), "version 4 has not settled"
    assert len(stepped.loader.loads) == loads, "version 3 was tried again before its time"
    stepped.settle()
    assert brought.result(0).versions[0].state is State.AVAILABLE


@BOTH
def test_a_load_cancelled_before_it_begins_does_nothing(stepped: SteppedManager) -> None:
    future = ask_for(stepped, "three")
    assert future.cancel()
    stepped.see()
    assert stepped.serves() == {2: "two"}
    assert uploaded(stepped) == []


@BOTH
def test_a_load_cancelled_before_the_next_scan_still_cleans_up(stepped: SteppedManager) -> None:
    future = ask_for(stepped, "three")
    stepped.spawned.pop(0)()  # the files are written
    assert future.cancel()
    stepped.see()
    stepped.do(stepped.manager.load("m", by="me"))
    assert stepped.serves() == {2: "two"}
    assert uploaded(stepped) == []


@BOTH
def test_files_written_while_the_server_stops_are_removed(stepped: SteppedManager) -> None:
    future = ask_for(stepped, "three")
    place = Path(str(stepped.config.server.state_dir)) / "uploads"
    stepped.manager.begin_stop(0.0)
    stepped.uploads.close()
    stepped.spawned.pop(0)()
    with pytest.raises(Unavailable, match="shutting down"):
        future.result(0)
    assert not place.exists()


@BOTH
def test_a_write_during_the_stop_leaves_nothing(stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch) -> None:
    write = uploads._write

    def end_first(file: Path, content: bytes) -> None:
        stepped.uploads.close()
        write(file, content)

    monkeypatch.setattr(uploads, "_write", end_first)
    with pytest.raises(Unavailable, match="shutting down"):
        stepped.uploads.write({("3", "model"): b"three"})
    assert not (Path(str(stepped.config.server.state_dir)) / "uploads").exists()
