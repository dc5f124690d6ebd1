"""One suite over every backend: what `inferd.backends.api` promises, on tiny real artefacts (see `support.backends`)."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import (
    BIAS,
    WEIGHTS,
    WIDE,
    BackendCase,
    Cannot,
    load_cases,
    opened,
    request_for,
    running,
    sample,
    unaligned,
)

from inferd.backends.api import (
    Backend,
    BackendError,
    Instance,
    InvalidInput,
    LoadError,
    Model,
    Placement,
)
from inferd.wire.dtypes import DType, dtype_of

CASES = load_cases()
ONE_ROW = np.array([[1, -2, 0.5, 3]], np.float32)


def marks(case: BackendCase) -> list[pytest.MarkDecorator]:
    there = importlib.util.find_spec(case.module) is not None
    absent = pytest.mark.skipif(not there, reason=f"{case.module} is not installed")
    return [absent, pytest.mark.heavy] if case.heavy else [absent]


@pytest.fixture(params=[pytest.param(c, id=c.id, marks=marks(c)) for c in CASES])
def case(request: pytest.FixtureRequest) -> Iterator[BackendCase]:
    try:
        yield request.param
    except Cannot as reason:
        pytest.skip(f"{request.param.id}: {reason}")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    return directory


def write(case: BackendCase, model: str, directory: Path) -> Any:
    try:
        return case.write(model, directory)
    except Cannot as reason:
        pytest.skip(f"{case.id} has no such model: {reason}")


def expected_linear(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x @ WEIGHTS + BIAS


def name_of(found: Any) -> str:
    return found.signature.name


# ---- finding and opening


def test_a_new_backend_tells_its_name_and_the_names_triton_knows(case: BackendCase) -> None:
    backend = case.backend()
    assert isinstance(backend, Backend)
    assert backend.name
    assert backend.platforms


def test_finds_nothing_in_an_empty_or_foreign_directory(case: BackendCase, version: Path) -> None:
    backend = case.backend()
    assert backend.find(version) is None
    (version / "notes.txt").write_text("hello")
    (version / "sub").mkdir()
    assert backend.find(version) is None


def test_finds_its_artefact_and_calls_it_complete(case: BackendCase, version: Path) -> None:
    write(case, "linear", version)
    backend = case.backend()
    artefact = backend.find(version)
    assert artefact is not None
    assert artefact == version or artefact.parent == version
    assert backend.complete(artefact) is None
    for path in backend.files(artefact):
        assert path.exists()


def test_refuses_what_it_recognises_and_says_how_to_convert(case: BackendCase, version: Path) -> None:
    refusals = case.refusals()
    if not refusals:
        pytest.skip("recognises no refused artefacts")
    for name, word in refusals.items():
        (version / name).write_bytes(b"\x80\x04 pickled or hdf5")
        with pytest.raises(LoadError, match=word):
            case.backend().find(version)
        (version / name).unlink()


def test_signatures_tell_names_types_and_shapes(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        assert isinstance(found.model, Model)
        (x,) = found.signature.inputs
        (y,) = found.signature.outputs
        assert (x.name, x.dtype, x.shape) == ("x", DType.FP32, (-1, 4))
        assert (y.name, y.dtype) == ("y", DType.FP32)
        assert y.shape in ((-1, 3), (-1, -1), None)


def test_a_scalar_input_has_rank_nought(case: BackendCase, version: Path) -> None:
    with opened_or_skip(case, "scalar", version) as found:
        specs = {s.name: s for s in found.signature.inputs}
        assert specs["factor"].shape == ()
        with running(found) as instance:
            x = sample(DType.FP32, (2, 3))
            got = instance.run(name_of(found), {"x": x, "factor": np.array(3, np.float32)})
        np.testing.assert_allclose(got["y"], x * 3, rtol=1e-6)


def test_an_unknown_option_is_refused_with_the_known_ones(case: BackendCase, version: Path) -> None:
    declared = write(case, "linear", version)
    backend = case.backend()
    with pytest.raises(LoadError, match=r"no_such_option.*(known|one of|are)") as refused:
        model = backend.open(request_for(backend, version, declared, {"no_such_option": 1}))
        model.close()
    assert "\n  File " not in str(refused.value)


# ---- running


def test_answers_are_right_alone_in_a_batch_and_with_no_rows(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found, running(found) as instance:
        assert isinstance(instance, Instance)
        for x in (ONE_ROW, sample(DType.FP32, (7, 4)), np.zeros((0, 4), np.float32)):
            got = instance.run(name_of(found), {"x": x})
            assert set(got) == {"y"}
            assert got["y"].dtype == np.float32
            assert got["y"].shape == (len(x), 3)
            assert got["y"].flags.c_contiguous
            np.testing.assert_allclose(got["y"], expected_linear(x), rtol=1e-5, atol=1e-5)


def test_nan_and_infinity_pass_through(case: BackendCase, version: Path) -> None:
    x = np.array([[np.nan, 0, 0, 0], [np.inf, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    with opened(case, "linear", version) as found, running(found) as instance:
        y = instance.run(name_of(found), {"x": x})["y"]
    assert np.isnan(y[0]).all()
    assert not np.isfinite(y[1]).any()
    np.testing.assert_allclose(y[2], expected_linear(x[2:])[0], rtol=1e-5)


@pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.name)
def test_element_types_come_back_bit_for_bit(case: BackendCase, version: Path, dtype: DType) -> None:
    if dtype not in case.dtypes:
        pytest.skip(f"{case.id} is not tested with {dtype.name}")
    with opened(case, "identity", version, dtype) as found, running(found) as instance:
        assert found.signature.inputs[0].dtype is dtype
        assert found.signature.outputs[0].dtype is dtype
        for rows in (1, 3, 0):
            x = sample(dtype, (rows, 2))
            y = instance.run(name_of(found), {"x": x})["y"]
            assert dtype_of(y) is dtype
            assert y.shape == x.shape
            if dtype is DType.STRING:
                assert y.tolist() == x.tolist()
                assert all(isinstance(word, bytes) for word in y.flat)
            else:
                assert y.tobytes() == x.tobytes()


def test_inputs_and_outputs_go_by_name_and_outputs_can_be_chosen(case: BackendCase, version: Path) -> None:
    with opened_or_skip(case, "two", version) as found, running(found) as instance:
        a, b = sample(DType.FP32, (2, 2), 1), sample(DType.FP32, (2, 2), 2)
        assert {s.name for s in found.signature.inputs} == {"a", "b"}
        both = instance.run(name_of(found), {"a": a, "b": b})
        np.testing.assert_allclose(both["sum"], a + b, rtol=1e-6)
        np.testing.assert_allclose(both["difference"], b - a, rtol=1e-6)
        for wanted in (["difference"], ["sum"], ["difference", "sum"]):
            some = instance.run(name_of(found), {"b": b, "a": a}, wanted)
            assert set(some) == set(wanted)
            for name in wanted:
                np.testing.assert_array_equal(some[name], both[name])


def test_outputs_belong_to_the_caller(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found, running(found) as instance:
        first = instance.run(name_of(found), {"x": ONE_ROW})["y"]
        kept = first.copy()
        for seed in range(20):
            instance.run(name_of(found), {"x": sample(DType.FP32, (1, 4), seed)})
        np.testing.assert_array_equal(first, kept)
        if first.flags.writeable:
            first[:] = 77
        np.testing.assert_array_equal(instance.run(name_of(found), {"x": ONE_ROW})["y"], kept)
    np.testing.assert_array_equal(kept, expected_linear(ONE_ROW))
    if first.flags.writeable:
        assert (first == 77).all(), "outputs live on after close"


@pytest.mark.parametrize("model", ["linear", "identity"])
def test_outputs_never_alias_inputs(case: BackendCase, version: Path, model: str) -> None:
    with opened(case, model, version) as found, running(found) as instance:
        x = sample(DType.FP32, (2, 4 if model == "linear" else 2))
        before = x.copy()
        y = instance.run(name_of(found), {"x": x})["y"]
        kept = y.copy()
        if not found.model.traits.may_write_inputs:
            np.testing.assert_array_equal(x, before)
        x[:] = -1
        np.testing.assert_array_equal(y, kept)


@pytest.mark.parametrize("model", ["linear", "identity", "scalar", "two"])
def test_reads_request_bytes_in_place_as_the_traits_allow(case: BackendCase, version: Path, model: str) -> None:
    with opened_or_skip(case, model, version) as found, running(found) as instance:
        traits = found.model.traits
        assert traits.alignment >= 1
        inputs = {}
        for i, spec in enumerate(found.signature.inputs):
            array = sample(spec.dtype, tuple(3 if d < 0 else d for d in spec.shape or ()), i)
            if not traits.may_write_inputs and traits.alignment == 1:
                array = unaligned(np.ascontiguousarray(array))
            elif not traits.may_write_inputs:
                array.flags.writeable = False
            inputs[spec.name] = array
        before = {name: array.copy() for name, array in inputs.items()}
        got = instance.run(name_of(found), inputs)
        want = instance.run(name_of(found), before)
        for name, array in got.items():
            np.testing.assert_array_equal(array, want[name])


# ---- refusing


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda x: {"x": x.reshape(4)}, id="rank"),
        pytest.param(lambda x: {"x": np.ones((1, 5), np.float32)}, id="size"),
        pytest.param(lambda x: {"x": x.astype(np.float64)}, id="dtype"),
        pytest.param(lambda x: {"x": np.array([[b"a", b"b", b"c", b"d"]], object)}, id="strings"),
        pytest.param(lambda x: {}, id="missing"),
        pytest.param(lambda x: {"x": x, "stranger": x}, id="stranger"),
    ],
)
def test_wrong_inputs_are_the_callers_fault(case: BackendCase, version: Path, wrong: Callable[[Any], Any]) -> None:
    with opened(case, "linear", version) as found, running(found) as instance:
        with pytest.raises(InvalidInput) as refused:
            instance.run(name_of(found), wrong(ONE_ROW))
        assert_fit_for_clients(refused.value)
        np.testing.assert_allclose(
            instance.run(name_of(found), {"x": ONE_ROW})["y"], expected_linear(ONE_ROW), rtol=1e-5
        )


def test_an_unknown_output_or_signature_is_refused(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found, running(found) as instance:
        with pytest.raises(InvalidInput, match="stranger"):
            instance.run(name_of(found), {"x": ONE_ROW}, ["stranger"])
        with pytest.raises(InvalidInput, match="stranger"):
            instance.run("stranger", {"x": ONE_ROW})


def test_a_failing_model_fails_its_run_only(case: BackendCase, version: Path) -> None:
    with opened_or_skip(case, "picky", version) as found, running(found) as instance:
        x = sample(DType.FP32, (2, 2))
        for _ in range(3):
            with pytest.raises(BackendError) as failed:
                instance.run(name_of(found), {"x": sample(DType.FP32, (3, 2))})
            assert not isinstance(failed.value, LoadError)
            assert_fit_for_clients(failed.value)
            np.testing.assert_array_equal(instance.run(name_of(found), {"x": x})["y"], x)


def test_an_absent_device_is_a_load_error_never_another_device(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        for device in ("cuda:99", "tpu:0"):
            with pytest.raises(LoadError, match=device.partition(":")[0]):
                found.model.instance(Placement(device)).close()
        with running(found, Placement("cpu", 1)) as instance:
            assert instance.run(name_of(found), {"x": ONE_ROW})["y"].shape == (1, 3)


def test_the_cpu_is_always_among_the_devices(case: BackendCase) -> None:
    assert "cpu" in case.backend().devices()


# ---- files that are cut short, replaced, or gone


def artefact_files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def test_a_truncated_artefact_is_refused_and_never_crashes(case: BackendCase, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    declared = write(case, "linear", whole)
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
            # A file that does not matter (a fingerprint, a comment at the end) may be cut: then the answer must be right.
            if refused is None:
                np.testing.assert_allclose(served, expected_linear(ONE_ROW), rtol=1e-5, err_msg=f"{file.name}[:{keep}]")


def test_an_empty_artefact_is_incomplete_or_refused(case: BackendCase, version: Path) -> None:
    declared = write(case, "linear", version)
    for file in artefact_files(version):
        file.write_bytes(b"")
    backend = case.backend()
    with suppress(LoadError):
        artefact = backend.find(version)
        if artefact is not None and backend.complete(artefact) is None:
            with pytest.raises(LoadError):
                backend.open(request_for(backend, version, declared)).instance(Placement())


def test_garbage_is_refused(case: BackendCase, version: Path) -> None:
    declared = write(case, "linear", version)
    rng = np.random.default_rng(3)
    for file in artefact_files(version):
        file.write_bytes(rng.bytes(max(64, file.stat().st_size)))
    backend = case.backend()
    with pytest.raises(LoadError) as refused:
        model = backend.open(request_for(backend, version, declared))
        model.instance(Placement())
    assert_fit_for_clients(refused.value)


@pytest.mark.parametrize("how", ["truncated", "overwritten", "deleted"])
def test_an_opened_version_needs_its_files_no_more(case: BackendCase, version: Path, how: str) -> None:
    x = sample(DType.FP32, (2, WIDE))
    with opened_or_skip(case, "wide", version) as found, running(found) as early:
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


# ---- several at once


def test_instances_are_independent(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        first = found.model.instance(Placement())
        with running(found) as second:
            first.run(name_of(found), {"x": ONE_ROW})
            first.close()
            got = second.run(name_of(found), {"x": ONE_ROW})["y"]
            np.testing.assert_allclose(got, expected_linear(ONE_ROW), rtol=1e-5)


def test_two_versions_live_side_by_side(case: BackendCase, tmp_path: Path) -> None:
    with opened(case, "linear", tmp_path / "1") as old, running(old) as a:
        with opened_or_skip(case, "identity", tmp_path / "2") as new, running(new) as b:
            x = sample(DType.FP32, (2, 2))
            np.testing.assert_array_equal(b.run(name_of(new), {"x": x})["y"], x)
        np.testing.assert_allclose(a.run(name_of(old), {"x": ONE_ROW})["y"], expected_linear(ONE_ROW), rtol=1e-5)


def test_threads_at_once_each_get_their_own_rows(case: BackendCase, version: Path) -> None:
    """On one instance where the traits say so, else on one instance per thread."""
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


def test_runs_and_closes_on_another_thread_than_it_was_made_on(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found, ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        instance = one.submit(found.model.instance, Placement()).result(60)
        got = other.submit(instance.run, name_of(found), {"x": ONE_ROW}).result(60)
        np.testing.assert_allclose(got["y"], expected_linear(ONE_ROW), rtol=1e-5)
        other.submit(instance.close).result(60)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_thread_budget_is_kept(case: BackendCase, version: Path, threads: int) -> None:
    with opened(case, "linear", version) as found, running(found, Placement("cpu", threads)) as instance:
        told = case.threads_of(instance)
        if told is None:
            pytest.skip("the framework does not tell")
        assert told == threads


# ---- closing


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def test_memory_comes_back_when_a_version_is_closed(case: BackendCase, version: Path) -> None:
    """Opens, runs and closes a 4 MiB model thirty times: 120 MiB would stay if the weights leaked."""
    import ctypes
    import gc

    declared = write(case, "wide", version)
    backend = case.backend()
    x = sample(DType.FP32, (1, WIDE))

    def cycle() -> None:
        model = backend.open(request_for(backend, version, declared))
        instance = model.instance(Placement())
        instance.run(model.signatures[0].name, {"x": x})
        instance.close()
        model.close()
        del instance, model
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    for _ in range(5):
        cycle()
    before = resident()
    for _ in range(30):
        cycle()
    assert resident() - before < 60 * 2**20


def opened_or_skip(case: BackendCase, model: str, directory: Path) -> Any:
    """`opened`, with the test skipped where the framework has no such model."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory.parent / f"probe-{directory.name}"
    probe.mkdir()
    try:
        case.write(model, probe)
    except Cannot as reason:
        pytest.skip(f"{case.id} has no such model: {reason}")
    finally:
        shutil.rmtree(probe)
    return opened(case, model, directory)


def assert_fit_for_clients(error: BaseException) -> None:
    text = str(error)
    assert text.strip()
    assert "Traceback" not in text
    assert 'File "' not in text
