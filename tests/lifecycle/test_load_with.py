"""Loads that bring settings or files of their own: in force until the next plain load, undone when they fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lifecycle import House

from inferd.server.config.schema import ModelConfig
from inferd.server.errors import Conflict, InvalidRequest, NotFound, Overloaded, ServingError, Unavailable
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.state import State
from inferd.server.repository import uploads

BOTH = pytest.mark.parametrize("mode", ["watch", "explicit"])


@pytest.fixture
def house(tmp_path: Path, mode: str) -> Iterator[House]:
    """With version 1 and 2 of "m", loaded by the policy (the newest)."""
    found = House(
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


def load(house: House, files: dict[str, str] | None = None, /, name: str = "m", **config: Any) -> Any:
    contents = {path: text.encode() for path, text in (files or {}).items()}
    return house.do(house.manager.load(name, by="me", replacement=Replacement(json.dumps(config), contents)))


def config(house: House) -> ModelConfig:
    return house.loader.requests[-1].config


def uploaded(house: House) -> list[str]:
    place = Path(str(house.config.server.state_dir)) / "uploads"
    return sorted(
        str(path.relative_to(place).as_posix().split("/", 1)[1]) for path in place.rglob("*") if path.is_file()
    )


@BOTH
def test_settings_of_a_load_apply_until_the_next_plain_load(house: House) -> None:
    house.write("m/model.yaml", "batching: {max_batch_size: 3}\nlabels: {stable: 2}\n")
    house.settle()
    house.do(house.manager.load("m", by="me"))
    assert config(house).batching.max_batch_size == 3
    status = load(house, max_batch_size=7, versionPolicy={"all": {}}, instance_group=[{"count": "2"}], rate=1)
    assert house.serves() == {1: "one", 2: "two"}
    assert config(house).batching.max_batch_size == 7
    assert config(house).instances.count == 2
    assert config(house).labels == {"stable": 2}
    assert [(o.kind, o.by, o.persistent) for o in status.overrides if o.kind == "config"] == [("config", "me", False)]
    assert "'config' of the load: not honoured: rate" in house.version(1).notes
    house.settle()
    house.do(house.manager.load("m", 2, by="me"))  # of one version: not a load of the model
    assert house.serves() == {1: "one", 2: "two"}
    status = house.do(house.manager.load("m", by="me"))
    assert house.serves() == {2: "two"}
    assert config(house).batching.max_batch_size == 3
    assert not [o for o in status.overrides if o.kind == "config"]


@BOTH
def test_an_unload_ends_the_settings_of_a_load(house: House) -> None:
    load(house, version_policy={"specific": {"versions": ["1"]}})
    assert house.serves() == {1: "one"}
    house.do(house.manager.unload("m", by="me"))
    assert house.serves() == {}
    house.do(house.manager.load("m", by="me"))
    assert house.serves() == {2: "two"}


@BOTH
def test_settings_stand_in_for_a_file_that_cannot_be_read(house: House) -> None:
    house.write("m/config.pbtxt", "max_batch_size: ten")
    house.settle()
    with pytest.raises(Conflict, match="expected an integer"):
        house.do(house.manager.load("m", by="me"))
    status = load(house, max_batch_size=7)
    assert status.error == ""
    assert config(house).batching.max_batch_size == 7


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
def test_invalid_settings_change_nothing(house: House, text: str, words: str) -> None:
    before = house.story()
    with pytest.raises(ServingError, match=words):
        house.do(house.manager.load("m", by="me", replacement=Replacement(text)))
    house.settle()
    assert house.serves() == {2: "two"}
    assert house.story() == before


@BOTH
def test_uploaded_files_replace_the_models_directory(house: House) -> None:
    status = load(house, {"5/model": "five", "05/deeper/x": "y"})
    assert house.serves() == {5: "five"}
    assert uploaded(house) == ["5/deeper/x", "5/model"]
    assert "upload" in [o.kind for o in status.overrides]
    house.write("m/6/model", "six")
    house.settle()
    assert house.serves() == {5: "five"}
    load(house, {"5/model": "another five"})
    assert house.serves() == {5: "another five"}
    assert uploaded(house) == ["5/model"]
    house.do(house.manager.load("m", by="me"))
    assert house.serves() == {6: "six"}
    assert uploaded(house) == []


@BOTH
def test_a_model_that_the_repository_does_not_have(house: House) -> None:
    load(house, {"1/model": "brought"}, name="new")
    house.settle()
    assert house.serves("new") == {1: "brought"}
    with pytest.raises(NotFound, match="it stays"):
        house.do(house.manager.load("new", by="me"))
    assert house.serves("new") == {1: "brought"}
    house.do(house.manager.unload("new", by="me"))
    with pytest.raises(NotFound):
        house.manager.acquire("new")
    house.settle()
    assert uploaded(house) == []
    with pytest.raises(NotFound, match="'newer'"):
        load(house, name="newer")


@BOTH
def test_a_load_that_fails_changes_nothing(house: House) -> None:
    for files in ({"2/model": "bad graph"}, {"9/model": "bad graph"}):
        with pytest.raises(Conflict, match="bad graph"):
            load(house, files)
        house.settle()
        house.later(100)
        assert house.serves() == {2: "two"}
        assert house.version(2).state is State.AVAILABLE
        assert house.version(2).error == ""
        assert house.loader.loads[-1][2] == "bad graph"  # once: it is not tried again
        assert uploaded(house) == []
    load(house, {"3/model": "three"})
    with pytest.raises(Conflict, match="bad graph"):
        load(house, {"2/model": "bad graph"})
    house.settle()
    assert house.serves() == {3: "three"}
    assert uploaded(house) == ["3/model"]


@BOTH
def test_a_failed_load_of_an_unloaded_model_leaves_it_unloaded(house: House) -> None:
    house.do(house.manager.unload("m", by="me"))
    with pytest.raises(Conflict, match="bad graph"):
        load(house, {"2/model": "bad graph"})
    house.settle()
    assert house.serves() == {}
    assert [o.kind for o in house.status().overrides] == ["unloaded"]


@BOTH
@pytest.mark.parametrize(
    "path",
    ["", "1", "1/", "/1/model", "1//model", "../1/model", "1/../../model", "1/..", "1/.", "x/model", "-1/model",
     "1/a\0b", "1/a\nb", "1/" + "n" * 256, "1" + "/d" * 20, "¹/model", "1.0/model"],
)  # fmt: skip
def test_paths_that_lead_out_of_the_directory_are_refused(house: House, path: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest, match="file:"):
        load(house, {path: "x", "1/model": "one"})
    assert sorted(tmp_path.rglob("*")) == before
    assert house.serves() == {2: "two"}


@BOTH
@pytest.mark.parametrize("name", ["../m", "/etc", ".hidden", "a/b", "m\0", "m.tmp", "", ".."])
def test_invalid_model_names_are_refused(house: House, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name that a model's directory could have"):
        load(house, {"1/model": "one"}, name=name)
    assert uploaded(house) == []


@BOTH
def test_contradicting_or_too_many_files_are_refused(house: House) -> None:
    for files, words in (
        ({"1/a": "", "1/a/b": ""}, "given as a file and as a directory"),
        ({"1/a": "", "01/a": ""}, "given twice"),
        ({"1/model.part": "x"}, "still being written"),
        ({f"1/{number}": "" for number in range(1001)}, "at most 1000 files"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            load(house, files)
    assert uploaded(house) == []


@BOTH
def test_uploads_are_bounded_together(house: House) -> None:
    load(house, {"1/model": "x" * 600}, name="a")
    with pytest.raises(Overloaded, match="1000 bytes together: 600 are taken, got 401 more"):
        load(house, {"1/model": "x" * 401}, name="b")
    load(house, {"1/model": "x" * 400}, name="b")
    house.do(house.manager.unload("a", by="me"))
    load(house, {"1/model": "x" * 600}, name="c")


@BOTH
def test_of_two_loads_at_once_the_second_waits(house: House) -> None:
    first = house.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": b"three"}))
    second = house.manager.load("m", by="you", replacement=Replacement("{}", {"4/model": b"bad four"}))
    house.do(first)
    with pytest.raises(Conflict, match="bad four"):
        house.do(second)
    house.settle()
    assert house.serves() == {3: "three"}
    assert uploaded(house) == ["3/model"]


@BOTH
def test_a_plain_load_ends_a_load_with_settings(house: House) -> None:
    house.pool.held.add("m")
    brought = house.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": b"three"}))
    house.see()
    plain = house.manager.load("m", by="you")
    house.see()
    with pytest.raises(Conflict, match="another load or unload came"):
        brought.result(timeout=0)
    house.pool.held.clear()
    house.do(plain)
    house.settle()
    assert house.serves() == {2: "two"}
    assert uploaded(house) == []


def test_files_left_by_an_earlier_process_are_removed(tmp_path: Path, make_house: Callable[..., House]) -> None:
    left = tmp_path / "state" / "uploads" / "model-1" / "1"
    left.mkdir(parents=True)
    house = make_house(server={"state_dir": str(tmp_path / "state")})
    house.uploads.clean()
    assert not left.exists()
    assert (tmp_path / "state").exists()


def ask_for(house: House, text: str) -> Any:
    """An upload of version 3, which somebody is about to ask for."""
    return house.manager.load("m", by="me", replacement=Replacement("{}", {"3/model": text.encode()}))


def give_up(house: House, text: str) -> None:
    """Such an upload, whose caller goes away while the version loads."""
    house.pool.held.add("m")
    future = ask_for(house, text)
    house.see()
    assert future.cancel()
    house.pool.held.clear()
    house.run()


@BOTH
def test_a_failed_load_is_undone_after_its_caller_has_gone(house: House) -> None:
    """A client's deadline may be shorter than a load."""
    give_up(house, "bad: broken")
    house.settle()
    assert house.serves() == {2: "two"}
    assert not [override for override in house.status().overrides if override.kind == "upload"]
    assert uploaded(house) == []


