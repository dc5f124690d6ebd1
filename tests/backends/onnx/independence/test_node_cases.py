"""ONNX's own cases for single operators, as a differential: what is proven must agree with a run.

Each set of inputs of each case is opened along its first axis in turn; the others become constants. The suite takes
every sixth case; all 1,884 cases (10,431 analyses) take a minute: EVERY = 1.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from support.onnx_graphs import analysed, rows_meet, session

EVERY = 6


def opened(model: onnx.ModelProto, arrays: dict[str, np.ndarray], batched: tuple[str, ...]) -> onnx.ModelProto:
    """The model with open first dimensions for the inputs `batched`, and its other inputs as constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [value for value in copy.graph.input if value.name in batched]
    for value in copy.graph.input:
        if value.name not in batched and value.name in arrays:
            copy.graph.initializer.append(numpy_helper.from_array(arrays[value.name], value.name))
    del copy.graph.input[:], copy.graph.value_info[:]
    copy.graph.input.extend(kept)
    for value in copy.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in copy.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return copy


def more_rows(array: np.ndarray) -> np.ndarray:
    """The case's own rows, one of shuffled elements, a large one and a negative one."""
    rng = np.random.default_rng(0)
    rows = [array[i : i + 1] for i in range(len(array))]
    shuffled = rng.permutation(array.reshape(-1)).reshape(array.shape)[:1]
    floats = array.dtype.kind == "f"
    large = (array[:1] * 50).astype(array.dtype) if floats else shuffled
    return np.concatenate([*rows[:3], shuffled, large, -array[:1] if floats else array[:1]])


def cases() -> Iterator[tuple[str, onnx.ModelProto, dict[str, np.ndarray], tuple[str, ...]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    for case in found[::EVERY]:
        model = case.model
        if any(not value.type.HasField("tensor_type") for value in model.graph.input):
            continue
        given = [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x for x in case.data_sets[0][0]]
        arrays = {v.name: np.asarray(x) for v, x in zip(model.graph.input, given, strict=False)}
        open_to = [
            n for n, a in arrays.items() if a.ndim and len(a) and a.dtype.kind in "fiubSOU" and not a.dtype.names
        ]
        for count in range(1, min(len(open_to), 4) + 1):
            for batched in itertools.combinations(open_to[:6], count):
                yield case.name, opened(model, arrays, batched), arrays, batched


def test_no_case_contradicts_the_analysis() -> None:
    proven = refused = 0
    contradictions = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, model, arrays, batched in cases():
            if not analysed(model, batched).proven:
                refused += 1
                continue
            rows = {n: more_rows(arrays[n]) for n in batched}
            count = min(map(len, rows.values()))
            try:
                found = rows_meet(session(model), {n: a[:count] for n, a in rows.items()}, batched)
            except Exception:
                continue  # an element type or operator that ONNX Runtime does not have
            if found is not None:
                contradictions.append((name, batched, found))
            proven += 1
    assert not contradictions
    assert proven > 900 // EVERY
    assert refused > 8000 // EVERY
