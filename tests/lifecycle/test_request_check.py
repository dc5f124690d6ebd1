"""The signature check: what is refused, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.wire.dtypes import DType, bfloat16

ID = ServableId("m", 3)
SIGNATURE = Signature(
    "serve",
    (
        TensorSpec("x", DType.FP32, (-1, 2)),
        TensorSpec("scalar", DType.INT64, ()),
        TensorSpec("any", DType.STRING, None, optional=True),
    ),
    (TensorSpec("y", DType.FP32, (-1,)), TensorSpec("z", DType.FP32, (-1,))),
)


def inputs(**changes: Any) -> dict[str, Any]:
    given = {"x": np.zeros((4, 2), np.float32), "scalar": np.array(1, np.int64)} | changes
    return {name: array for name, array in given.items() if array is not None}


def refused(given: dict[str, Any], wanted: tuple[str, ...] = ()) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_request(ID, SIGNATURE, given, wanted)
    return str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        inputs(),
        inputs(x=np.zeros((0, 2), np.float32)),
        inputs(any=np.array([[b"a"]], object)),
        inputs(any=np.array(b"a", object)),
    ],
)
def test_requests_that_fit(given: dict[str, Any]) -> None:
    check_request(ID, SIGNATURE, given, ())
    check_request(ID, SIGNATURE, given, ("z", "y"))


def test_outputs_may_be_asked_for_by_an_alias() -> None:
    aliased = replace(SIGNATURE, aliases=("first",))
    check_request(ID, aliased, inputs(), ("first", "z"))
    with pytest.raises(InvalidRequest, match="unknown output 'second': expected some of 'y', 'z'"):
        check_request(ID, aliased, inputs(), ("first", "second"))


WHERE = "model 'm' version 3 signature 'serve': "


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (inputs(x=None), "input 'x' is missing: expected FP32 [-1, 2], got inputs 'scalar'"),
        ({}, "input 'x' is missing: expected FP32 [-1, 2], got inputs none"),
        (inputs(x=np.zeros((4, 2))), "input 'x': expected FP32 [-1, 2], got FP64 [4, 2]"),
        (inputs(x=np.zeros((4, 3), np.float32)), "input 'x': expected FP32 [-1, 2], got FP32 [4, 3]"),
        (inputs(x=np.zeros(2, np.float32)), "input 'x': expected FP32 [-1, 2], got FP32 [2]"),
        (inputs(scalar=np.array([1])), "input 'scalar': expected INT64 [], got INT64 [1]"),
        (inputs(any=np.zeros(1, np.uint8)), "input 'any': expected STRING of any shape, got UINT8 [1]"),
        (inputs(x=np.zeros((1, 2), ">f4")), "input 'x': expected FP32 [-1, 2], got FP32 [1, 2]"),
        (inputs(X=np.zeros(1)), "unknown input 'X': expected 'x', 'scalar', 'any'"),
        (inputs(x=np.zeros((1, 2), np.complex64)), "input 'x': expected FP32 [-1, 2], got complex64 [1, 2]"),
    ],
)
def test_requests_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    assert refused(given) == WHERE + message


def test_outputs() -> None:
    assert refused(inputs(), ("y", "w")) == WHERE + "unknown output 'w': expected some of 'y', 'z'"
    assert refused(inputs(), ("y", "y")) == WHERE + "output 'y' is asked for more than once"


def test_many_outputs_asked_for_twice_are_counted_once() -> None:
    # 300,000 names come in a message of a megabyte: looking each up among all the others would take for ever.
    assert refused(inputs(), ("y", "z") * 150_000) == WHERE + "output 'y', 'z' is asked for more than once"


def test_long_lists_and_names_are_cut() -> None:
    text = refused(inputs(**{f"n{number}" + "x" * 1000: np.zeros(1) for number in range(50)}))
    assert "and 40 more" in text
    assert len(text) < 2000


def test_bfloat16() -> None:
    signature = Signature("s", (TensorSpec("x", DType.BF16, (1,)),), ())
    check_request(ID, signature, {"x": np.zeros(1, bfloat16())}, ())
    with pytest.raises(InvalidRequest, match=r"expected BF16 \[1\], got UINT16 \[1\]"):
        check_request(ID, signature, {"x": np.zeros(1, np.uint16)}, ())


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.BF16])
def test_every_dtype_fits_itself_and_no_other(dtype: DType) -> None:
    signature = Signature("s", (TensorSpec("x", dtype, (1,)),), ())
    for other in DType:
        given = {"x": np.zeros(1, other.numpy)}
        if other is dtype:
            check_request(ID, signature, given, ())
        else:
            with pytest.raises(InvalidRequest, match=f"got {other.name} "):
                check_request(ID, signature, given, ())
