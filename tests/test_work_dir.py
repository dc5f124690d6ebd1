"""The private directory of a process: nothing in it outlives the process by more than one start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.server.work_dir import WorkDir, WorkDirError

HOLD = """
import os, sys
from pathlib import Path
from inferd.server.work_dir import WorkDir
work = WorkDir(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
(work.path / "copy").mkdir()
(work.path / "copy" / "weights").write_bytes(bytes(1000))
print(work.path, flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process with a private directory."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stdout is not None
        self.path = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Path]:
    """The place of temporary files is put back at the end."""
    before = tempfile.tempdir
    yield tmp_path / "work"
    tempfile.tempdir = before


def test_a_killed_process_leaves_what_the_next_start_removes(parent: Path) -> None:
    dead, living = Holder(str(parent)), Holder(str(parent))
    dead.kill()
    assert (dead.path / "copy" / "weights").exists()
    with WorkDir(parent) as work:
        assert work.swept == [dead.path.name]
        assert not dead.path.exists()
        assert (living.path / "copy" / "weights").exists(), "the lock tells the living from the dead"
        with WorkDir(parent) as another:
            assert another.swept == []
    assert sorted(path.name for path in parent.iterdir()) == [living.path.name]
    living.kill()


def test_what_is_not_of_a_process_stays(parent: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("kept")
    parent.mkdir()
    (parent / "inferd-1-link").symlink_to(other)
    (parent / "inferd-2-file").write_text("kept")
    (parent / "models").mkdir()
    with WorkDir(parent):
        pass
    assert sorted(path.name for path in parent.iterdir()) == ["inferd-1-link", "inferd-2-file", "models"]
    assert (other / "file").exists()


def test_it_is_private_and_holds_all_temporary_files(parent: Path) -> None:
    environment: dict[str, str] = {}
    with WorkDir(parent) as work:
        work.use(environment)
        assert work.path.stat().st_mode & 0o077 == 0
        assert environment == {"TMPDIR": str(work.path)}
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == work.path
        (work.path / "left").mkdir()
    assert not work.path.exists()
    assert environment == {}
    assert Path(tempfile.gettempdir()) != work.path
    work.close()  # again


def test_by_default_it_lies_below_the_directory_for_temporary_files(tmp_path: Path) -> None:
    holder = Holder(TMPDIR=str(tmp_path))
    assert holder.path.parent == tmp_path / f"inferd-{os.geteuid()}"
    holder.kill()
    code = HOLD.replace("sys.stdin.read()", "work.close()")
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == [], "the last process leaves nothing"


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_a_directory_that_others_could_have_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    place = tmp_path / f"inferd-{os.geteuid()}"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(WorkDirError, match=r"cannot be used.*set server\.work_dir"):
        WorkDir()


def test_a_place_that_cannot_be_written_is_an_error_that_names_the_setting() -> None:
    for place in ("/proc/nothing", "/dev/null/work"):
        with pytest.raises(
            WorkDirError, match=r"/(proc|dev).*cannot be used.*set server\.work_dir to a writable directory"
        ):
            WorkDir(Path(place))


def test_many_starts_at_once_get_a_directory_each(parent: Path) -> None:
    holders = [Holder(str(parent)) for _ in range(4)]
    assert len({holder.path for holder in holders}) == 4
    assert all(holder.path.exists() for holder in holders)
    for holder in holders:
        holder.kill()
    with WorkDir(parent) as work:
        assert len(work.swept) == 4
