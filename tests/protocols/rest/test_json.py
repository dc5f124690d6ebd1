"""JSON to arrays and back: round trips, values that do not fit, and junk."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd.server.errors import InvalidRequest
from inferd.server.http.json.arrays import array_of, b64_or_utf8, text_or_b64, value_of
from inferd.server.http.json.numbers import Numbers, loads_long
from inferd.server.http.json.pieces import LONG
from inferd.server.http.json.text import array_text, dumps, loads
from inferd.wire.dtypes import DType

NUMERIC = [d for d in DType if d is not DType.STRING]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def nested(array: np.ndarray) -> np.ndarray:
    """The array with the shape that JSON can represent: sizes after a 0 are lost."""
    if 0 not in array.shape:
        return array
    first = array.shape.index(0)
    return array.reshape(array.shape[: first + 1])


@given(st.sampled_from(NUMERIC).flatmap(lambda d: st.tuples(st.just(d), SHAPES, st.data())))
def test_arrays_of_numbers_round_trip(drawn: Any) -> None:
    dtype, shape, data = drawn
    if dtype is DType.BF16:
        array = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(width=16))).astype(dtype.numpy)
    else:
        array = data.draw(hnp.arrays(dtype.numpy, shape))
    back = array_of(loads(array_text(array)), dtype, "x")
    assert back.dtype == array.dtype
    if dtype is DType.BF16:  # numpy cannot compare NaNs of types that are not its own
        back, array = back.astype(np.float32), array.astype(np.float32)
    np.testing.assert_array_equal(back, nested(array))


@given(hnp.arrays(object, SHAPES, elements=st.binary(max_size=5)))
def test_arrays_of_strings_round_trip(array: np.ndarray) -> None:
    back = array_of(loads(dumps(value_of(array, text_or_b64))), DType.STRING, "x", b64_or_utf8)
    assert back.tolist() == nested(array).tolist()
    assert back.shape == nested(array).shape


@given(JUNK, st.sampled_from(list(DType)))
def test_junk_becomes_an_array_of_the_type_or_is_refused(value: Any, dtype: DType) -> None:
    array, refusal = None, "x: "
    try:
        array = array_of(value, dtype, "x")
    except InvalidRequest as error:
        refusal = str(error)
    assert refusal.startswith("x: ")
    if array is None:
        return
    assert array.dtype == dtype.numpy
    assert array.shape == np.shape(np.array(value, object)) or 0 in array.shape


@given(st.binary(max_size=40) | JUNK.map(lambda value: json.dumps(value).encode()[:-1]))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000 + b"NaN")
@example(b'{"a": NaN')
@example(b'"\\ud800"')
def test_a_text_that_is_not_json_is_refused(text: bytes) -> None:
    refusal = "failed to parse the request JSON buffer"
    try:
        loads(text)
    except InvalidRequest as error:
        refusal = str(error)
    assert refusal.startswith("failed to parse the request JSON buffer")


def test_the_depth_of_nesting_is_bounded() -> None:
    deep = loads(b"[" * 40 + b"1" + b"]" * 40)
    for dtype in (DType.FP32, DType.STRING):
        with pytest.raises(InvalidRequest, match="at most 32 levels"):
            array_of(deep, dtype, "x")


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (1e39, DType.FP32, r"1e\+39 is out of the range of FP32, expected at most 3.40282e\+38"),
        ([0.5, -1e39], DType.FP32, r"-1e\+39 is out of the range of FP32"),
        ([[1, 2**128]], DType.FP32, r"3.40282e\+38 is out of the range of FP32"),
        (65520, DType.FP16, "65520 is out of the range of FP16, expected at most 65504"),
        (3.4e38, DType.BF16, r"3.4e\+38 is out of the range of BF16, expected at most 3.38953e\+38"),
        (10**400, DType.FP64, r"1000000000\.\.\. \(401 digits\) is out of the range of FP64"),
        (-129, DType.INT8, "-129 is out of the range of INT8, expected -128 to 127"),
        ([5, -1], DType.UINT64, "-1 is out of the range of UINT64"),
        (2**64, DType.UINT64, f"{2**64} is out of the range of UINT64"),
        (math.nan, DType.INT32, "expected whole numbers for INT32, got nan"),
        (math.inf, DType.UINT8, "expected whole numbers for UINT8, got inf"),
        (True, DType.FP32, "expected numbers for FP32, got true"),
        (1.0, DType.INT64, "expected whole numbers"),
        (True, DType.INT64, "expected whole numbers for INT64, got true"),
        (1, DType.BOOL, "expected true or false for BOOL, got 1"),
        ([1, [2]], DType.INT64, "a list where others are none"),
        ([[1], 2], DType.INT64, "ragged"),
    ],
)
def test_values_that_do_not_fit_the_type_are_refused(value: Any, dtype: DType, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        array_of(value, dtype, "x")


def test_infinity_and_nan_that_were_sent_are_kept() -> None:
    sent = [math.inf, -math.inf, math.nan, 3.4028234e38]
    for dtype in (DType.FP32, DType.FP64, DType.FP16):
        got = array_of(sent if dtype is not DType.FP16 else [*sent[:3], 65504], dtype, "x")
        assert got[:2].tolist() == sent[:2]
        assert math.isnan(got[2])
        assert math.isfinite(got[3])


# ---- long lists ----


def long_text(shape: tuple[int, ...], whole: bool = False, before: str = '"x": ', after: str = ', "n": 1') -> Any:
    count = math.prod(shape)
    values = np.arange(count) if whole else np.arange(count) + 0.5
    array = values.reshape(shape)
    return array, f"{{{before}{json.dumps(array.tolist())}{after}}}".encode()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [(60_000,), (300, 200), (20, 30, 100), (1, 1, 60_000), (60_000, 1, 1), (2, 30_000)])
def test_long_lists_are_parsed_in_pieces_with_the_same_result(shape: tuple[int, ...], whole: bool) -> None:
    array, text = long_text(shape, whole)
    assert len(text) >= LONG
    value = loads(text)
    assert isinstance(value["x"], Numbers)
    assert value["n"] == 1
    assert value["x"].array.dtype == (np.int64 if whole else np.float64)
    np.testing.assert_array_equal(value["x"].array, array)
    for dtype in (DType.FP32, DType.INT32, DType.UINT64):
        expected = array_of(array.tolist(), dtype, "x") if whole or dtype is DType.FP32 else None
        if expected is None:
            with pytest.raises(InvalidRequest, match=r"expected whole numbers for .*, got 0.5"):
                array_of(value["x"], dtype, "x")
        else:
            np.testing.assert_array_equal(array_of(value["x"], dtype, "x"), expected)
    for dtype, words in ((DType.STRING, "expected strings"), (DType.BOOL, "expected true or false")):
        with pytest.raises(InvalidRequest, match=words):
            array_of(value["x"], dtype, "x")


@pytest.mark.parametrize(
    ("number", "dtype"), [("1e39", DType.FP32), ("-70000", DType.FP16), ("256", DType.UINT8), ("-1", DType.UINT64)]
)
def test_a_number_that_does_not_fit_is_found_in_a_long_list(number: str, dtype: DType) -> None:
    zeros = ",".join(["0"] * 80_000)
    value = loads(f'{{"x": [{zeros},{number}]}}'.encode())
    assert isinstance(value["x"], Numbers)
    with pytest.raises(InvalidRequest, match=f"is out of the range of {dtype.name}"):
        array_of(value["x"], dtype, "x")


def test_several_long_lists_in_one_text() -> None:
    one, first = long_text((50_000,))
    two, second = long_text((200, 300), whole=True)
    text = b'{"inputs": [%s, {"s": "[1,2,3]"}, %s], "t": [1, 2]}' % (first, second)
    value = loads(text)
    np.testing.assert_array_equal(value["inputs"][0]["x"].array, one)
    np.testing.assert_array_equal(value["inputs"][2]["x"].array, two)
    assert value["inputs"][1] == {"s": "[1,2,3]"}
    assert value["t"] == [1, 2]


BIG = ",".join(["1.5"] * 80_000)


@pytest.mark.parametrize(
    ("first", "second"), [("1", "2"), ("NaN", "2"), ("1", "[NaN]"), (f"[{BIG}]", "[2]"), ("[2]", f"[{BIG}]")]
)
def test_of_a_key_that_is_given_twice_the_last_value_counts(first: str, second: str) -> None:
    """Whichever of the parsers reads the text."""
    twice, once = (loads(text.encode()) for text in (f'{{"x":{first},"x":{second}}}', f'{{"x":{second}}}'))
    assert list(twice) == ["x"]
    assert type(twice["x"]) is type(once["x"])
    np.testing.assert_array_equal(*(np.asarray(getattr(value["x"], "array", value["x"])) for value in (twice, once)))


@pytest.mark.parametrize(
    "text",
    [
        f'{{"x": "y:[{BIG}],"}}',  # in a string
        f'{{"x": "[{BIG}]"}}',
        f'{{"x": [[{BIG}], "a"]}}',  # among other things
        f'{{"x": [[{BIG}], [1, 2]]}}',  # ragged
        f'{{"x": [{BIG}, null]}}',
        f'{{"x": [{BIG.replace(".5", "")}, 18446744073709551615]}}',
        f'{{"x": [{BIG}, true]}}',
        f"[{BIG}]",
        f'{{"x": {{"y": [{BIG}, NaN]}}}}',
    ],
)
def test_text_that_only_looks_like_a_long_list_is_parsed_as_usual(text: str) -> None:
    expected = json.loads(text)
    value = loads(text.encode())
    found = value.get("x") if isinstance(value, dict) else value
    if isinstance(found, Numbers):
        found = found.array.tolist()
    if isinstance(expected, dict):
        expected = expected["x"]
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"x": [{BIG},]}}',
        f'{{"x": [,{BIG}]}}',
        f'{{"x": [{BIG}}}',
        f'{{"x": [{BIG}]]}}',
        f'{{"x": [1[2],{BIG}]}}',
        f'{{"x": [[1]2,{BIG}]}}',
        f'{{"x": [{BIG} 5]}}',
        f'{{"x": [{BIG},1e]}}',
        f'{{"x": [{BIG},01]}}',
        f'{{"x": [{BIG},+1]}}',
        f'{{"x": [{BIG}],,"y":1}}',
        f'{{"x":: [{BIG}]}}',
        f'"x": [{BIG}]',
    ],
)
def test_a_long_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)
    with pytest.raises(InvalidRequest, match="failed to parse"):
        loads(text.encode())


def _representable(number: str) -> float:
    if math.isinf(float(number)):
        raise ValueError("beyond FP64")
    return float(number)


@pytest.mark.parametrize("text", ["1e400", "[NaN, 1e400]", '{"a": [Infinity, -1e999]}', f"[{'1' * 400}.5]"])
def test_a_number_beyond_fp64_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="number is infinity when parsed as double"):
        loads(text.encode())


@given(st.lists(st.sampled_from([b"[", b"]", b",", b"1", b"-2.5", b" ", b"[1,2]", b"1" * 5000 + b"."]), max_size=30))
def test_pieces_never_accept_what_the_parser_refuses(parts: list[bytes]) -> None:
    """A long list with other tokens in the middle gives the parser's value, or is refused if the parser refuses it."""
    text = b'{"x": [%s,%s%s]}' % (BIG.encode(), b"".join(parts), BIG.encode())
    try:
        expected = json.loads(text, parse_float=_representable)["x"]
    except (ValueError, RecursionError):
        with pytest.raises(InvalidRequest):
            loads(text)
        return
    found = loads(text)["x"]
    assert (found.array.tolist() if isinstance(found, Numbers) else found) == expected


def test_loads_long_refuses_a_text_without_long_lists() -> None:
    with pytest.raises(ValueError, match="no long lists"):
        loads_long(b'{"x": [1, 2, 3]}')


@pytest.mark.parametrize("shape", [(100_000,), (1000, 100), (3, 40_000), (1, 50_000), (50_000, 1, 2), (0,), (2, 0), ()])
def test_long_arrays_are_written_in_pieces_with_the_same_result(shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    if array.size > 10:
        array.flat[7] = np.nan
        array.flat[-1] = -np.inf
    assert json.dumps(json.loads(array_text(array))) == json.dumps(array.tolist())


@pytest.mark.parametrize("text", ['{"a": "\\ud800", "b": NaN}', '{"\\uDFFF": NaN}', '["\\ud83dx", -Infinity]'])
def test_half_a_surrogate_pair_is_refused_beside_nan(text: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to parse"):
        loads(text.encode())
    with pytest.raises(InvalidRequest, match="failed to parse"):
        loads(text.encode("utf-16"))


def test_a_surrogate_pair_beside_nan_is_accepted() -> None:
    assert loads(b'["\\ud83d\\ude00", Infinity]') == ["\N{GRINNING FACE}", math.inf]
