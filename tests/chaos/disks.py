"""Full disks, files that cannot be read, a repository that vanishes, versions that come faster than they load."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.scenario import Scenario, checked_code
from chaos.stage import LIMIT, Setup, Stage
from support.marked import write_version
from support.waiting import eventually

from inferd.client import InferdError

_SMALL = Setup(disk=4 << 20, sets=("server.state_dir={disk}/state",))
_LOGGED = Setup(disk=4 << 20, sets=("log.file={disk}/inferd.log", "log.max_size=1MiB"))
_PIECE = 64 << 10


def _no_room(error: OSError) -> None:
    assert error.errno == errno.ENOSPC, error


def _fill(file: Path) -> None:
    """Writes to a file until the disk has no free byte."""
    with file.open("ab", buffering=0) as out:
        size = _PIECE
        while size:
            try:
                out.write(bytes(size))
            except OSError as error:
                _no_room(error)
                size //= 2


@contextmanager
def _full(stage: Stage) -> Iterator[None]:
    ballast = stage.disk / ".ballast"
    _fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()


def _next(stage: Stage, model: str = "m") -> int:
    """A version number higher than all existing ones."""
    return max((int(p.name) for p in (stage.root / model).iterdir() if p.name.isdigit()), default=0) + 1


def _succeed(stage: Stage) -> None:
    """Publishes a version, waits until it is served, and removes all older ones."""
    version = _next(stage)
    stage.publish("m", version)
    stage.available("m", version)
    for older in range(1, version):
        shutil.rmtree(stage.root / "m" / str(older), ignore_errors=True)


class DiskFullAtPublish(Scenario):
    name = "disk-full-at-publish"
    fault = "the repository's disk becomes full during a copy, into a hidden directory and in place"
    promise = "the current version goes on serving; half a version is never served; with free space, the next one is"
    setup = _SMALL

    def strike(self, stage: Stage) -> None:
        version = _next(stage)
        whole = stage.place / "whole"
        write_version("onnx", whole, version, ballast=64 << 10)
        content = (whole / "model.onnx").read_bytes()
        shutil.rmtree(whole)
        with _full(stage):
            for place in (stage.root / "m" / ".tmp", stage.root / "m" / str(version)):
                try:
                    place.mkdir(exist_ok=True)
                    (place / "model.onnx").write_bytes(content)
                except OSError as error:
                    _no_room(error)
                    stage.notes["copies cut off"] += 1
            stage.more(100)
            with stage.client() as client:
                assert version not in client.status("m").available
        shutil.rmtree(stage.root / "m" / ".tmp", ignore_errors=True)
        shutil.rmtree(stage.root / "m" / str(version), ignore_errors=True)
        _succeed(stage)


class DiskFullForState(Scenario):
    name = "disk-full-for-state"
    fault = "the disk of `server.state_dir` is full when an operator's override is to be stored"
    promise = "the operator gets an error or is told that it is not stored; stored overrides stay intact"
    setup = _SMALL

    def strike(self, stage: Stage) -> None:
        with stage.client() as client:
            newest = client.status("m").available[0]
            client.set_label("m", "kept", newest)
            kept = {path: path.read_bytes() for path in (stage.disk / "state").rglob("*.json")}
            assert kept
            with _full(stage):
                try:
                    reply = client.set_label("m", "lost", newest)
                except InferdError as error:
                    checked_code(error)
                    stage.notes["override refused"] += 1
                else:
                    assert not reply.persistent, "stored on a full disk?"
                    stage.notes["override kept in memory, and said so"] += 1
                    client.set_label("m", "lost", None)
                stage.more(50)
                for path, content in kept.items():
                    assert path.read_bytes() == content, "a stored override is damaged"
            assert client.set_label("m", "kept", newest).persistent


class DiskFullForLog(Scenario):
    name = "disk-full-for-log"
    fault = "the disk of `log.file` is full when lines are to be written"
    promise = "requests are answered, log lines are lost; with free space, lines are written again"
    setup = _LOGGED

    def strike(self, stage: Stage) -> None:
        log = stage.disk / "inferd.log"
        with stage.client() as client:
            with _full(stage):
                for _ in range(2):
                    client.unload("walled")
                    client.load("walled")
                stage.more(50)
            size = log.stat().st_size

            def grows() -> bool:
                client.unload("walled")
                client.load("walled")
                return log.stat().st_size > size

            eventually(grows, "the log is written again", stage.tail, LIMIT)


class UnreadableVersions(Scenario):
    name = "unreadable-versions"
    fault = "new versions whose artefact is a directory, a dangling link, a link out of the root, a pipe, or is empty"
    promise = (
        "each fails with a reason or is not taken for a version; the old version goes on serving; a complete new"
        " version is loaded"
    )

    def strike(self, stage: Stage) -> None:
        first = _next(stage)
        broken = [stage.root / "m" / str(first + i) for i in range(5)]
        for place in broken:
            place.mkdir()
        (broken[0] / "model.onnx").mkdir()
        (broken[1] / "model.onnx").symlink_to("nowhere")
        (broken[2] / "model.onnx").symlink_to("/proc/self/mem")
        os.mkfifo(broken[3] / "model.onnx")
        (broken[4] / "model.onnx").touch()
        with stage.client() as client:
            eventually(
                lambda: [v for v in client.status("m").versions if v.version >= first and v.error],
                "the reasons are in the status", lambda: client.status("m"), LIMIT,
            )  # fmt: skip
            stage.more(200)
            status = client.status("m")
            assert not [v for v in status.available if v >= first], status
            stage.notes["reported"] += len([v for v in status.versions if v.version >= first and v.error])
        for place in broken:
            shutil.rmtree(place)
        _succeed(stage)


class PermissionLost(Scenario):
    name = "permission-lost"
    fault = "the server's user loses the right to read the repository, the model, a new version's file"
    promise = "the served versions go on serving; when the right is back, the new version is loaded"
    setup = Setup(user=True)

    def strike(self, stage: Stage) -> None:
        version = _next(stage)
        model = stage.root / "m"
        for place in (stage.root, model):
            place.chmod(0o700)
            stage.more(200)
            with stage.client() as client:
                stage.notes["versions kept"] += len(client.status("m").available)
            place.chmod(0o755)
        hidden = model / f".tmp-{version}"
        write_version("onnx", hidden, version)
        (hidden / "model.onnx").chmod(0o600)
        hidden.rename(model / str(version))
        stage.more(200)
        with stage.client() as client:
            assert version not in client.status("m").available
        (model / str(version) / "model.onnx").chmod(0o644)
        stage.available("m", version)
        for older in range(1, version):
            shutil.rmtree(model / str(older), ignore_errors=True)


class RootVanishes(Scenario):
    name = "root-vanishes"
    shown = "e2e/test_hot_reload.py::test_a_vanished_root_keeps_what_is_served"
    fault = "the repository is renamed, replaced by a file, removed, and comes back"
    promise = "the served versions go on serving, and new versions are found when it is back"

    def strike(self, stage: Stage) -> None:
        away = stage.root.with_name("away")
        stage.root.rename(away)
        stage.more(100)
        stage.root.touch()
        stage.more(100)
        stage.root.unlink()
        away.rename(stage.root)
        _succeed(stage)


class VersionChurn(Scenario):
    name = "version-churn"
    fault = "100 versions in a row, faster than they can be loaded, old ones removed meanwhile"
    promise = "no call fails, each is answered by one complete version; at the end the last one serves"

    def strike(self, stage: Stage) -> None:
        first = _next(stage)
        last = first + 99
        for version in range(first, last + 1):
            stage.publish("m", version)
            if version - 10 >= 1:
                shutil.rmtree(stage.root / "m" / str(version - 10), ignore_errors=True)
        stage.notes["versions"] += 100
        stage.available("m", last)
        for older in range(last - 10, last):
            shutil.rmtree(stage.root / "m" / str(older), ignore_errors=True)


SCENARIOS = (
    DiskFullAtPublish,
    DiskFullForState,
    DiskFullForLog,
    UnreadableVersions,
    PermissionLost,
    RootVanishes,
    VersionChurn,
)
