"""What does not fit into memory.models is not loaded, with the arithmetic, and what is served stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.waiting import eventually

from inferd.backends.api import LoadError
from inferd.server.app import App
from inferd.server.config.load import load_config
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.resources.memory_budget import MemoryBudget
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

MIB = 2**20


class Process:
    """Memory that a test sets."""

    def __init__(self) -> None:
        self.nbytes = 500 * MIB

    def __call__(self) -> int:
        return self.nbytes


@pytest.fixture
def process() -> Process:
    return Process()


def request(tmp_path: Path, name: str, mib: int, number: int = 1, **config: object) -> LoadRequest:
    directory = tmp_path / name / str(number)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "model.onnx").open("wb") as file:
        file.truncate(mib * MIB)
    disk = VersionOnDisk(number, directory, read_tree(directory))
    return LoadRequest(ServableId(name, number), number, disk, ModelConfig.model_validate(config), ())


def test_a_refusal_shows_the_arithmetic(tmp_path: Path, process: Process) -> None:
    budget = MemoryBudget(300 * MIB, process)
    budget.reserve(request(tmp_path, "a", 100))
    budget.reserve(request(tmp_path, "b", 50))
    with pytest.raises(LoadError) as refused:
        budget.reserve(request(tmp_path, "a", 110, 2))
    assert str(refused.value) == (
        "it does not fit: it takes about 132 MiB (110 MiB of files × 1.2), and of the 300 MiB of memory.models "
        "180 MiB are taken (a:1 120 MiB, b:1 60 MiB)"
    )
    budget.reserve(request(tmp_path, "c", 100))


def test_each_instance_counts(tmp_path: Path, process: Process) -> None:
    budget = MemoryBudget(300 * MIB, process)
    with pytest.raises(LoadError, match=r"about 360 MiB \(300 MiB of files for 3 copies × 1\.2\).*by none"):
        budget.reserve(request(tmp_path, "a", 100, instances={"count": 3}))
    budget.reserve(request(tmp_path, "a", 100, instances={"count": 3}, stateful=True))


def test_closed_and_failed_versions_release_their_memory(tmp_path: Path, process: Process) -> None:
    budget = MemoryBudget(130 * MIB, process)
    first, second = request(tmp_path, "a", 100), request(tmp_path, "a", 100, 2)
    budget.reserve(first)
    budget.loaded(first)
    with pytest.raises(LoadError):
        budget.reserve(second)
    budget.release(first.id, first.generation)
    budget.release(first.id, first.generation)
    budget.reserve(second)


def test_a_measured_load_counts_and_predicts_the_next(tmp_path: Path, process: Process) -> None:
    budget = MemoryBudget(1000 * MIB, process)
    first, second = request(tmp_path, "a", 100), request(tmp_path, "a", 200, 2)
    budget.reserve(first)
    process.nbytes += 300 * MIB
    budget.loaded(first)
    assert budget.estimate(second) == 600 * MIB
    assert budget.estimate(request(tmp_path, "b", 100)) == 120 * MIB
    budget.reserve(second)
    with pytest.raises(LoadError, match="900 MiB are taken"):
        budget.reserve(request(tmp_path, "b", 100))


@pytest.mark.parametrize("disturbance", ["another load", "an unload", "an import", "elsewhere"])
def test_a_load_that_cannot_be_measured_keeps_its_estimate(
    tmp_path: Path, process: Process, monkeypatch: pytest.MonkeyPatch, disturbance: str
) -> None:
    budget = MemoryBudget(1000 * MIB, process)
    old = request(tmp_path, "old", 10)
    budget.reserve(old)
    budget.loaded(old)
    own = request(tmp_path, "a", 100)
    budget.reserve(own)
    match disturbance:
        case "another load":
            budget.reserve(request(tmp_path, "b", 10))
        case "an unload":
            budget.release(old.id, old.generation)
        case "an import":
            for number in range(60):
                monkeypatch.setitem(__import__("sys").modules, f"framework_part_{number}", object())
    process.nbytes += 300 * MIB
    budget.loaded(own, elsewhere=disturbance == "elsewhere")
    assert budget.estimate(own) == 120 * MIB


def test_a_load_counts_at_least_the_size_of_its_files(tmp_path: Path, process: Process) -> None:
    budget = MemoryBudget(1000 * MIB, process)
    own = request(tmp_path, "a", 100)
    budget.reserve(own)
    process.nbytes -= 50 * MIB
    budget.loaded(own)
    assert budget.estimate(own) == 100 * MIB


def test_a_version_that_does_not_fit_leaves_the_old_one_in_service(tmp_path: Path) -> None:
    from benchmarks.models import write_mlp

    root = tmp_path / "models"
    write_mlp(root / "m" / "1" / "model.onnx", 512, 2)
    size = (root / "m" / "1" / "model.onnx").stat().st_size
    app = App(
        load_config(
            flags={
                "repository.roots": [str(root)],
                "repository.settle": "0s",
                "repository.poll": "50ms",
                "server.listen": ["127.0.0.1:0"],
                "server.http": [],
                "load.retry_min": "100ms",
                "load.retry_max": "100ms",
                "memory.models": "300MiB",
            }
        )
    )
    app.start()
    try:
        assert app.manager.wait_ready(60)
        write_mlp(tmp_path / "next" / "model.onnx", 512, 2)
        with (tmp_path / "next" / "ballast").open("wb") as file:  # sparse: it is counted, not written
            file.truncate(400 * MIB)
        shutil.move(tmp_path / "next", root / "m" / "2")

        def refused() -> str:
            return next((v.error for v in app.manager.status("m").versions if v.id.version == 2 and v.error), "")

        said = eventually(refused, "version 2 is refused")
        assert said.startswith("it does not fit: it takes about ")
        assert "of the 300 MiB of memory.models" in said
        assert f"{size / MIB:.0f} MiB" in said
        handle = app.manager.acquire("m")
        assert handle.servable.id.version == 1
        handle.release()
        (root / "m" / "2" / "ballast").unlink()

        def newer() -> bool:
            handle = app.manager.acquire("m")
            handle.release()
            return handle.servable.id.version == 2

        eventually(newer, "version 2, smaller now, is served")
    finally:
        app.stop()
