"""The one rule by which files of a repository are found and opened: kinds of files, links, bounds, descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferd.backends import files
from inferd.backends.files import FileRefused, FileRule, LinkRefused, regular_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/m/1").mkdir(parents=True)
    (tmp_path / "root/m/1/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def no_descriptor_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def names(root: Path, **rule: tuple[str, ...] | None) -> dict[str, str | None]:
    """What a walk meets below m: path → the path by which a directory was visited before."""
    with FileRule(str(root), **rule).opened() as opened, opened.find("m") as top:
        descriptor = top.open_directory()
        try:
            return {entry.path: entry.same_as for entry in opened.walk(descriptor, top.shown)}
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("m/1/file", None),
        ("m/1/link", "file"),
        ("m/1/link", "../1/file"),
        ("m/1/link", "{root}/m/1/file"),
        ("m/1/link", "../../../root/m/1/file"),
        ("m/link/1/file", "../m"),
        ("m/link/m/1/file", ".."),
        ("m/1/../1/./file", None),
        ("{root}/m/1/file", None),
    ],
)
def test_files_inside_are_read(root: Path, path: str, target: str | None) -> None:
    if target is not None:
        where = path.partition("link")[0] + "link"
        (root / where).symlink_to(target.format(root=root))
    assert FileRule(str(root)).read(path.format(root=root)) == b"inside"


@pytest.mark.parametrize(
    "target", ["../../../outside/file", "{outside}/file", "/etc/passwd", "/proc/self/root{outside}/file"]
)
def test_links_that_lead_out_are_refused(root: Path, target: str) -> None:
    outside = root.parent / "outside"
    (root / "m/1/link").symlink_to(target.format(outside=outside))
    (root / "m/1/again").symlink_to("link")
    (root / "m/far").symlink_to(outside)
    for path in ("m/1/link", "m/1/again", "m/far/file", "m/far/../outside/file", "../outside/file", str(outside)):
        with pytest.raises(LinkRefused, match=r"outside the repository .*allowed_link_targets"):
            FileRule(str(root)).read(path)
    assert FileRule(str(root), None).read("m/far/file") == b"outside"
    assert FileRule(str(root), ("/nowhere", str(outside))).read("m/far/file") == b"outside"


def test_a_sibling_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    (root.parent / "root2").mkdir()
    (root.parent / "root2/file").write_text("x")
    (root / "m/link").symlink_to("../../root2/file")
    with pytest.raises(LinkRefused):
        FileRule(str(root)).read("m/link")


def test_a_root_behind_a_link_of_proc_works(root: Path) -> None:
    """/proc/PID/root is a link whose text says "/". So KServe mounts an image of a model."""
    (root / "m/1/link").symlink_to("file")
    (root / "m/1/far").symlink_to("../../../outside/file")
    place = f"/proc/{os.getpid()}/root{root}"
    (root.parent / "mounted").symlink_to(place)
    for rule in (FileRule(place), FileRule(str(root.parent / "mounted"))):
        assert rule.read("m/1/link") == b"inside"
        with pytest.raises(LinkRefused):
            rule.read("m/1/far")
    (root / "m/1/absolute").symlink_to(f"{place}/m/1/file")
    assert FileRule(place).read("m/1/absolute") == b"inside"


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "current").symlink_to("root")
    (root / "m/1/link").symlink_to(root / "m/1/file")
    assert FileRule(str(root.parent / "current")).read("m/1/link") == b"inside"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_pipe, "named pipe"), (_socket, "socket"), (_device, "device"), (_directory, "directory")],
)
def test_only_regular_files_are_opened(root: Path, make: Callable[[Path], None], kind: str) -> None:
    make(root / "special")
    with pytest.raises(FileRefused, match=f"special is not a regular file but a {kind}"):
        FileRule(str(root), ("/dev",)).read("special")
    with pytest.raises(FileRefused, match=kind):
        os.close(regular_file(root / "special"))


def test_a_file_that_is_replaced_by_a_pipe_is_not_waited_for(root: Path) -> None:
    with FileRule(str(root)).opened() as opened, opened.find("m/1/file") as found:
        (root / "m/1/file").unlink()
        os.mkfifo(root / "m/1/file")
        with pytest.raises(FileRefused, match="named pipe"):
            found.open()


def test_a_directory_that_is_replaced_by_a_link_out_is_not_followed(root: Path) -> None:
    with FileRule(str(root)).opened() as opened, opened.find("m/1/file") as found:
        os.rename(root / "m/1", root / "m/2")
        (root / "m/1").symlink_to(root.parent / "outside")
        assert found.read() == b"inside"
        (root / "m/2/file").unlink()
        (root / "m/2/file").symlink_to(root.parent / "outside/file")
        with pytest.raises(OSError, match="symbolic links"):
            found.open()


def test_the_size_is_bounded(root: Path) -> None:
    assert FileRule(str(root)).read("m/1/file", 6) == b"inside"
    with pytest.raises(FileRefused, match="file is larger than 5 bytes"):
        FileRule(str(root)).read("m/1/file", 5)


@pytest.mark.parametrize(
    ("path", "number"),
    [("loop", errno.ELOOP), ("nothing", errno.ENOENT), ("m/1/file/x", errno.ENOTDIR), ("x" * 300, errno.ENAMETOOLONG)],
)
def test_what_cannot_be_found_says_why(root: Path, path: str, number: int) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"\w") as raised:
        FileRule(str(root)).read(path)
    assert raised.value.errno == number


def test_a_walk_visits_each_directory_once(root: Path) -> None:
    """2 ** 30 ways lead to the last of these directories."""
    for number in range(31):
        (root / f"m/d{number:02}").mkdir()
    for number in range(30):
        for name in "ab":
            (root / f"m/d{number:02}/{name}").symlink_to(f"../d{number + 1:02}")
    found = names(root)
    assert found["d00/b"] == "d00/a/"
    assert len([path for path, same in found.items() if path.count("/") and same is None]) <= 31


def test_a_walk_ends_at_a_circle(root: Path) -> None:
    (root / "m/1/up").symlink_to("..")
    with pytest.raises(OSError, match="leads back"):
        names(root)


def test_a_walk_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ENTRIES", 3)
    (root / "m/a/b").mkdir(parents=True)
    (root / "m/a/c").mkdir()
    with pytest.raises(OSError, match="more than 3 names"):
        names(root)
    monkeypatch.undo()
    deep = root / "m"
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    with pytest.raises(OSError, match="more than 32 levels"):
        names(root)


def test_a_walk_that_is_left_closes_everything(root: Path) -> None:
    with FileRule(str(root)).opened() as opened, opened.find(".") as top:
        descriptor = top.open_directory()
        walk = opened.walk(descriptor, top.shown)
        assert next(walk).path == "m"
        walk.close()  # type: ignore[attr-defined]
        os.close(descriptor)
