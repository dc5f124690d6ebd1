"""Repository roots that vanish, come back, are swapped or cannot be read, and several roots together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.disk import Disk, ready
from support.lifecycle import SteppedManager


def test_a_model_in_two_roots_is_refused(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "one", tmp_path / "two")
    disk.write("m/1/model")
    disk.write("a/1/model")
    disk.write("../two/m/1/model")
    disk.write("../two/b/1/model")
    listing = disk.scan()
    assert "two repositories" in listing.models["m"].error
    assert listing.models["m"].config is None
    assert ready(listing.models["a"]) == ready(listing.models["b"]) == [1]


def test_a_root_given_twice_is_scanned_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "models", tmp_path / "x" / ".." / "models")
    disk.write("m/1/model")
    assert disk.model().error == ""


def test_a_root_that_vanishes_keeps_its_models(disk: Disk) -> None:
    disk.write("m/1/model")
    disk.scan()
    disk.root.rename(disk.root.with_name("elsewhere"))
    for _ in range(5):
        listing = disk.scan(after=10)
        assert ready(listing.models["m"]) == [1]
        assert "cannot be read" in listing.errors[0]
    disk.root.with_name("elsewhere").rename(disk.root)
    listing = disk.scan()
    assert (ready(listing.models["m"]), listing.errors) == ([1], ())


def test_an_empty_mount_point_unloads_no_model(disk: Disk) -> None:
    disk.write("m/1/model")
    disk.scan()
    disk.root.rename(disk.root.with_name("unmounted"))
    disk.root.mkdir()  # the empty mount point that is left when a disk is unmounted
    for _ in range(5):
        listing = disk.scan(after=10)
        assert ready(listing.models["m"]) == [1]
        assert "is it mounted?" in listing.errors[0]


def test_deleting_the_last_model_counts_after_the_settle_time(disk: Disk) -> None:
    disk.write("m/1/model")
    disk.scan()
    shutil.rmtree(disk.root / "m")
    assert list(disk.scan().models) == ["m"]
    assert list(disk.scan(after=1.9).models) == ["m"]
    assert list(disk.scan(after=0.1).models) == []


def test_a_model_that_comes_back_within_the_settle_time_stays(disk: Disk) -> None:
    disk.write("m/1/model")
    disk.write("other/1/model")
    disk.scan()
    (disk.root / "m").rename(disk.root / ".m")
    assert ready(disk.scan(after=1).models["m"]) == [1]
    (disk.root / ".m").rename(disk.root / "m")
    disk.scan(after=0.5)
    (disk.root / "m").rename(disk.root / ".m")
    assert "m" in disk.scan(after=0.6).models, "the settle time has started again"


def test_a_root_that_does_not_exist_yet_is_reported(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "later")
    listing = disk.scan()
    assert (listing.models, listing.complete) == ({}, False)
    assert "later cannot be read" in listing.errors[0]
    disk.root.mkdir()
    assert disk.scan().complete


def test_an_unreadable_root_does_not_disturb_the_other(
    tmp_path: Path, make_stepped: Callable[..., SteppedManager]
) -> None:
    stepped = make_stepped(repository={"roots": (str(tmp_path / "models"), str(tmp_path / "absent"))})
    stepped.write("m/1/model", "one")
    stepped.see()
    assert stepped.serves() == {1: "one"}
    assert not stepped.manager.ready(), "the content of the other root is not known yet"
    (tmp_path / "absent").mkdir()
    stepped.see()
    assert stepped.manager.ready()


def test_two_roots_with_one_name_keep_what_was_served_first(
    tmp_path: Path, make_stepped: Callable[..., SteppedManager]
) -> None:
    stepped = make_stepped(repository={"roots": (str(tmp_path / "models"), str(tmp_path / "second"))})
    (tmp_path / "second").mkdir()
    stepped.write("m/1/model", "one")
    stepped.see()
    stepped.write("../second/m/1/model", "else")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    assert "two repositories" in stepped.status().error
    shutil.rmtree(stepped.root / "m")
    stepped.settle()
    assert stepped.serves() == {1: "else"}
    assert stepped.status().error == ""


@pytest.fixture
def locked() -> Iterator[Callable[[Path], None]]:
    paths: list[Path] = []

    def lock(path: Path) -> None:
        path.chmod(0)
        paths.append(path)

    yield lock
    for path in paths:
        path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_directories_that_cannot_be_read_are_reported(disk: Disk, locked: Callable[[Path], None]) -> None:
    disk.write("a/1/model")
    disk.write("b/1/model")
    disk.scan()
    locked(disk.root / "a")
    locked(disk.root / "b/1")
    listing = disk.scan(after=60)
    assert ready(listing.models["a"]) == [1]
    assert "cannot be read" in listing.models["a"].error
    assert "cannot be read" in listing.models["b"].versions[0].error


def test_unreadable_directories_keep_what_is_served(stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped.write("a/1/model", "a")
    stepped.write("b/1/model", "b")
    stepped.write("c/1/model", "c")
    stepped.see()
    scandir = os.scandir

    def failing(path: Any) -> Any:
        place = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        if place.endswith(("/a", "/b/1")):
            raise OSError(116, "Stale file handle", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    for _ in range(3):
        stepped.settle()
    assert (stepped.serves("a"), stepped.serves("b"), stepped.serves("c")) == ({1: "a"}, {1: "b"}, {1: "c"})
    assert "Stale file handle" in stepped.status("a").error
    assert "Stale file handle" in stepped.version(1, "b").error
    monkeypatch.undo()
    stepped.settle()
    assert stepped.status("a").error == stepped.version(1, "b").error == ""
    assert len(stepped.loader.loads) == 3


def test_a_root_swapped_by_git_sync_is_followed(tmp_path: Path, make_stepped: Callable[..., SteppedManager]) -> None:
    def checkout(name: str, text: str, *, versions: int = 1) -> None:
        for number in range(1, versions + 1):
            (tmp_path / name / "m" / str(number)).mkdir(parents=True)
            (tmp_path / name / "m" / str(number) / "model").write_text(text)
        link = tmp_path / ".link"
        link.symlink_to(name)
        os.replace(link, tmp_path / "current")

    checkout("abc", "one")
    stepped = make_stepped(repository={"roots": (str(tmp_path / "current"),)})
    stepped.see()
    assert stepped.serves() == {1: "one"}
    checkout("def", "one", versions=2)
    stepped.settle()
    assert stepped.serves() == {2: "one"}
    checkout("aba", "other")
    stepped.settle()
    assert stepped.serves() == {1: "other"}
    shutil.rmtree(tmp_path / "aba")
    for _ in range(3):
        stepped.settle()
    assert stepped.serves() == {1: "other"}
    assert stepped.manager.repository_errors()
