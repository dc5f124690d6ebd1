"""Warm-up finds a version that cannot keep what its signatures promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.scheduling import FakeModel

from inferd.backends.api import BackendError, BrokenContract, LoadError, Signature, TensorSpec
from inferd.server.scheduling.qualification.contract import check_contract
from inferd.wire.dtypes import DType

F = DType.FP32
GOOD = {"y": np.ones((1, 2), np.float32), "s": np.array([b"a"], object)}
SIGNATURE = Signature(
    "f",
    (TensorSpec("x", F, (-1, 2)),),
    (TensorSpec("y", F, (-1, 2)), TensorSpec("s", DType.STRING, (-1,))),
)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"s": GOOD["s"], "z": GOOD["y"]}, r"output 'y' is missing: expected y, s, got s, z"),
        ({}, "output 'y' is missing: expected y, s, got none"),
        (GOOD | {"y": np.ones((1, 2), np.float16)}, "output 'y': expected FP32, got FP16"),
        (GOOD | {"y": np.ones((1, 2), np.complex64)}, "output 'y': expected FP32, got complex64"),
        (GOOD | {"s": np.ones(1, np.float32)}, "output 's': expected STRING, got FP32"),
        (
            GOOD | {"y": np.ones(2, np.float32)},
            r"output 'y': expected shape \[-1, 2\], got \[2\]",
        ),
        (GOOD | {"y": np.float32(1)}, r"output 'y': expected shape \[-1, 2\], got \[\]"),
    ],
)
def test_what_breaks_a_contract(outputs: Any, words: str) -> None:
    check_contract(SIGNATURE, GOOD)
    with pytest.raises(BrokenContract, match=words):
        check_contract(SIGNATURE, {name: np.asarray(array) for name, array in outputs.items()})


def test_an_output_without_a_declared_shape_may_have_an_assumed_type() -> None:
    assumed = Signature("f", SIGNATURE.inputs, (TensorSpec("y", F, None),))
    check_contract(assumed, {"y": np.ones(3, np.int64)})
    with pytest.raises(BrokenContract, match="'y' is missing"):
        check_contract(assumed, {"z": np.ones(3, np.int64)})


@pytest.mark.parametrize(
    "function",
    [
        lambda _, inputs: {"z": inputs["x"]},
        lambda _, inputs: {"y": inputs["x"].astype(np.float64)},
        lambda _, inputs: {"y": inputs["x"].sum()},
    ],
    ids=["name", "type", "rank"],
)
def test_a_broken_contract_fails_the_load(serve: Any, function: Any) -> None:
    with pytest.raises(LoadError, match="signature 'f' can answer no request: output 'y'"):
        serve(FakeModel(function, (_declared(),)), proven=False).warm_up()


def test_what_is_not_there_fails_the_load(serve: Any) -> None:
    def missing(*_: Any) -> Any:
        raise BrokenContract("the model needs what is not there: no kernel")

    with pytest.raises(LoadError, match="signature 'f' can answer no request: the model needs what is not there"):
        serve(FakeModel(missing, (_declared(),)), proven=False).warm_up()


def test_other_failures_on_seeded_data_are_given_back_with_the_data(serve: Any) -> None:
    def picky(_: Any, inputs: Any) -> Any:
        raise BackendError(f"no {inputs['x'].shape[1]}")

    scheduler = serve(FakeModel(picky), proven=False)
    (refusal,) = scheduler.warm_up()
    assert (refusal.signature, refusal.reason) == ("f", "no 8")
    assert [inputs["x"].shape for inputs in refusal.data()] == [(1, 8), (1, 64), (1, 256), (1, 1)]
    first, again = (next(refusal.data())["x"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert serve(FakeModel(), proven=False).warm_up() == []


def _declared() -> Signature:
    return Signature("f", (TensorSpec("x", F, (-1, 2)),), (TensorSpec("y", F, (-1, 2)),))