@BOTH
def test_replaced_files_are_removed_after_the_caller_has_gone(house: House) -> None:
    assert load(house, {"3/model": "three"}).versions[0].state is State.AVAILABLE
    give_up(house, "three, mended")
    assert house.serves() == {3: "three, mended"}
    assert len(uploaded(house)) == 1


@BOTH
def test_a_load_that_cannot_begin_yet_leaves_failed_versions_their_pauses(house: House) -> None:
    house.write("m/3/model", "bad: broken")
    house.settle()
    if house.config.repository.mode == "explicit":
        with pytest.raises(Conflict, match="broken"):
            house.do(house.manager.load("m", by="me"))
    house.write("m/4/model", "four")
    house.see()
    loads = len(house.loader.loads)
    brought = house.manager.load("m", by="me", replacement=Replacement("{}"))
    house.see()
    assert not brought.done(), "version 4 has not settled"
    assert len(house.loader.loads) == loads, "version 3 was tried again before its time"
    house.settle()
    assert brought.result(0).versions[0].state is State.AVAILABLE


@BOTH
def test_a_load_cancelled_before_it_begins_does_nothing(house: House) -> None:
    future = ask_for(house, "three")
    assert future.cancel()
    house.see()
    assert house.serves() == {2: "two"}
    assert uploaded(house) == []


@BOTH
def test_a_load_cancelled_before_the_next_scan_still_cleans_up(house: House) -> None:
    future = ask_for(house, "three")
    house.spawned.pop(0)()  # the files are written
    assert future.cancel()
    house.see()
    house.do(house.manager.load("m", by="me"))
    assert house.serves() == {2: "two"}
    assert uploaded(house) == []


@BOTH
def test_files_written_while_the_server_stops_are_removed(house: House) -> None:
    future = ask_for(house, "three")
    place = Path(str(house.config.server.state_dir)) / "uploads"
    house.manager.begin_stop(0.0)
    house.uploads.close()
    house.spawned.pop(0)()
    with pytest.raises(Unavailable, match="shutting down"):
        future.result(0)
    assert not place.exists()


@BOTH
def test_a_write_during_the_stop_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write = uploads._write

    def end_first(file: Path, content: bytes) -> None:
        house.uploads.close()
        write(file, content)

    monkeypatch.setattr(uploads, "_write", end_first)
    with pytest.raises(Unavailable, match="shutting down"):
        house.uploads.write({("3", "model"): b"three"})
    assert not (Path(str(house.config.server.state_dir)) / "uploads").exists()
