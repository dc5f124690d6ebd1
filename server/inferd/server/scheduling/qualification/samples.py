"""Inputs for warm-up and the batching probe: declared samples, otherwise seeded data that a model is likely to accept.
No input or output of its own.

Seeded rows differ in content and in magnitude. Floats lie in [0, magnitude), integers are 0 or 1 (safe as token ids,
masks and indices; 2 only if the rows could not differ otherwise), UINT8 is 0 to 255, strings are texts of one, two and
three words; one word each, or digits, where a model refuses those. Several sizes are tried for variable dimensions
until the model accepts one. All variable dimensions get the same size, because those of related inputs must agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inferd.backends.api import Array, LoadError, Signature, TensorSpec
from inferd.server.scheduling.bucket import batched_inputs
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.qualification.seeded import seeded_floats, seeded_integers
from inferd.wire.dtypes import DType

ROWS = 3
_SIZES = (8, 64, 256, 1)
_TEXTS = ((b"a", b"b c", b"c a b"), (b"a", b"b", b"c"), (b"1", b"2", b"3"))
_MANY_WORDS = b" ".join([b"a b c d e f g h"] * 8)
_UNICODE = "\u00e4\u00df \u4f60\u597d \U0001f600 e\u0301".encode()
_MAGNITUDES = (1.0, 255.0)
_MOST_ELEMENTS = 2**27  # of all inputs together, 8 bytes each while they are made up: a file may declare any shape


class NoSample(Exception):
    """No data can be generated for a signature. The message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """The inputs of one attempt.

    rows    three distinct rows for each input with a batch axis
    fixed   the value of each other input
    """

    rows: Mapping[str, Array]
    fixed: Mapping[str, Array]

    def stack(self, indices: Sequence[int]) -> dict[str, Array]:
        """New input arrays with these rows. An index counts modulo the number of rows."""
        inputs = {name: np.ascontiguousarray(rows[[i % ROWS for i in indices]]) for name, rows in self.rows.items()}
        return inputs | {name: array.copy() for name, array in self.fixed.items()}

    def hostile(self, *, non_finite: bool) -> Iterator[tuple[str, dict[str, Array]]]:
        """Rows that a model may react to, made from the second row: what they hold, and the row of each input that has
        such values. Whole numbers stay small, because a number that is no index ends a model on some devices."""
        kinds = [*_HOSTILE, *(_NON_FINITE if non_finite else ())]
        for kind, change in kinds:
            row = {}
            for name, rows in self.rows.items():
                changed = change(rows[1, ...])
                if changed is not None:
                    row[name] = changed
            if row:
                yield kind, row


class Samples:
    """The data of one signature."""

    def __init__(self, signature: Signature, padding: Padding, declared: Mapping[str, Array] | None = None) -> None:
        """`declared` gives values by input name: one row without the batch axis, or several rows with it; for an input
        without a batch axis, the whole tensor. Raises LoadError for a sample that does not fit its input.
        """
        self._signature = signature
        self._padding = padding
        self._batched = batched_inputs(signature)
        specs = {spec.name: spec for spec in signature.inputs}
        for name in declared or {}:
            if name not in specs:
                raise LoadError(f"sample for {name!r}: signature {signature.name!r} has inputs {', '.join(specs)}")
        self._values = {name: self._fit(specs[name], array) for name, array in (declared or {}).items()}
        self.declared = bool(declared)

    def groups(self) -> Iterator[Iterator[Case]]:
        """Groups of cases to try, the most likely first. A model that refuses the first case of a group is expected to
        refuse the rest of it, too.

        Raises NoSample if an input's shape is unknown, or too large to be filled, and there is no sample for it.
        """
        missing = [spec for spec in self._signature.inputs if spec.name not in self._values and not spec.optional]
        for spec in missing:
            if spec.shape is None:
                raise NoSample(f"input {spec.name!r} has no declared shape and no sample")
        variable = any(-1 in self._inner(spec) for spec in missing)
        has_floats = any(_is_float(spec.dtype) for spec in missing)
        texts = _TEXTS if any(spec.dtype is DType.STRING for spec in missing) else _TEXTS[:1]
        sizes = [size for size in (_SIZES if variable else (1,)) if self._elements(missing, size) <= _MOST_ELEMENTS]
        if not sizes:
            raise NoSample(f"its inputs have more elements than are made up ({_MOST_ELEMENTS}): declare a sample")
        for size in sizes:
            for words in texts:
                magnitudes = _MAGNITUDES if has_floats else (1.0,)
                yield (self._case(missing, size, magnitude, words) for magnitude in magnitudes)

    def _case(self, missing: Sequence[TensorSpec], size: int, magnitude: float, words: Sequence[bytes]) -> Case:
        rows = {name: _three(value) for name, value in self._values.items() if name in self._batched}
        fixed = {name: value for name, value in self._values.items() if name not in self._batched}
        for number, spec in enumerate(missing):
            shape = self._shape(spec, size)
            if spec.name in self._batched:
                rows[spec.name] = np.stack(
                    [_seeded(spec.dtype, shape, number, row, magnitude, words) for row in range(ROWS)]
                )
            else:
                fixed[spec.name] = _seeded(spec.dtype, shape, number, 0, magnitude, words)
        if not _distinct(rows):
            for name, array in rows.items():
                if array.dtype.kind in "iu":
                    rows[name] = np.arange(ROWS, dtype=array.dtype).reshape(ROWS, *(1,) * (array.ndim - 1)) | array
        return Case(rows, fixed)

    def _elements(self, missing: Sequence[TensorSpec], size: int) -> int:
        """How many elements are made up for these inputs."""
        return sum((ROWS if s.name in self._batched else 1) * math.prod(self._shape(s, size)) for s in missing)

    def _shape(self, spec: TensorSpec, size: int) -> tuple[int, ...]:
        """The declared shape without the batch axis, with `size` for each variable dimension that is not padded."""
        return tuple((self._padding.smallest(spec.name) or size) if n == -1 else n for n in self._inner(spec))

    def _inner(self, spec: TensorSpec) -> tuple[int, ...]:
        """The declared shape without the batch axis."""
        shape = spec.shape or ()
        return shape[1:] if spec.name in self._batched else shape

    def _fit(self, spec: TensorSpec, array: Array) -> Array:
        try:
            value = np.asarray(array, dtype=spec.dtype.numpy)
        except (TypeError, ValueError) as error:
            raise LoadError(f"sample for input {spec.name!r}: expected {spec.dtype.name}: {error}") from error
        if spec.name in self._batched and (spec.shape is None or value.ndim == len(spec.shape) - 1):
            value = value[np.newaxis]
        if spec.shape is not None and not (
            value.ndim == len(spec.shape)
            and all(want in (-1, got) for want, got in zip(spec.shape, value.shape, strict=True))
        ):
            raise LoadError(
                f"sample for input {spec.name!r}: expected shape {list(spec.shape)}, got {list(value.shape)}"
            )
        if not value.size:
            raise LoadError(f"sample for input {spec.name!r} is empty")
        return value


