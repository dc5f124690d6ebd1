"""What a scan lists for a directory tree: layouts, links and incomplete copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.disk import Disk, ready
from support.lifecycle import SteppedManager

from inferd.server.repository import layout
from inferd.server.repository.tree import content_hash


def test_which_directories_are_models_and_versions(disk: Disk) -> None:
    disk.write("m/1/model")
    disk.write("m/0/model")
    disk.write("m/00000123/model")
    disk.write("m/notes/readme")
    disk.write("m/7.tmp/model")
    disk.write("m/-3/model")
    disk.write("m/٣/model")
    disk.write("m/99999999999999999999/model")
    disk.write("m/.8/model")
    disk.write(".git/1/model")
    disk.write("docs/readme")
    disk.write("a file")
    listing = disk.scan()
    assert list(listing.models) == ["m"]
    assert [version.number for version in listing.models["m"].versions] == [123, 1, 0]
    assert listing.models["m"].versions[0].path.name == "00000123"


def test_a_model_without_versions_says_what_is_expected(disk: Disk) -> None:
    disk.write("m/model.yaml", "")
    assert "expected a directory named by an integer" in disk.model().error


def test_two_directories_for_one_version_are_an_error_of_that_version(disk: Disk) -> None:
    disk.write("m/7/model")
    disk.write("m/007/model")
    disk.write("m/6/model")
    model = disk.model()
    assert ready(model) == [6]
    assert model.version(7).error == "version 7 has 2 directories: 007, 7"  # type: ignore[union-attr]


def test_old_files_count_at_once_on_the_first_scan_only(disk: Disk) -> None:
    disk.write("m/1/model")
    assert ready(disk.model()) == [1]
    disk.write("m/2/model")
    assert ready(disk.model()) == [1]
    assert disk.scanner.due == disk.clock() + 2
    assert ready(disk.model(after=1.9)) == [1]
    assert ready(disk.model(after=0.1)) == [2, 1]
    assert disk.scanner.due is None


def test_fresh_files_wait_on_the_first_scan_too(disk: Disk) -> None:
    file = disk.write("m/1/model")
    disk.clock.offset = file.stat().st_ctime + 1 - disk.clock()
    assert ready(disk.model()) == []
    assert ready(disk.model(after=2)) == [1]


@pytest.mark.parametrize("change", ["grow", "touch", "replace", "add", "remove", "chmod"])
def test_every_change_restarts_the_settle_time(disk: Disk, change: str) -> None:
    disk.scan()
    file = disk.write("m/1/model")
    disk.write("m/1/extra")
    disk.scan()
    disk.clock.advance(1.9)
    match change:
        case "grow":
            file.write_text("longer than before")
        case "touch":
            os.utime(file, (5, 5))
        case "replace":
            os.replace(disk.write("m/1/.new"), file)
        case "add":
            disk.write("m/1/variables/variables.index")
        case "remove":
            (disk.root / "m/1/extra").unlink()
        case "chmod":
            file.chmod(0o600)
    assert ready(disk.model()) == []
    assert ready(disk.model(after=1.9)) == []
    assert ready(disk.model(after=0.1)) == [1]


@pytest.mark.parametrize("name", ["w.bin.tmp", "w.bin.part", "w.bin.filepart", "w.bin~", "deep/er/w.part"])
def test_partial_files_hold_a_version_back(disk: Disk, name: str) -> None:
    disk.write("m/1/model")
    disk.write(f"m/1/{name}")
    model = disk.model()
    assert ready(model) == []
    assert "still being written" in model.versions[0].held
    assert not model.versions[0].settling
    (disk.root / "m/1" / name).unlink()
    disk.settled()
    assert ready(disk.model()) == [1]


def test_a_version_waits_for_the_ready_file(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "models", ready_file="READY")
    disk.write("m/1/model")
    assert "READY is not there yet" in disk.model().versions[0].held
    disk.write("m/1/READY")
    disk.settled()
    assert ready(disk.model()) == [1]


def test_with_settle_zero_a_version_is_ready_at_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "models", settle=0.0)
    disk.root.mkdir()
    disk.scan()
    disk.write("m/1/model")
    assert ready(disk.model()) == [1]


def test_links_may_lead_inside_and_to_allowed_targets(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    allowed = tmp_path / "allowed"
    disk = Disk(tmp_path / "models", allowed_link_targets=(str(allowed),))
    disk.write("m/1/model")
    for place in (outside, allowed):
        place.mkdir()
        (place / "model").write_text("far")
    (disk.root / "m/2").mkdir()
    (disk.root / "m/2/model").symlink_to("../1/model")
    (disk.root / "m/3").symlink_to(allowed)
    (disk.root / "m/4").symlink_to(outside)
    (disk.root / "m/5").mkdir()
    (disk.root / "m/5/model").symlink_to(outside / "model")
    (disk.root / "n").symlink_to(outside)
    listing = disk.scan()
    model = listing.models["m"]
    assert ready(model) == [3, 2, 1]
    for number in (4, 5):
        error = model.version(number).error  # type: ignore[union-attr]
        assert "outside the repository" in error
        assert "repository.allowed_link_targets" in error
    assert "outside the repository" in listing.models["n"].error


def test_a_name_that_begins_like_the_root_is_not_inside_it(disk: Disk) -> None:
    sibling = disk.root.with_name("models-of-others")
    sibling.mkdir()
    (disk.root / "m").mkdir()
    (disk.root / "m/1").symlink_to(sibling)
    assert "outside" in disk.model().versions[0].error


def test_a_circular_link_is_an_error(disk: Disk) -> None:
    disk.write("m/1/model")
    (disk.root / "m/1/again").symlink_to(".")
    assert disk.model().versions[0].error != ""


def test_a_pipe_in_a_version_is_not_opened(disk: Disk) -> None:
    disk.write("m/1/model")
    os.mkfifo(disk.root / "m/1/pipe")
    assert "not a regular file" in disk.model().versions[0].error


def test_a_link_without_a_target_holds_a_version_back(disk: Disk) -> None:
    disk.write("m/1/model")
    (disk.root / "m/1/data").symlink_to("coming-soon")
    assert "leads nowhere yet" in disk.model().versions[0].held


def test_a_model_whose_name_is_a_number_is_a_model(disk: Disk) -> None:
    disk.write("42/1/model")
    assert ready(disk.model("42")) == [1]


def test_a_configmap_swaps_its_data_without_a_reload_when_the_content_is_the_same(stepped: SteppedManager) -> None:
    def publish(stamp: str, text: str) -> None:
        data = stepped.root / "m/1" / stamp
        data.mkdir(parents=True)
        (data / "model").write_text(text)
        link = stepped.root / "m/1/..data_tmp"
        link.symlink_to(stamp)
        os.replace(link, stepped.root / "m/1/..data")

    publish("..2026_01", "one")
    (stepped.root / "m/1/model").symlink_to("..data/model")
    stepped.see()
    assert stepped.serves() == {1: "one"}
    publish("..2026_02", "one")
    stepped.settle()
    assert len(stepped.loader.loads) == 1
    publish("..2026_03", "two")
    shutil.rmtree(stepped.root / "m/1/..2026_01")
    stepped.settle()
    assert stepped.serves() == {1: "two"}


def test_names_that_are_not_utf8_do_not_disturb_other_models(stepped: SteppedManager) -> None:
    odd = os.fsdecode(b"caf\xe9")
    stepped.write("m/1/model", "one")
    stepped.write(f"m/1/{odd}", "x")
    stepped.write(f"{odd}/1/model", "x")
    stepped.write(f"held/1/{odd}.part", "x")
    stepped.see()
    assert [model.name for model in stepped.manager.models()] == ["held", "m"]
    assert "caf\\udce9.part" in " ".join(stepped.version(1, "held").notes)
    (stepped.root / "m/1/model").touch()
    stepped.settle()
    assert len(stepped.loader.loads) == 1


def test_missing_versions_of_a_policy_or_pin_are_named(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "version_policy: {specific: [1, 5]}")
    stepped.write("m/1/model")
    stepped.write("m/2/model")
    stepped.see()
    assert stepped.status().error == "not on disk: version 5, which version_policy.specific asks for"
    stepped.do(stepped.manager.rollback("m", 2, by="me"))
    shutil.rmtree(stepped.root / "m/2")
    stepped.settle()
    assert stepped.status().error == "not on disk: version 2, which an operator's pin asks for"


def test_long_errors_are_truncated(stepped: SteppedManager) -> None:
    stepped.write("m/1/model", "bad" * 10_000)
    stepped.see()
    assert len(stepped.version(1).error) == 2000


def test_too_many_versions_are_an_error_of_their_model(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_VERSIONS", 2)
    for number in (1, 2, 3):
        disk.write(f"m/{number}/model")
    disk.write("good/1/model")
    listing = disk.settled()
    assert "more than 2 versions: remove old ones" in listing.models["m"].error
    assert ready(listing.models["good"]) == [1]


def test_one_directory_under_two_names_is_listed_once_and_its_links_count(disk: Disk) -> None:
    disk.write("m/1/a/model")
    disk.write("m/1/c/model")
    (disk.root / "m/1/b").symlink_to("a")
    before = disk.settled().models["m"].versions[0].tree
    assert [(file.path, file.same_as) for file in before.files] == [("a/model", ""), ("b", "a/"), ("c/model", "")]
    (disk.root / "m/1/b").unlink()
    (disk.root / "m/1/b").symlink_to("c")
    after = disk.settled().models["m"].versions[0].tree
    assert after != before
    path = disk.root / "m/1"
    assert content_hash(path, after) != content_hash(path, before)
