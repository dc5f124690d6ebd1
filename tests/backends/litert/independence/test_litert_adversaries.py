"""Whole LiteRT graphs that mix rows are never accepted; graphs that look alike and do not mix are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.litert_graphs import GraphBuilder, analysed, rows_meet, some_inputs, written

sys.path.insert(0, str(Path(__file__).parent))
from cases_litert_operators import IMAGE, INTS, SEQUENCE, TABLE, count, largest, rows_of, turned, w

Graph = tuple[Callable[..., Any], Sequence[tuple[str, Sequence[int]]]]
ZERO = np.zeros(1, np.float32)


def whole(g: Any, x: Any) -> Any:
    return g("SHAPE", x, kind="INT32", outType=2)


def numbered(g: Any, x: Any, start: int = 0) -> Any:
    """The numbers of the rows."""
    return g("RANGE", np.int32(start), count(g, x), np.int32(1), kind="INT32")


def attention(g: Any, x: Any) -> Any:
    scores = g("BATCH_MATMUL", x, x, adjY=True)
    return g("BATCH_MATMUL", g("SOFTMAX", scores, beta=1.0), x)


def normalised(g: Any, x: Any, axes: Sequence[int]) -> Any:
    centred = g("SUB", x, g("MEAN", x, list(axes), keepDims=True))
    variance = g("MEAN", g("SQUARE", centred), list(axes), keepDims=True)
    return g("MUL", centred, g("RSQRT", g("ADD", variance, np.float32(1e-3))))


def as_float(g: Any, x: Any) -> Any:
    return g("CAST", x, kind="FLOAT32", inDataType=2, outDataType=0)


def loop_over(g: Any, x: Any, step: Callable[..., Any]) -> Any:
    state = [("INT32", ()), TABLE]
    again = g.subgraph(state, lambda s, i, a: s("LESS", i, np.int32(3), kind="BOOL"))
    body = g.subgraph(state, lambda s, i, a: [s("ADD", i, np.int32(1)), step(s, i, a)])
    return g("WHILE", np.int32(0), x, kind="FLOAT32", count=2, condSubgraphIndex=again, bodySubgraphIndex=body)[1]


ADVERSARIES: dict[str, Graph] = {
    "subtract the batch's mean": (lambda g, x: g("SUB", x, g("MEAN", x, [0], keepDims=True)), [TABLE]),
    "normalise by the batch": (lambda g, x: normalised(g, x, [0]), [TABLE]),
    "normalise by batch and space": (lambda g, x: normalised(g, x, [0, 1, 2]), [IMAGE]),
    "scale by the largest pixel": (lambda g, x: g("DIV", x, g("REDUCE_MAX", x, [0, 1, 2, 3], keepDims=True)), [IMAGE]),
    "mean over a negative axis": (lambda g, x: g("SUB", x, g("MEAN", x, [-2], keepDims=True)), [TABLE]),
    "all finite or nothing": (lambda g, x: g("ADD", x, g("SUM", g("SUB", x, x), [0, 1])), [TABLE]),
    "norm of the flattened batch": (
        lambda g, x: g("MUL", x, g("MEAN", g("RESHAPE", x, [-1]), [0], keepDims=True)),
        [TABLE],
    ),
    "attention over the batch": (attention, [TABLE]),
    "attention over the batch of sequences": (
        lambda g, x: g("TRANSPOSE", attention(g, g("TRANSPOSE", x, [1, 0, 2])), [1, 0, 2]),
        [SEQUENCE],
    ),
    "attention over the flattened batch": (
        lambda g, x: g("RESHAPE", attention(g, g("RESHAPE", x, [-1, 4])), [-1, 5, 4]),
        [SEQUENCE],
    ),
    "softmax over the batch": (lambda g, x: turned(g, g("SOFTMAX", turned(g, x), beta=1.0)), [TABLE]),
    "mean over turned rows": (
        lambda g, x: turned(g, g("SUB", turned(g, x), g("MEAN", turned(g, x), [1], keepDims=True))),
        [TABLE],
    ),
    "the largest row wins": (
        lambda g, x: g("GATHER", x, g("ARG_MAX", x, np.int32(0), kind="INT32", outputType=2), axis=0),
        [TABLE],
    ),
    "the first row": (lambda g, x: g("ADD", x, g("STRIDED_SLICE", x, [0, 0], [1, 4], [1, 1])), [TABLE]),
    "the first row, shrunk": (
        lambda g, x: g("ADD", x, g("STRIDED_SLICE", x, [0], [1], [1], shrinkAxisMask=1)),
        [TABLE],
    ),
    "rows but the last": (lambda g, x: g("STRIDED_SLICE", x, [0, 0], [-1, 4], [1, 1], beginMask=1), [TABLE]),
    "rows backwards": (lambda g, x: g("REVERSE_V2", x, [0]), [TABLE]),
    "the row before": (
        lambda g, x: g("GATHER", x, g("MAXIMUM", g("SUB", numbered(g, x), np.int32(1)), np.int32(0)), axis=0),
        [TABLE],
    ),
    "a row by the data of another": (lambda g, x: g("GATHER", x, g("REDUCE_MAX", x, [1]), axis=0), [INTS]),
    "rows by their own data": (
        lambda g, x: g("GATHER_ND", x, g("EXPAND_DIMS", g("REDUCE_MAX", x, [1]), np.int32(1))),
        [INTS],
    ),
    "the number of rows as data": (lambda g, x: g("ADD", x, as_float(g, count(g, x))), [TABLE]),
    "the number of rows as scale": (lambda g, x: g("DIV", x, as_float(g, rows_of(g, x))), [TABLE]),
    "the number of a row as data": (
        lambda g, x: g("ADD", x, as_float(g, g("EXPAND_DIMS", numbered(g, x), np.int32(1)))),
        [TABLE],
    ),
    "as wide as the batch": (
        lambda g, x: g(
            "PAD",
            x,
            g(
                "PACK",
                [0, 0],
                g("PACK", np.int32(0), count(g, x), kind="INT32", valuesCount=2),
                kind="INT32",
                valuesCount=2,
            ),
        ),
        [TABLE],
    ),
    "positions that hold for four rows": (
        lambda g, x: g("ADD", x, np.arange(16, dtype=np.float32).reshape(4, 4)),
        [TABLE],
    ),
    "running sum over the batch": (lambda g, x: g("CUMSUM", x, np.int32(-2)), [TABLE]),
    "rows in twos": (lambda g, x: g("RESHAPE", g("MEAN", g("RESHAPE", x, [-1, 2, 4]), [1]), [-1, 4]), [TABLE]),
    "rows folded into columns": (lambda g, x: g("RESHAPE", g("RELU", g("RESHAPE", x, [4, -1])), [-1, 4]), [TABLE]),
    "convolution over the batch": (
        lambda g, x: g(
            "SQUEEZE",
            g(
                "CONV_2D",
                g("EXPAND_DIMS", g("EXPAND_DIMS", x, np.int32(0)), np.int32(0)),
                w(4, 1, 3, 4),
                w(4),
                strideW=1,
                strideH=1,
                padding=0,
            ),
            squeezeDims=[0, 1],
        ),
        [TABLE],
    ),
    "pooling over the batch": (
        lambda g, x: g(
            "SQUEEZE",
            g(
                "MAX_POOL_2D",
                g("EXPAND_DIMS", g("EXPAND_DIMS", x, np.int32(0)), np.int32(3)),
                strideW=1,
                strideH=1,
                filterWidth=1,
                filterHeight=2,
                padding=0,
            ),
            squeezeDims=[0, 3],
        ),
        [TABLE],
    ),
    "space to batch and not back": (lambda g, x: g("SPACE_TO_BATCH_ND", x, [2, 2], [[0, 0], [0, 0]]), [IMAGE]),
    "depth over rows": (lambda g, x: g("BATCH_TO_SPACE_ND", x, [2, 1], [[0, 0], [0, 0]]), [IMAGE]),
    "distinct values": (
        lambda g, x: g("UNIQUE", g("RESHAPE", x, [-1]), kind=("FLOAT32", "INT32"), count=2)[0],
        [TABLE],
    ),
    "where it is positive": (lambda g, x: g("WHERE", g("GREATER", x, ZERO, kind="BOOL"), kind="INT64"), [TABLE]),
    "random": (lambda g, x: g("ADD", x, g("RANDOM_UNIFORM", whole(g, x), kind="FLOAT32")), [TABLE]),
    "sums of segments": (lambda g, x, i: g("SEGMENT_SUM", x, i), [TABLE, ("INT32", (-1,))]),
    "a loop that mixes": (lambda g, x: loop_over(g, x, lambda s, i, a: s("ADD", a, largest(s, a))), [TABLE]),
    "a loop that mixes in its second turn": (
        lambda g, x: loop_over(
            g,
            x,
            lambda s, i, a: s(
                "IF",
                s("EQUAL", i, np.int32(1), kind="BOOL"),
                a,
                kind="FLOAT32",
                thenSubgraphIndex=s.subgraph([TABLE], lambda t, b: t("ADD", b, largest(t, b))),
                elseSubgraphIndex=s.subgraph([TABLE], lambda t, b: t("RELU", b)),
            ),
        ),
        [TABLE],
    ),
    "a loop that counts rows": (
        lambda g, x: loop_over(g, x, lambda s, i, a: s("ADD", a, as_float(s, count(s, a)))),
        [TABLE],
    ),
    "a branch by the batch": (
        lambda g, x: g(
            "IF",
            g("GREATER", g("SUM", x, [0, 1]), np.float32(0), kind="BOOL"),
            x,
            kind="FLOAT32",
            thenSubgraphIndex=g.subgraph([TABLE], lambda s, a: s("NEG", a)),
            elseSubgraphIndex=g.subgraph([TABLE], lambda s, a: s("RELU", a)),
        ),
        [TABLE],
    ),
    "a scale for each row": (
        lambda g, x: g(
            "DEQUANTIZE", g("QUANTIZE", x, kind="INT8", quantised={"scale": [0.1, 0.2, 0.4], "axis": 0}), kind="FLOAT32"
        ),
        [TABLE],
    ),
    "an operator that nobody knows": (lambda g, x: g("custom:Mine", x), [TABLE]),
    "boxes of all images": (lambda g, x: g("custom:TFLite_Detection_PostProcess", x), [TABLE]),
    "a fully connected layer over two rows": (lambda g, x: g("FULLY_CONNECTED", x, w(3, 8), None), [TABLE]),
    "weights from the batch": (
        lambda g, x: g("FULLY_CONNECTED", x, g("SOFTMAX", g("BATCH_MATMUL", x, x, adjX=True), beta=1.0), None),
        [TABLE],
    ),
    "a table of rows": (lambda g, x, i: g("EMBEDDING_LOOKUP", i, x, kind="FLOAT32"), [TABLE, ("INT32", (-1,))]),
    "fails for a batch, and no output needs it": (
        lambda g, x: [g("RELU", x), g("UNPACK", x, axis=0, num=1, count=1)][0],
        [TABLE],
    ),
    "one constant for all rows": (lambda g, x: g("FILL", [4], np.float32(1), kind="FLOAT32"), [TABLE]),
}
TWINS: dict[str, Graph] = {
    "normalise by the row": (lambda g, x: normalised(g, x, [1]), [TABLE]),
    "normalise by space": (lambda g, x: normalised(g, x, [1, 2]), [IMAGE]),
    "attention within a row": (attention, [SEQUENCE]),
    "attention by time first": (
        lambda g, x: g("TRANSPOSE", attention(g, g("TRANSPOSE", x, [0, 2, 1])), [0, 2, 1]),
        [SEQUENCE],
    ),
    "a row by its own number": (lambda g, x: g("GATHER", x, numbered(g, x), axis=0), [TABLE]),
    "a place of each row": (
        lambda g, x, i: g("GATHER_ND", x, g("CONCATENATION", g("EXPAND_DIMS", numbered(g, x), np.int32(1)), i, axis=1)),
        [TABLE, ("INT32", (-1, 1))],
    ),
    "as many ones as rows": (lambda g, x: g("ADD", x, g("FILL", whole(g, x), np.float32(1), kind="FLOAT32")), [TABLE]),
    "flattened by the number of rows": (
        lambda g, x: g("RESHAPE", x, g("PACK", count(g, x), np.int32(20), kind="INT32", valuesCount=2)),
        [SEQUENCE],
    ),
    "flattened by a product": (
        lambda g, x: g(
            "RESHAPE",
            g(
                "RELU",
                g(
                    "RESHAPE",
                    x,
                    g("PACK", g("MUL", count(g, x), np.int32(5)), np.int32(4), kind="INT32", valuesCount=2),
                ),
            ),
            [-1, 5, 4],
        ),
        [SEQUENCE],
    ),
    "turned and turned back": (lambda g, x: turned(g, g("RELU", turned(g, x))), [TABLE]),
    "a dilated convolution": (
        lambda g, x: g(
            "BATCH_TO_SPACE_ND",
            g(
                "CONV_2D",
                g("SPACE_TO_BATCH_ND", x, [2, 2], [[2, 2], [2, 2]]),
                w(2, 3, 3, 3),
                w(2),
                strideW=1,
                strideH=1,
                padding=1,
            ),
            [2, 2],
            [[0, 0], [0, 0]],
        ),
        [IMAGE],
    ),
    "grids back in another order": (
        lambda g, x: g(
            "BATCH_TO_SPACE_ND", g("SPACE_TO_BATCH_ND", x, [2, 3], [[0, 0], [0, 0]]), [3, 2], [[0, 0], [0, 0]]
        ),
        [("FLOAT32", (-1, 6, 6, 1))],
    ),
    "a loop within rows": (lambda g, x: loop_over(g, x, lambda s, i, a: s("RELU", s("ADD", a, a))), [TABLE]),
    "running sum within the row": (lambda g, x: g("CUMSUM", x, np.int32(-1)), [TABLE]),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_refused(name: str) -> None:
    body, inputs = ADVERSARIES[name]
    finding = analysed(written(body, *inputs))
    assert not finding.proven
    assert str(finding)


def test_there_are_enough() -> None:
    assert len(ADVERSARIES) >= 45


@pytest.mark.parametrize("name", TWINS)
def test_an_honest_twin_is_proven_and_a_run_agrees(name: str) -> None:
    body, inputs = TWINS[name]
    content = written(body, *inputs)
    finding = analysed(content)
    assert finding.proven, str(finding)
    assert rows_meet(content, some_inputs(content)) is None


def test_what_is_kept_from_run_to_run_is_not_proven() -> None:
    graph = GraphBuilder()
    x = graph.input("x", "FLOAT32", (-1, 4))
    state = graph.tensor("FLOAT32", (1, 4), variable=True)
    finding = analysed(graph.content({"y": graph("ADD", x, state)}))
    assert not finding.proven


def test_a_folded_sum_with_an_activation_is_not_taken_for_a_shape() -> None:
    """RELU6 of 20 is 6: the target of the reshape is [-1, 6], not [-1, 20]."""

    def body(g: Any, x: Any) -> Any:
        six = g("ADD", [19], [1], fusedActivationFunction=3)
        return g("RESHAPE", x, g("CONCATENATION", [-1], six, kind="INT32"))

    assert not analysed(written(body, SEQUENCE)).proven