def _is_float(dtype: DType) -> bool:
    return dtype in (DType.FP16, DType.FP32, DType.FP64, DType.BF16)


def _seeded(
    dtype: DType, shape: tuple[int, ...], number: int, row: int, magnitude: float, words: Sequence[bytes]
) -> Array:
    """Row `row` of input `number`. The same in every process."""
    if _is_float(dtype):
        return np.asarray(seeded_floats(shape, number, row) * magnitude * (row + 1) / ROWS).astype(dtype.numpy)
    if dtype is DType.STRING:
        strings = np.empty(shape, object)
        strings[...] = words[row]
        return strings
    if dtype is DType.UINT8:
        return seeded_integers(256, shape, number, row).astype(np.uint8)
    values = seeded_integers(2, shape, number, row)
    values.reshape(-1)[:1] = 1 if row else 0  # rows 0 and 1 always differ
    if row == 0:
        values.reshape(-1)[1:2] = 1  # models rarely accept a mask of zeros only
    return values.astype(dtype.numpy)


def _three(value: Array) -> Array:
    """Three rows from a sample: its own rows first, then variations within the same range of values."""
    rows = [value[i, ...] for i in range(min(ROWS, len(value)))]  # arrays, also where a row is one text
    while len(rows) < ROWS:
        rows.append(_vary(value[0, ...], len(rows)))
    return np.stack(rows)


def _vary(row: Array, by: int) -> Array:
    if row.dtype.kind in "fV" or row.dtype.name == "bfloat16":
        varied = (row * (1 - by / 4)).astype(row.dtype)
        return varied if not _same(varied, row) else (row + by / 4).astype(row.dtype)
    rolled = np.roll(row.reshape(-1), by).reshape(row.shape)
    if not _same(rolled, row) or row.dtype == object:
        return rolled
    if row.dtype.kind == "b":
        return ~row
    lowered: Array = np.where(row >= by, row - by, row + by).astype(row.dtype)
    return lowered


def _same(a: Array, b: Array) -> bool:
    return bool(np.array_equal(a, b))


def _distinct(rows: Mapping[str, Array]) -> bool:
    def equal(i: int, j: int) -> bool:
        return all(_same(array[i], array[j]) for array in rows.values())

    pairs: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2))
    return not any(equal(i, j) for i, j in pairs)


def _is_floating(row: Array) -> bool:
    return bool(row.dtype.kind == "f" or row.dtype.name == "bfloat16")


def _large(row: Array) -> Array | None:
    if not _is_floating(row):
        return None
    factor = 1000 if row.dtype.itemsize > 2 else 100  # FP16 ends at 65,504
    return (row.astype(np.float64) * factor).astype(row.dtype)


def _negative(row: Array) -> Array | None:
    return (-row).astype(row.dtype) if _is_floating(row) else None


def _zeros(row: Array) -> Array | None:
    return None if row.dtype == object else np.zeros_like(row)


def _ties(row: Array) -> Array | None:
    return None if row.dtype == object or not row.size else np.full_like(row, row.reshape(-1)[-1])


def _short(row: Array) -> Array | None:
    """A row that ends early, as padded sequences do: only its first value is left."""
    if row.dtype == object or row.size < 2:
        return None
    short = np.zeros_like(row)
    short.reshape(-1)[0] = row.reshape(-1)[0] or 1
    return short


def _text(text: bytes) -> Callable[[Array], Array | None]:
    def change(row: Array) -> Array | None:
        if row.dtype != object:
            return None
        changed = np.empty_like(row)
        changed[...] = text
        return changed

    return change


def _number(value: float) -> Callable[[Array], Array | None]:
    """One value of the row is this one, which is enough to spoil what is computed over all rows."""

    def change(row: Array) -> Array | None:
        if not _is_floating(row) or not row.size:
            return None
        changed = row.copy()
        changed.reshape(-1)[0] = value
        return changed

    return change


_HOSTILE: Final = (
    ("large numbers", _large),
    ("negative numbers", _negative),
    ("zeros", _zeros),
    ("equal numbers", _ties),
    ("a short sequence", _short),
    ("an empty text", _text(b"")),
    ("many words", _text(_MANY_WORDS)),
    ("letters of other alphabets", _text(_UNICODE)),
)
_NON_FINITE: Final = (
    ("NaN", _number(math.nan)),
    ("infinity", _number(math.inf)),
    ("negative infinity", _number(-math.inf)),
)
