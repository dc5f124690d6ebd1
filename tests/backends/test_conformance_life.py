"""The second part of the conformance suite: damaged files, several instances at the same time, freed memory."""

from __future__ import annotations

import ctypes
import gc
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support.backends import (
    ONE_ROW,
    WIDE,
    BackendCase,
    assert_fit_for_clients,
    expected_linear,
    name_of,
    opened,
    request_for,
    running,
    sample,
)

from inferd.backends.api import LoadError, Placement
from inferd.wire.dtypes import DType

# ---- files that are truncated, replaced or missing


def artefact_files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def test_a_truncated_artefact_is_refused_and_never_crashes(case: BackendCase, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    declared = case.write("linear", whole)
    backend = case.backend()
    for file in artefact_files(whole):
        size = file.stat().st_size
        for keep in sorted({0, 1, size // 3, size // 2, size - 1} - {size}):
            if keep < 0 or size == 0:
                continue
            cut = tmp_path / f"{file.name}-{keep}" / "1"
            shutil.copytree(whole, cut)
            target = cut / file.relative_to(whole)
            with target.open("r+b") as f:
                f.truncate(keep)
            refused = None
            served = None
            try:
                artefact = backend.find(cut)
                if artefact is None or backend.complete(artefact) is not None:
                    continue
                model = backend.open(request_for(backend, cut, declared))
                try:
                    instance = model.instance(Placement())
                    served = instance.run(model.signatures[0].name, {"x": ONE_ROW})["y"]
                    instance.close()
                finally:
                    model.close()
            except LoadError as error:
                refused = error
                assert_fit_for_clients(error)
            # A file of no importance (a fingerprint, a comment) may be truncated; the answers must still be right.
            if refused is None:
                np.testing.assert_allclose(served, expected_linear(ONE_ROW), rtol=1e-5, err_msg=f"{file.name}[:{keep}]")


def test_an_empty_artefact_is_incomplete_or_refused(case: BackendCase, version: Path) -> None:
    declared = case.write("linear", version)
    for file in artefact_files(version):
        file.write_bytes(b"")
    backend = case.backend()
    with suppress(LoadError):
        artefact = backend.find(version)
        if artefact is not None and backend.complete(artefact) is None:
            with pytest.raises(LoadError):
                backend.open(request_for(backend, version, declared)).instance(Placement())


def test_garbage_is_refused(case: BackendCase, version: Path) -> None:
    declared = case.write("linear", version)
    rng = np.random.default_rng(3)
    for file in artefact_files(version):
        file.write_bytes(rng.bytes(max(64, file.stat().st_size)))
    backend = case.backend()
    with pytest.raises(LoadError) as refused:
        backend.open(request_for(backend, version, declared)).instance(Placement())
    assert_fit_for_clients(refused.value)


@pytest.mark.parametrize("how", ["truncated", "overwritten", "deleted"])
def test_an_opened_version_does_not_need_its_files(case: BackendCase, version: Path, how: str) -> None:
    x = sample(DType.FP32, (2, WIDE))
    with opened(case, "wide", version) as found, running(found) as early:
        np.testing.assert_allclose(early.run(name_of(found), {"x": x})["y"], 2 * x, rtol=1e-5)
        for file in artefact_files(version):
            if how == "deleted":
                file.unlink()
                continue
            size = file.stat().st_size
            with file.open("r+b") as f:
                if how == "truncated":
                    f.truncate(0)
                else:
                    f.write(b"\xa5" * size)
        np.testing.assert_allclose(early.run(name_of(found), {"x": x})["y"], 2 * x, rtol=1e-5)
        with running(found) as late:
            np.testing.assert_allclose(late.run(name_of(found), {"x": x})["y"], 2 * x, rtol=1e-5)


# ---- several at the same time


def test_instances_are_independent(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        first = found.model.instance(Placement())
        with running(found) as second:
            first.run(name_of(found), {"x": ONE_ROW})
            first.close()
            got = second.run(name_of(found), {"x": ONE_ROW})["y"]
            np.testing.assert_allclose(got, expected_linear(ONE_ROW), rtol=1e-5)


def test_two_versions_can_be_open_at_the_same_time(case: BackendCase, tmp_path: Path) -> None:
    with opened(case, "linear", tmp_path / "1") as old, running(old) as a:
        with opened(case, "identity", tmp_path / "2") as new, running(new) as b:
            x = sample(DType.FP32, (2, 2))
            np.testing.assert_array_equal(b.run(name_of(new), {"x": x})["y"], x)
        np.testing.assert_allclose(a.run(name_of(old), {"x": ONE_ROW})["y"], expected_linear(ONE_ROW), rtol=1e-5)


def test_concurrent_threads_get_their_own_rows(case: BackendCase, version: Path) -> None:
    """With one instance if the traits allow it, else with one instance for each thread."""
    workers = 4
    with opened(case, "linear", version) as found:
        name = name_of(found)
        shared = found.model.traits.concurrent
        instances = [found.model.instance(Placement()) for _ in range(1 if shared else workers)]
        start = threading.Barrier(workers)

        def call(worker: int) -> None:
            instance = instances[worker % len(instances)]
            start.wait(30)
            for i in range(50):
                x = sample(DType.FP32, (1 + i % 3, 4), 1000 * worker + i)
                got = instance.run(name, {"x": x})["y"]
                np.testing.assert_allclose(got, expected_linear(x), rtol=1e-4, atol=1e-4)

        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(call, w) for w in range(workers)]:
                done.result(60)
        for instance in instances:
            instance.close()


def test_an_instance_runs_and_closes_on_another_thread(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found, ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        instance = one.submit(found.model.instance, Placement()).result(60)
        got = other.submit(instance.run, name_of(found), {"x": ONE_ROW}).result(60)
        np.testing.assert_allclose(got["y"], expected_linear(ONE_ROW), rtol=1e-5)
        other.submit(instance.close).result(60)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_instance_uses_its_number_of_threads(case: BackendCase, version: Path, threads: int) -> None:
    with opened(case, "linear", version) as found, running(found, Placement("cpu", threads)) as instance:
        told = case.threads_of(instance)
        if told is None:
            pytest.skip("the framework does not tell")
        assert told == threads


# ---- closing


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def test_closing_a_version_frees_its_memory(case: BackendCase, version: Path) -> None:
    """Opens, runs and closes a model of 4 MiB twenty times: if the weights leaked, the memory would grow by 80 MiB."""
    if case.id.startswith("isolated"):
        pytest.skip("the memory is that of another process: see tests/isolation")
    declared = case.write("wide", version)
    backend = case.backend()
    x = sample(DType.FP32, (1, WIDE))

    def cycles(count: int) -> int:
        for _ in range(count):
            model = backend.open(request_for(backend, version, declared))
            instance = model.instance(Placement())
            instance.run(model.signatures[0].name, {"x": x})
            instance.close()
            model.close()
        del instance, model
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return resident()

    before = cycles(4)
    assert cycles(20) - before < 40 * 2**20
