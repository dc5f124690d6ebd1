"""Small TensorFlow graphs in memory, their analysis, and runs that show whether rows meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inferd.backends.api import Independence, Signature, TensorSpec
from inferd.backends.tensorflow.graph import Served
from inferd.backends.tensorflow.independence.proof import analyse_signature
from inferd.wire.dtypes import DType

tf = pytest.importorskip("tensorflow")
Array = np.ndarray[Any, Any]
ROWS = 4
INITIALISERS = "initialisers"  # the graph's collection of operators that run once, before all others
_KINDS = {
    "float": (tf.float32, DType.FP32),
    "double": (tf.float64, DType.FP64),
    "int": (tf.int32, DType.INT32),
    "long": (tf.int64, DType.INT64),
    "bool": (tf.bool, DType.BOOL),
    "string": (tf.string, DType.STRING),
}
_SCALES = np.array([1, 100, -1, 0.01, 30, 7, -500, 2], np.float64)


@dataclass(frozen=True)
class GraphCase:
    """A graph and the signature by which it is served.

    kinds      element type and sizes of each input; a size of None is open, the first None is that of the rows
    """

    graph: Any
    served: Served
    kinds: Mapping[str, tuple[str, tuple[int | None, ...]]]

    @property
    def batched(self) -> list[str]:
        """The inputs with a batch axis."""
        return [name for name, (_, sizes) in self.kinds.items() if sizes[:1] == (None,)]

    @property
    def operators(self) -> set[str]:
        """The operators of the graph and of its functions."""
        definition = self.graph.as_graph_def()
        nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
        return {node.op for node in nodes}


def graph(function: Callable[..., Any], inputs: str = "x: float[n,4,6]") -> GraphCase:
    """The graph of a function of tensors. `inputs` is like "x: float[n,4], k: float[]": n stands for the rows, t for
    another open dimension."""
    made = tf.Graph()
    kinds: dict[str, tuple[str, tuple[int | None, ...]]] = {}
    with made.as_default():
        feeds = []
        for name, kind, dims in re.findall(r"(\w+): (\w+)\[([\w,]*)\]", inputs):
            sizes = tuple(None if not dim.isdigit() else int(dim) for dim in dims.split(",") if dim)
            kinds[name] = (kind, sizes)
            feeds.append(tf.compat.v1.placeholder(_KINDS[kind][0], sizes, name=name))
        results = function(*feeds)
    flat = [item for item in tf.nest.flatten(results) if item is not None]
    signature = Signature(
        "serving_default",
        tuple(
            TensorSpec(name, _KINDS[kind][1], tuple(-1 if size is None else size for size in sizes))
            for name, (kind, sizes) in kinds.items()
        ),
        tuple(TensorSpec(f"y{i}", DType.FP32, None) for i in range(len(flat))),
    )
    return GraphCase(made, Served(signature, tuple(t.name for t in feeds), tuple(t.name for t in flat)), kinds)


def analysed(case: GraphCase) -> Independence:
    """What the analysis says about a graph."""
    return analyse_signature(SimpleNamespace(graph_def=case.graph.as_graph_def()), case.served)


def session(case: GraphCase) -> Any:
    """A session with the case's graph, whose variables and tables are initialised."""
    v1 = tf.compat.v1
    made = v1.Session(
        graph=case.graph, config=v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    )
    made.run(case.graph.get_collection(INITIALISERS))
    return made


def some_inputs(case: GraphCase, count: int = ROWS, open_size: int = 3, seed: int = 0) -> dict[str, Array]:
    """Rows that differ in content, sign and magnitude for the batched inputs, one value for each other input."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name, (kind, sizes) in case.kinds.items():
        batched = name in case.batched
        shape = [open_size if size is None else size for size in sizes]
        if batched:
            shape[0] = count
        if kind == "string":
            words = np.array([b"a", b"good film", b"", b"one two three four", b"B b"], object)
            found[name] = words[rng.permuted(np.arange(int(np.prod(shape))) % len(words)).reshape(shape)]
        elif kind in ("float", "double"):
            array = rng.normal(size=shape)
            if batched:
                array = array * _SCALES[:count].reshape(-1, *(1,) * (len(shape) - 1))
            found[name] = array.astype(np.float32 if kind == "float" else np.float64)
        elif kind == "bool":
            found[name] = rng.integers(0, 2, shape).astype(bool)
        else:
            found[name] = rng.integers(0, 3, shape).astype(np.int32 if kind == "int" else np.int64)
    return found


def rows_meet(case: GraphCase, inputs: Mapping[str, Array], made: Any = None) -> str | None:
    """How the outputs of rows together differ from those of rows alone; None if they agree. Raises what the graph
    raises for a row alone."""
    batched, count = case.batched, min(len(inputs[name]) for name in case.batched)
    with made or session(case) as run:

        def outputs(order: Sequence[int]) -> list[Array]:
            given = {n: np.ascontiguousarray(a[list(order)]) if n in batched else a for n, a in inputs.items()}
            feeds = dict(zip(case.served.feeds, (given[name] for name in case.kinds), strict=True))
            return [np.asarray(value) for value in run.run(list(case.served.fetches), feeds)]

        alone = [outputs([i]) for i in range(count)]
        for order in (list(range(count)), [0, count - 1], [count - 1, 1, 0]):
            try:
                together = outputs(order)
            except tf.errors.OpError as error:
                return f"refuses {len(order)} rows: {error.message[:200]}"
            for at, output in enumerate(together):
                if not output.ndim or len(output) != len(order):
                    return f"output {at} has not {len(order)} rows"
                for place, row in enumerate(order):
                    if not same(output[place : place + 1], alone[row][at]):
                        return f"output {at}, order {order}, row {row}"
    return None


def same(a: Array, b: Array) -> bool:
    """Whether two outputs agree, up to rounding."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a, b, rtol=2e-3, atol=2e-3, equal_nan=True))
