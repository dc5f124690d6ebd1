"""For each operator of the tables, graphs in which rows stay apart and graphs in which they meet.

A case is (operator, body, inputs): the body writes the graph, as in `support.litert_graphs.written`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Case = tuple[str, Callable[..., Any], tuple[tuple[str, Sequence[int]], ...]]
HONEST: list[Case] = []
MIXING: list[Case] = []

TABLE = ("FLOAT32", (-1, 4))
IMAGE = ("FLOAT32", (-1, 6, 6, 3))
SEQUENCE = ("FLOAT32", (-1, 5, 4))
INTS = ("INT32", (-1, 4))
FLAGS = ("BOOL", (-1, 4))
rng = np.random.default_rng(0)


def honest(operator: str, body: Callable[..., Any], *inputs: tuple[str, Sequence[int]]) -> None:
    HONEST.append((operator, body, inputs or (TABLE,)))


def mixing(operator: str, body: Callable[..., Any], *inputs: tuple[str, Sequence[int]]) -> None:
    MIXING.append((operator, body, inputs or (TABLE,)))


def w(*shape: int) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(np.float32)


def largest(g: Any, x: Any, *axes: int) -> Any:
    """The largest element over the batch, and over further axes."""
    return g("REDUCE_MAX", x, list(axes or (0,)), keepDims=True)


def turned(g: Any, x: Any) -> Any:
    return g("TRANSPOSE", x, [1, 0])


def rows_of(g: Any, x: Any) -> Any:
    """The number of rows, as a vector of one element."""
    return g("STRIDED_SLICE", g("SHAPE", x, kind="INT32", outType=2), [0], [1], [1])


# --- element by element: honest on the rows; mixing on what was reduced over the batch ---------------------------------
UNARY = """ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1
    ROUND RSQRT SIGN SIN SQRT SQUARE TANH ZEROS_LIKE"""
for op in UNARY.split():
    honest(op, lambda g, x, op=op: g(op, x))
    mixing(op, lambda g, x, op=op: g("ADD", x, g(op, largest(g, x))))
for op in [
    "ADD",
    "DIV",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "POW",
    "SQUARED_DIFFERENCE",
    "SUB",
    "FLOOR_DIV",
    "FLOOR_MOD",
    "ATAN2",
]:
    if op == "ATAN2":
        honest(op, lambda g, x: g("ATAN2", x, x))
    else:
        honest(op, lambda g, x, op=op: g(op, x, np.array([[1, 2, 3, 4]], np.float32)))
    mixing(op, lambda g, x, op=op: g(op, x, turned(g, x)))
    mixing(op, lambda g, x, op=op: g(op, x, np.ones((3, 4), np.float32)))
for op in ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"]:
    honest(op, lambda g, x, op=op: g(op, x, np.zeros(4, np.float32), kind="BOOL"))
    mixing(op, lambda g, x, op=op: g(op, x, turned(g, x), kind="BOOL"))
for op in ["LOGICAL_AND", "LOGICAL_OR"]:
    honest(op, lambda g, x, op=op: g(op, x, np.array([True, False, True, True])), FLAGS)
    mixing(op, lambda g, x, op=op: g(op, x, turned(g, x)), FLAGS)
honest("LOGICAL_NOT", lambda g, x: g("LOGICAL_NOT", x), FLAGS)
mixing("LOGICAL_NOT", lambda g, x: g("LOGICAL_AND", x, g("LOGICAL_NOT", turned(g, x))), FLAGS)
honest("ADD_N", lambda g, x: g("ADD_N", x, x, x))
mixing("ADD_N", lambda g, x: g("ADD_N", x, turned(g, x)))
for op in ["BITWISE_XOR", "RIGHT_SHIFT"]:
    honest(op, lambda g, x, op=op: g(op, x, x), INTS)
    mixing(op, lambda g, x, op=op: g(op, x, turned(g, x)), INTS)
honest("BUCKETIZE", lambda g, x: g("BUCKETIZE", x, kind="INT32", boundaries=[-1.0, 0.0, 1.0]))
mixing(
    "BUCKETIZE",
    lambda g, x: g(
        "ADD",
        g("BUCKETIZE", x, kind="INT32", boundaries=[0.0]),
        g("BUCKETIZE", largest(g, x), kind="INT32", boundaries=[0.0]),
    ),
)
honest("PRELU", lambda g, x: g("PRELU", x, w(4)))
mixing("PRELU", lambda g, x: g("PRELU", x, largest(g, x)))
honest("FAKE_QUANT", lambda g, x: g("FAKE_QUANT", x, min=-1.0, max=1.0, numBits=8))
mixing("FAKE_QUANT", lambda g, x: g("ADD", x, g("FAKE_QUANT", largest(g, x), min=-1.0, max=1.0, numBits=8)))
INT8 = {"scale": [0.1], "zero": [3]}
honest("QUANTIZE", lambda g, x: g("QUANTIZE", x, kind="INT8", quantised=INT8))
mixing("QUANTIZE", lambda g, x: g("QUANTIZE", g("SUB", x, largest(g, x)), kind="INT8", quantised=INT8))
mixing(
    "QUANTIZE",
    lambda g, x: g(
        "DEQUANTIZE", g("QUANTIZE", x, kind="INT8", quantised={"scale": [0.1, 0.2, 0.3], "axis": 0}), kind="FLOAT32"
    ),
)
honest("DEQUANTIZE", lambda g, x: g("DEQUANTIZE", g("QUANTIZE", x, kind="INT8", quantised=INT8), kind="FLOAT32"))
mixing(
    "DEQUANTIZE",
    lambda g, x: g(
        "ADD", x, g("DEQUANTIZE", g("QUANTIZE", largest(g, x), kind="INT8", quantised=INT8), kind="FLOAT32")
    ),
)
honest("CAST", lambda g, x: g("CAST", x, kind="INT32", inDataType=0, outDataType=2))
mixing(
    "CAST",
    lambda g, x: g(
        "ADD", x, g("CAST", g("SHAPE", x, kind="INT32", outType=2), kind="FLOAT32", inDataType=2, outDataType=0)
    ),
    ("FLOAT32", (-1, 2)),
)
honest(
    "SELECT",
    lambda g, x: g("SELECT", g("GREATER", x, np.zeros(1, np.float32), kind="BOOL"), x, g("NEG", x), kind="FLOAT32"),
)
honest(
    "SELECT",
    lambda g, x: g(
        "SELECT",
        g("GREATER", g("REDUCE_MAX", x, [1]), np.zeros(1, np.float32), kind="BOOL"),
        x,
        g("NEG", x),
        kind="FLOAT32",
    ),
)
mixing(
    "SELECT",
    lambda g, x: g("SELECT", g("GREATER", turned(g, x), np.zeros(1, np.float32), kind="BOOL"), x, x, kind="FLOAT32"),
)
mixing("SELECT", lambda g, x: g("SELECT", np.array([True, False, True]), x, g("NEG", x), kind="FLOAT32"))
honest(
    "SELECT_V2",
    lambda g, x: g(
        "SELECT_V2", g("GREATER", x, np.zeros(1, np.float32), kind="BOOL"), x, np.zeros(1, np.float32), kind="FLOAT32"
    ),
)
mixing(
    "SELECT_V2",
    lambda g, x: g(
        "SELECT_V2",
        g("GREATER", largest(g, x), np.zeros(1, np.float32), kind="BOOL"),
        x,
        np.zeros(1, np.float32),
        kind="FLOAT32",
    ),
)

# --- along axes ---------------------------------------------------------------------------------------------------------
for op in ["SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION"]:
    settings: dict[str, Any] = {"beta": 1.0} if op == "SOFTMAX" else {}
    honest(op, lambda g, x, op=op, settings=settings: g(op, x, **settings))
    mixing(op, lambda g, x, op=op, settings=settings: turned(g, g(op, turned(g, x), **settings)))
LRN = {"radius": 1, "bias": 1.0, "alpha": 0.5, "beta": 0.5}
honest("LOCAL_RESPONSE_NORMALIZATION", lambda g, x: g("LOCAL_RESPONSE_NORMALIZATION", x, **LRN), IMAGE)
mixing(
    "LOCAL_RESPONSE_NORMALIZATION",
    lambda g, x: g(
        "TRANSPOSE", g("LOCAL_RESPONSE_NORMALIZATION", g("TRANSPOSE", x, [3, 1, 2, 0]), **LRN), [3, 1, 2, 0]
    ),
    IMAGE,
)
honest("CUMSUM", lambda g, x: g("CUMSUM", x, np.int32(1)))
mixing("CUMSUM", lambda g, x: g("CUMSUM", x, np.int32(0)))
honest("REVERSE_V2", lambda g, x: g("REVERSE_V2", x, [1]))
mixing("REVERSE_V2", lambda g, x: g("REVERSE_V2", x, [0]))
honest(
    "REVERSE_SEQUENCE", lambda g, x, n: g("REVERSE_SEQUENCE", x, n, seqDim=1, batchDim=0), SEQUENCE, ("INT32", (-1,))
)
mixing("REVERSE_SEQUENCE", lambda g, x, n: g("REVERSE_SEQUENCE", x, n, seqDim=0, batchDim=1), SEQUENCE, ("INT32", (5,)))
for op in ["MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN"]:
    honest(op, lambda g, x, op=op: g(op, x, [1, -1], keepDims=False), SEQUENCE)
    honest(op, lambda g, x, op=op: g("SUB", x, g(op, x, [1], keepDims=True)), SEQUENCE)
    mixing(op, lambda g, x, op=op: g("SUB", x, g(op, x, [0], keepDims=True)), SEQUENCE)
for op in ["REDUCE_ANY", "REDUCE_ALL"]:
    honest(op, lambda g, x, op=op: g(op, x, [1]), FLAGS)
    mixing(op, lambda g, x, op=op: g("LOGICAL_AND", x, g(op, x, [0], keepDims=True)), FLAGS)
for op in ["ARG_MAX", "ARG_MIN"]:
    honest(op, lambda g, x, op=op: g(op, x, np.int32(1), kind="INT32", outputType=2))
    mixing(op, lambda g, x, op=op: g("GATHER", x, g(op, x, np.int32(0), kind="INT32", outputType=2), axis=0))
honest("TOPK_V2", lambda g, x: g("TOPK_V2", x, np.int32(2), kind=("FLOAT32", "INT32"), count=2)[0])
mixing("TOPK_V2", lambda g, x: turned(g, g("TOPK_V2", turned(g, x), np.int32(1), count=2)[0]))
mixing("TOPK_V2", lambda g, x: g("TOPK_V2", x, rows_of(g, x), count=2)[0])
honest("MATRIX_DIAG", lambda g, x: g("MATRIX_DIAG", x))
mixing("MATRIX_DIAG", lambda g, x: g("MATRIX_DIAG", g("REDUCE_MAX", x, [1])))

# --- products -----------------------------------------------------------------------------------------------------------
honest("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(3, 4), w(3)))
honest("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(3, 4), None, keepNumDims=True), SEQUENCE)
honest("FULLY_CONNECTED", lambda g, x: g("RESHAPE", g("FULLY_CONNECTED", x, w(3, 4), None), [-1, 15]), SEQUENCE)
honest("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(3, 20), None), SEQUENCE)
honest(
    "FULLY_CONNECTED",
    lambda g, x: g("FULLY_CONNECTED", x, g.constant((w(3, 4) * 9).astype(np.int8), scale=[0.1]), None),
)
mixing("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(3, 4), None), SEQUENCE)
mixing("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, x, None))
mixing("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(3, 8), None))
mixing("FULLY_CONNECTED", lambda g, x: g("FULLY_CONNECTED", x, w(4, 4), g("REDUCE_MAX", x, [0])))
honest("BATCH_MATMUL", lambda g, x: g("BATCH_MATMUL", x, x, adjY=True), SEQUENCE)
honest("BATCH_MATMUL", lambda g, x: g("BATCH_MATMUL", x, w(4, 2)))
honest(
    "BATCH_MATMUL",
    lambda g, x: g("BATCH_MATMUL", x, g.constant((w(1, 4, 2) * 9).astype(np.int8), scale=[0.1])),
    SEQUENCE,
)
mixing("BATCH_MATMUL", lambda g, x: g("BATCH_MATMUL", x, g("BATCH_MATMUL", x, x, adjX=True)))
mixing("BATCH_MATMUL", lambda g, x: g("BATCH_MATMUL", g("BATCH_MATMUL", x, x, adjY=True), x))
SAME, VALID = 0, 1
CONV = {"strideW": 1, "strideH": 1, "padding": SAME}
honest("CONV_2D", lambda g, x: g("CONV_2D", x, w(2, 3, 3, 3), w(2), **CONV), IMAGE)
honest(
    "CONV_2D",
    lambda g, x: g("CONV_2D", x, w(2, 3, 3, 3), w(2), strideW=2, strideH=2, padding=VALID, dilationWFactor=1),
    IMAGE,
)
honest(
    "CONV_2D",
    lambda g, x: g("CONV_2D", x, g.constant((w(2, 3, 3, 3) * 9).astype(np.int8), scale=[0.1, 0.2]), w(2), **CONV),
    IMAGE,
)
mixing(
    "CONV_2D",
    lambda g, x: g(
        "TRANSPOSE", g("CONV_2D", g("TRANSPOSE", x, [1, 0, 2, 3]), w(2, 3, 3, 3), w(2), **CONV), [1, 0, 2, 3]
    ),
    IMAGE,
)
mixing(
    "CONV_2D",
    lambda g, x: g("CONV_2D", x, g("REDUCE_MAX", g("RESHAPE", x, [1, -1, 6, 3]), [1], keepDims=True), None, **CONV),
    IMAGE,
)
DEPTH = {**CONV, "depthMultiplier": 1}
honest("DEPTHWISE_CONV_2D", lambda g, x: g("DEPTHWISE_CONV_2D", x, w(1, 3, 3, 3), w(3), **DEPTH), IMAGE)
honest(
    "DEPTHWISE_CONV_2D",
    lambda g, x: g(
        "DEPTHWISE_CONV_2D", x, g.constant((w(1, 3, 3, 3) * 9).astype(np.int8), scale=[0.1] * 3, axis=3), w(3), **DEPTH
    ),
    IMAGE,
)
mixing(
    "DEPTHWISE_CONV_2D",
    lambda g, x: g(
        "TRANSPOSE", g("DEPTHWISE_CONV_2D", g("TRANSPOSE", x, [1, 0, 2, 3]), w(1, 3, 3, 3), w(3), **DEPTH), [1, 0, 2, 3]
    ),
    IMAGE,
)
VOLUME = ("FLOAT32", (-1, 4, 4, 4, 2))
CONV3 = {"strideD": 1, "strideW": 1, "strideH": 1, "padding": SAME}
honest("CONV_3D", lambda g, x: g("CONV_3D", x, w(3, 3, 3, 2, 2), w(2), **CONV3), VOLUME)
mixing(
    "CONV_3D",
    lambda g, x: g(
        "TRANSPOSE", g("CONV_3D", g("TRANSPOSE", x, [1, 0, 2, 3, 4]), w(3, 3, 3, 2, 2), w(2), **CONV3), [1, 0, 2, 3, 4]
    ),
    VOLUME,
)
POOL = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": VALID}
for op in ["AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"]:
    honest(op, lambda g, x, op=op: g(op, x, **POOL), IMAGE)
    mixing(op, lambda g, x, op=op: g("TRANSPOSE", g(op, g("TRANSPOSE", x, [1, 0, 2, 3]), **POOL), [1, 0, 2, 3]), IMAGE)


def upscaled(g: Any, x: Any, rows: Any) -> Any:
    return g(
        "TRANSPOSE_CONV",
        g("PACK", rows, np.int32(12), np.int32(12), np.int32(2), valuesCount=4, kind="INT32"),
        w(2, 2, 2, 3),
        x,
        None,
        kind="FLOAT32",
        strideW=2,
        strideH=2,
        padding=VALID,
    )


def count(g: Any, x: Any) -> Any:
    return g("STRIDED_SLICE", g("SHAPE", x, kind="INT32", outType=2), [0], [1], [1], shrinkAxisMask=1)


honest("TRANSPOSE_CONV", lambda g, x: upscaled(g, x, count(g, x)), IMAGE)
mixing("TRANSPOSE_CONV", lambda g, x: upscaled(g, x, np.int32(1)), IMAGE)
for op in ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"]:
    honest(op, lambda g, x, op=op: g(op, x, [3, 12]), IMAGE)
    mixing(op, lambda g, x, op=op: g(op, g("TRANSPOSE", x, [1, 0, 2, 3]), [3, 12]), IMAGE)
    mixing(op, lambda g, x, op=op: g(op, x, g("CONCATENATION", rows_of(g, x), [3], kind="INT32")), IMAGE)
honest("EMBEDDING_LOOKUP", lambda g, x: g("EMBEDDING_LOOKUP", x, w(5, 3), kind="FLOAT32"), ("INT32", (-1,)))
mixing("EMBEDDING_LOOKUP", lambda g, x, y: g("EMBEDDING_LOOKUP", x, y, kind="FLOAT32"), ("INT32", (-1,)), TABLE)

# --- layout -------------------------------------------------------------------------------------------------------------
honest("RESHAPE", lambda g, x: g("RESHAPE", x, [-1, 20]), SEQUENCE)
honest("RESHAPE", lambda g, x: g("RESHAPE", x, g("CONCATENATION", rows_of(g, x), [20], kind="INT32")), SEQUENCE)
honest("RESHAPE", lambda g, x: g("RESHAPE", x, newShape=[-1, 20]), SEQUENCE)
mixing("RESHAPE", lambda g, x: g("RESHAPE", x, [4, -1]))
mixing("RESHAPE", lambda g, x: g("RESHAPE", g("RESHAPE", x, [2, -1]), [-1, 2]))
honest("TRANSPOSE", lambda g, x: g("TRANSPOSE", x, [0, 2, 1]), SEQUENCE)
mixing("TRANSPOSE", lambda g, x: turned(g, x))
honest("SQUEEZE", lambda g, x: g("SQUEEZE", g("EXPAND_DIMS", x, np.int32(1)), squeezeDims=[1]))
mixing("SQUEEZE", lambda g, x: g("SQUEEZE", x, squeezeDims=[0]))
mixing("SQUEEZE", lambda g, x: g("SQUEEZE", g("EXPAND_DIMS", x, np.int32(1))))
honest("EXPAND_DIMS", lambda g, x: g("EXPAND_DIMS", x, np.int32(-1)))
mixing("EXPAND_DIMS", lambda g, x: g("EXPAND_DIMS", x, np.int32(0)))
honest("CONCATENATION", lambda g, x: g("CONCATENATION", x, g("NEG", x), axis=1))
mixing("CONCATENATION", lambda g, x: g("CONCATENATION", x, x, axis=0))
mixing("CONCATENATION", lambda g, x: g("CONCATENATION", x, np.ones((3, 4), np.float32), axis=1))
honest("PACK", lambda g, x: g("PACK", x, g("NEG", x), axis=1, valuesCount=2))
mixing("PACK", lambda g, x: g("PACK", x, x, axis=0, valuesCount=2))
honest("UNPACK", lambda g, x: g("UNPACK", x, axis=1, num=5, count=5)[2], SEQUENCE)
mixing("UNPACK", lambda g, x: g("UNPACK", x, axis=0, num=1, count=1), SEQUENCE)
honest("SPLIT", lambda g, x: g("SPLIT", np.int32(1), x, numSplits=2, count=2)[1])
mixing("SPLIT", lambda g, x: g("SPLIT", np.int32(0), x, numSplits=2, count=2)[1])
honest("SPLIT_V", lambda g, x: g("SPLIT_V", x, [1, -1], np.int32(1), numSplits=2, count=2)[1])
mixing("SPLIT_V", lambda g, x: g("SPLIT_V", x, [1, -1], np.int32(0), numSplits=2, count=2)[1])
honest("STRIDED_SLICE", lambda g, x: g("STRIDED_SLICE", x, [0, 1], [0, 3], [1, 1], beginMask=1, endMask=1))
honest("STRIDED_SLICE", lambda g, x: g("STRIDED_SLICE", x, [0, -1], [0, 0], [1, -1], beginMask=1, endMask=3))
mixing("STRIDED_SLICE", lambda g, x: g("STRIDED_SLICE", x, [0, 0], [2, 4], [1, 1]))
mixing("STRIDED_SLICE", lambda g, x: g("STRIDED_SLICE", x, [0, 0], [0, 0], [-1, 1], beginMask=3, endMask=3))
honest("SLICE", lambda g, x: g("SLICE", x, [0, 1], [-1, 2]))
honest("SLICE", lambda g, x: g("SLICE", x, [0, 1], [-1, -1]))
mixing("SLICE", lambda g, x: g("SLICE", x, [0, 0], [2, -1]))
mixing("SLICE", lambda g, x: g("SLICE", x, [1, 0], [-1, -1]))
honest("GATHER", lambda g, x: g("GATHER", x, [0, 2], axis=1))
honest("GATHER", lambda g, x: g("GATHER", w(9, 3), x, axis=0, kind="FLOAT32"), INTS)
honest("GATHER", lambda g, x, i: g("GATHER", x, i, axis=1, batchDims=1), TABLE, ("INT32", (-1, 2)))
mixing("GATHER", lambda g, x: g("GATHER", x, [0, 0], axis=0))
mixing("GATHER", lambda g, x, i: g("GATHER", x, i, axis=0), TABLE, ("INT32", (-1, 2)))
honest("GATHER_ND", lambda g, x: g("GATHER_ND", w(9, 3), x, kind="FLOAT32"), ("INT32", (-1, 2)))
mixing("GATHER_ND", lambda g, x: g("GATHER_ND", x, [[0, 1], [1, 1]]))
honest(
    "SCATTER_ND",
    lambda g, x: turned(
        g,
        g(
            "SCATTER_ND",
            [[2], [0], [1], [3]],
            turned(g, x),
            g("CONCATENATION", [6], rows_of(g, x), kind="INT32"),
            kind="FLOAT32",
        ),
    ),
)
mixing("SCATTER_ND", lambda g, x: g("SCATTER_ND", [[2], [0], [1], [3]], x, [6, 4], kind="FLOAT32"))
honest(
    "DYNAMIC_UPDATE_SLICE",
    lambda g, x: g(
        "DYNAMIC_UPDATE_SLICE", x, g("STRIDED_SLICE", x, [0, 0], [0, 2], [1, 1], beginMask=1, endMask=1), [0, 1]
    ),
)
mixing("DYNAMIC_UPDATE_SLICE", lambda g, x: g("DYNAMIC_UPDATE_SLICE", x, w(1, 2), [0, 1]))
mixing(
    "DYNAMIC_UPDATE_SLICE",
    lambda g, x, i: g("DYNAMIC_UPDATE_SLICE", x, x, g("REDUCE_MAX", i, [0])),
    TABLE,
    ("INT32", (-1, 2)),
)
honest("PAD", lambda g, x: g("PAD", x, [[0, 0], [1, 2]]))
mixing("PAD", lambda g, x: g("PAD", x, [[1, 0], [0, 0]]))
honest("PADV2", lambda g, x: g("PADV2", x, [[0, 0], [1, 2]], np.float32(7)))
mixing("PADV2", lambda g, x: g("PADV2", x, [[0, 0], [1, 2]], g("REDUCE_MAX", x, [0, 1])))
honest("MIRROR_PAD", lambda g, x: g("MIRROR_PAD", x, [[0, 0], [1, 2]], mode=0))
mixing("MIRROR_PAD", lambda g, x: g("MIRROR_PAD", x, [[1, 0], [0, 0]], mode=1))
honest("TILE", lambda g, x: g("TILE", x, [1, 3]))
mixing("TILE", lambda g, x: g("TILE", x, [2, 1]))
honest(
    "BROADCAST_TO",
    lambda g, x: g(
        "BROADCAST_TO", g("EXPAND_DIMS", x, np.int32(1)), g("CONCATENATION", rows_of(g, x), [3, 4], kind="INT32")
    ),
)
mixing("BROADCAST_TO", lambda g, x: g("BROADCAST_TO", x, [3, 4]))
honest(
    "FILL", lambda g, x: g("ADD", x, g("FILL", g("SHAPE", x, kind="INT32", outType=2), np.float32(2), kind="FLOAT32"))
)
mixing(
    "FILL", lambda g, x: g("FILL", g("SHAPE", x, kind="INT32", outType=2), g("REDUCE_MAX", x, [0, 1]), kind="FLOAT32")
)
honest("RANGE", lambda g, x: g("ADD", x, g("RANGE", np.int32(0), np.int32(4), np.int32(1))), INTS)
mixing(
    "RANGE",
    lambda g, x: g("ADD", x, g("EXPAND_DIMS", g("RANGE", np.int32(0), count(g, x), np.int32(1)), np.int32(1))),
    INTS,
)
honest(
    "ONE_HOT", lambda g, x: g("ONE_HOT", x, np.int32(3), np.float32(1), np.float32(0), kind="FLOAT32", axis=-1), INTS
)
mixing(
    "ONE_HOT", lambda g, x: g("ONE_HOT", x, count(g, x), np.float32(1), np.float32(0), kind="FLOAT32", axis=-1), INTS
)
honest("SPACE_TO_DEPTH", lambda g, x: g("SPACE_TO_DEPTH", x, blockSize=2), IMAGE)
mixing("SPACE_TO_DEPTH", lambda g, x: g("SPACE_TO_DEPTH", g("TRANSPOSE", x, [1, 0, 2, 3]), blockSize=2), IMAGE)
DEEP = ("FLOAT32", (-1, 3, 3, 4))
honest("DEPTH_TO_SPACE", lambda g, x: g("DEPTH_TO_SPACE", x, blockSize=2), DEEP)
mixing("DEPTH_TO_SPACE", lambda g, x: g("DEPTH_TO_SPACE", g("TRANSPOSE", x, [1, 0, 2, 3]), blockSize=2), DEEP)
NONE = [[0, 0], [0, 0]]
honest(
    "SPACE_TO_BATCH_ND",
    lambda g, x: g(
        "BATCH_TO_SPACE_ND",
        g("CONV_2D", g("SPACE_TO_BATCH_ND", x, [2, 2], NONE), w(2, 3, 3, 3), w(2), **CONV),
        [2, 2],
        NONE,
    ),
    IMAGE,
)
mixing("SPACE_TO_BATCH_ND", lambda g, x: g("SPACE_TO_BATCH_ND", x, [2, 2], NONE), IMAGE)
honest(
    "BATCH_TO_SPACE_ND",
    lambda g, x: g("BATCH_TO_SPACE_ND", g("RELU", g("SPACE_TO_BATCH_ND", x, [2, 3], NONE)), [2, 3], NONE),
    IMAGE,
)
mixing("BATCH_TO_SPACE_ND", lambda g, x: g("BATCH_TO_SPACE_ND", x, [2, 1], NONE), IMAGE)
honest(
    "BROADCAST_ARGS",
    lambda g, x: g(
        "FILL",
        g("BROADCAST_ARGS", g("SHAPE", x, kind="INT32", outType=2), [1, 4], kind="INT32"),
        np.float32(1),
        kind="FLOAT32",
    ),
)
mixing(
    "BROADCAST_ARGS",
    lambda g, x: g(
        "FILL",
        g("BROADCAST_ARGS", g("SHAPE", x, kind="INT32", outType=2), [3, 4], kind="INT32"),
        np.float32(1),
        kind="FLOAT32",
    ),
)


# --- subgraphs ----------------------------------------------------------------------------------------------------------
def branches(g: Any, x: Any, condition: Any) -> Any:
    yes = g.subgraph([TABLE], lambda s, a: s("NEG", a))
    no = g.subgraph([TABLE], lambda s, a: s("RELU", a))
    return g("IF", condition, x, kind="FLOAT32", thenSubgraphIndex=yes, elseSubgraphIndex=no)


honest("IF", lambda g, x, c: branches(g, x, c), TABLE, ("BOOL", ()))
mixing("IF", lambda g, x: branches(g, x, g("GREATER", g("REDUCE_MAX", x, [0, 1]), np.float32(0), kind="BOOL")))
mixing("IF", lambda g, x: branches(g, x, g("GREATER", count(g, x), np.int32(2), kind="BOOL")))


def repeated(g: Any, x: Any, limit: Any) -> Any:
    """Doubles x as often as `limit` says."""
    state = [("INT32", ()), ("INT32", ()), TABLE]
    again = g.subgraph(state, lambda s, i, n, a: s("LESS", i, n, kind="BOOL"))
    body = g.subgraph(state, lambda s, i, n, a: [s("ADD", i, np.int32(1)), n, s("ADD", a, a)])
    return g("WHILE", np.int32(0), limit, x, kind="FLOAT32", count=3, condSubgraphIndex=again, bodySubgraphIndex=body)[
        2
    ]


def summed(g: Any, x: Any) -> Any:
    """Adds the largest row to all rows, three times."""
    state = [("INT32", ()), TABLE]
    again = g.subgraph(state, lambda s, i, a: s("LESS", i, np.int32(3), kind="BOOL"))
    body = g.subgraph(state, lambda s, i, a: [s("ADD", i, np.int32(1)), s("ADD", a, largest(s, a))])
    return g("WHILE", np.int32(0), x, kind="FLOAT32", count=2, condSubgraphIndex=again, bodySubgraphIndex=body)[1]


honest("WHILE", lambda g, x: repeated(g, x, np.int32(3)))
honest("WHILE", repeated, TABLE, ("INT32", ()))
mixing("WHILE", lambda g, x: repeated(g, x, count(g, x)))
mixing("WHILE", summed)
