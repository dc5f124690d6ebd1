"""One suite for every backend: the contracts of `inferd.backends.api`, on tiny real artefacts (`support.backends`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import (
    ONE_ROW,
    BackendCase,
    assert_fit_for_clients,
    expected_linear,
    name_of,
    opened,
    request_for,
    request_view,
    running,
    sample,
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

# ---- finding and opening


def test_a_new_backend_has_a_name_and_tritons_platform_names(case: BackendCase) -> None:
    backend = case.backend()
    assert isinstance(backend, Backend)
    assert backend.name
    assert backend.platforms


def test_find_returns_none_for_an_empty_or_unknown_directory(case: BackendCase, version: Path) -> None:
    backend = case.backend()
    assert backend.find(version) is None
    (version / "notes.txt").write_text("hello")
    (version / "sub").mkdir()
    assert backend.find(version) is None


def test_find_returns_the_artefact_and_it_is_complete(case: BackendCase, version: Path) -> None:
    case.write("linear", version)
    backend = case.backend()
    artefact = backend.find(version)
    assert artefact is not None
    assert version in (artefact, artefact.parent)
    assert backend.complete(artefact) is None
    for path in backend.files(artefact):
        assert path.exists()


def test_refused_formats_are_reported_with_the_conversion(case: BackendCase, version: Path) -> None:
    refusals = case.refusals()
    if not refusals:
        pytest.skip("recognises no refused artefacts")
    for name, word in refusals.items():
        (version / name).write_bytes(b"\x80\x04 pickled or hdf5")
        with pytest.raises(LoadError, match=word):
            case.backend().find(version)
        (version / name).unlink()


def test_signatures_have_names_types_and_shapes(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        assert isinstance(found.model, Model)
        (x,) = found.signature.inputs
        (y,) = found.signature.outputs
        assert (x.name, x.dtype, x.shape) == ("x", DType.FP32, (-1, 4))
        assert (y.name, y.dtype) == ("y", DType.FP32)
        assert y.shape in ((-1, 3), (-1, -1), None)


def test_a_scalar_input_has_rank_0(case: BackendCase, version: Path) -> None:
    with opened(case, "scalar", version) as found:
        specs = {s.name: s for s in found.signature.inputs}
        assert specs["factor"].shape == ()
        with running(found) as instance:
            x = sample(DType.FP32, (2, 3))
            got = instance.run(name_of(found), {"x": x, "factor": np.array(3, np.float32)})
        np.testing.assert_allclose(got["y"], x * 3, rtol=1e-6)


def test_an_unknown_option_is_refused_with_the_known_ones(case: BackendCase, version: Path) -> None:
    declared = case.write("linear", version)
    backend = case.backend()
    with pytest.raises(LoadError, match=r"no_such_option.*(known|one of|are)") as refused:
        backend.open(request_for(backend, version, declared, {"no_such_option": 1}))
    assert "\n  File " not in str(refused.value)


# ---- running


def test_outputs_are_right_for_one_row_many_rows_and_none(case: BackendCase, version: Path) -> None:
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


def test_every_element_type_is_returned_bit_for_bit(typed_case: tuple[BackendCase, DType], version: Path) -> None:
    case, dtype = typed_case
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


def test_inputs_and_outputs_are_named_and_outputs_can_be_chosen(case: BackendCase, version: Path) -> None:
    with opened(case, "two", version) as found, running(found) as instance:
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
    with opened(case, model, version) as found, running(found) as instance:
        traits = found.model.traits
        assert traits.alignment >= 1
        inputs = {}
        for i, spec in enumerate(found.signature.inputs):
            array = sample(spec.dtype, tuple(3 if d < 0 else d for d in spec.shape or ()), i)
            inputs[spec.name] = array if traits.may_write_inputs else request_view(array, traits.alignment)
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
def test_wrong_inputs_raise_invalid_input(case: BackendCase, version: Path, wrong: Callable[[Any], Any]) -> None:
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


def test_a_failed_run_does_not_affect_later_runs(case: BackendCase, version: Path) -> None:
    with opened(case, "picky", version) as found, running(found) as instance:
        x = sample(DType.FP32, (2, 2))
        for _ in range(3):
            with pytest.raises(BackendError) as failed:
                instance.run(name_of(found), {"x": sample(DType.FP32, (3, 2))})
            assert not isinstance(failed.value, LoadError)
            assert not isinstance(failed.value, InvalidInput), "the inputs fit the signature: the model has failed"
            assert_fit_for_clients(failed.value)
            np.testing.assert_array_equal(instance.run(name_of(found), {"x": x})["y"], x)


def test_a_missing_device_is_a_load_error_not_another_device(case: BackendCase, version: Path) -> None:
    with opened(case, "linear", version) as found:
        for device in ("cuda:99", "tpu:0"):
            with pytest.raises(LoadError, match=device.partition(":")[0]):
                found.model.instance(Placement(device)).close()
        with running(found, Placement("cpu", 1)) as instance:
            assert instance.run(name_of(found), {"x": ONE_ROW})["y"].shape == (1, 3)


def test_the_cpu_is_always_among_the_devices(case: BackendCase) -> None:
    assert "cpu" in case.backend().devices()
