"""Long JSON texts parsed in pieces: the value is the same as when parsed at once, and no piece is long."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_any
from hypothesis import strategies as st

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import InvalidRequest
from inferd.server.http.json import pieces as json_pieces
from inferd.server.http.json.arrays import array_of
from inferd.server.http.json.pieces import parse
from inferd.server.http.json.text import loads
from inferd.server.protocols.tfs.rest.request import read_document, read_inputs
from inferd.wire.dtypes import DType

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.sampled_from(["\\", '"', "[", "}", ",", "\0"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=6),
    max_leaves=60,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the bounds so low that every text counts as long."""
    monkeypatch.setattr(json_pieces, "LONG", 8)
    monkeypatch.setattr(json_pieces, "_CHUNK", 7)
    monkeypatch.setattr(json_pieces, "_PIECE", 28)


@pytest.mark.usefixtures("small")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_any(VALUES, st.booleans(), st.booleans())
def test_parsing_in_pieces_gives_the_same_value(value: Any, ascii_only: bool, spaced: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if spaced else None).encode()
    assert parse(text) == value


@pytest.mark.usefixtures("small")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_any(VALUES, st.integers(0, 10**6), st.sampled_from([b"", b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"x"]))
def test_parsing_in_pieces_refuses_what_json_refuses(value: Any, place: int, change: bytes) -> None:
    text = json.dumps(value).encode()
    place %= len(text)
    broken = text[:place] + change + text[place + 1 :]
    try:
        wanted: Any = json.loads(broken, parse_constant=lambda token: token)
    except ValueError:
        wanted = ValueError
    try:
        found = parse(broken)
    except ValueError:
        found = ValueError
    assert found == wanted or wanted is not ValueError  # orjson refuses more (lone surrogates), never less


SHAPES: dict[str, Callable[[int], Any]] = {
    "rows": lambda n: {"signature_name": "s", "instances": [{"a": 1.25, "b": [2, i], "t": 'a"b]\\'} for i in range(n)]},
    "strings": lambda n: {"inputs": {"t": [f"text {i}, [" for i in range(n)]}},
    "tokens": lambda n: {"instances": [{"a": float("nan") if i == n // 2 else 1.0} for i in range(n)]},
    "oip": lambda n: {"inputs": [{"name": "x", "data": [[f"{i}", ""] for i in range(n)]}]},
    "keys": lambda n: {"parameters": {f"key {i}": {"v": i} for i in range(n)}},
    "bare": lambda n: [[i, "x"] for i in range(n)],
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_no_piece_is_longer_than_the_bound(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = SHAPES[shape](60_000)
    text = json.dumps(value).encode()
    lengths: list[int] = []
    real = json_pieces._parse

    def counted(piece: bytes) -> Any:
        lengths.append(len(piece))
        return real(piece)

    monkeypatch.setattr(json_pieces, "_parse", counted)
    assert json.dumps(parse(text)) == json.dumps(value)
    assert len(text) > 4 * json_pieces.LONG
    assert max(lengths) <= json_pieces._PIECE + 2


def test_a_long_text_that_cannot_be_divided_is_refused() -> None:
    deep: Any = ["x" * 90] * 100_000
    for _ in range(20):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="deeper than 12 levels"):
        loads(json.dumps({"instances": deep}).encode())
    with pytest.raises(InvalidRequest, match="unexpected end"):
        loads(json.dumps({"instances": ["abc"] * 100_000}).encode()[:-2])
    for odd in ("[%s,]", "[,%s]", "[%s,,%s]", '{"a": %s "b": %s}', "[%s]]"):
        text = odd.replace("%s", ", ".join(['{"a": 1}'] * 20_000)).encode()
        with pytest.raises(InvalidRequest, match="failed to parse the"):
            loads(text)
    with pytest.raises(InvalidRequest, match="failed to parse the request JSON buffer"):
        loads(b"[" * 200_000 + b"]" * 200_000)


@pytest.mark.parametrize("dtype", [DType.FP32, DType.INT64, DType.STRING])
@pytest.mark.parametrize("shape", [(10_000,), (10_000, 3), (2, 9_000), (1, 1, 9_000), (9_000, 0)])
def test_long_lists_become_the_same_arrays_as_short_ones(dtype: DType, shape: tuple[int, ...]) -> None:
    items = np.arange(np.prod(shape))
    wanted = items.astype(str).astype(object) if dtype is DType.STRING else items.astype(dtype.numpy)
    found = array_of(wanted.reshape(shape).tolist(), dtype, "here")
    assert found.dtype == dtype.numpy
    assert found.shape == shape
    assert found.ravel().tolist() == ([item.encode() for item in wanted] if dtype is DType.STRING else wanted.tolist())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1]] * 5000 + [[1, 2]], "ragged"),
        ([[1]] * 5000 + [1], "ragged|expected whole numbers"),
        ([1] * 5000 + ["x"], "expected whole numbers for INT64, got 'x'"),
        ([[1] * 5000, [1] * 5001], "ragged"),
        ([[1] * 5000, 1], "ragged"),
    ],
)
def test_long_lists_that_do_not_fit_are_refused(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        array_of(value, DType.INT64, "here")


def test_many_rows_of_small_objects_become_columns() -> None:
    number = 60_000
    body = json.dumps({"instances": [{"a": i / 2, "t": f"<{i}>"} for i in range(number)]}).encode()
    specs = (TensorSpec("a", DType.FP32, (-1,)), TensorSpec("t", DType.STRING, (-1,)))
    given, _ = read_document(body)
    inputs, rows = read_inputs(given, Signature("s", specs, ()))
    assert rows
    assert inputs["a"].tolist() == [i / 2 for i in range(number)]
    assert inputs["t"][-1] == b"<59999>"
