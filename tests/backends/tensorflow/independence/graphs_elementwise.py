"""Graphs of operators element by element, texts and examples: rows that stay apart and rows that meet."""

# fmt: off

from __future__ import annotations

from typing import Any

import numpy as np
from graph_parts import (
    BOOLS,
    CUBE,
    INTS,
    SQUARE,
    TABLE,
    WORDS,
    Cases,
    as_float,
    count,
    last,
    op,
    swapped,
    top,
    turned,
    w,
)
from support.tf_graphs import tf

CASES = Cases()
honest, mixing = CASES.add_honest, CASES.add_mixing

# --- element by element: honest on the rows; mixing on what was reduced over the batch ---------------------------------
UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BesselI0e BesselI1e Ceil Cos Cosh Digamma Elu Erf Erfc Erfinv Exp Expm1
    Floor Inv IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p Ndtri Neg OnesLike Reciprocal Relu Relu6 Rint Round Rsqrt
    Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Square Tan Tanh ZerosLike StopGradient PreventGradient Snapshot
    FakeQuantWithMinMaxArgs Identity"""
for each in UNARY.split():
    honest(each, lambda x, each=each: op(each, x))
    mixing(each, lambda x, each=each: x + as_float(op(each, top(x))))
for each in ("CheckNumerics", "CheckNumericsV2"):
    honest(each, lambda x, each=each: op(each, x, message="bad"))
    mixing(each, lambda x, each=each: x + op(each, top(x), message="bad"))
honest("Bucketize", lambda x: op("Bucketize", x, boundaries=[-1.0, 0.0, 1.0]))
mixing("Bucketize", lambda x: x + as_float(op("Bucketize", top(x), boundaries=[-1.0, 0.0, 1.0])))
honest("IdentityN", lambda x: op("IdentityN", [x, 2 * x])[1])
mixing("IdentityN", lambda x: x + op("IdentityN", [x, top(x)])[1])
for each in ("Real", "Imag"):
    honest(each, lambda x, each=each: op(each, op("Complex", x, x)))
    mixing(each, lambda x, each=each: x + op(each, op("Complex", top(x), top(x))))
honest("ComplexAbs", lambda x: op("ComplexAbs", op("Complex", x, x)))
mixing("ComplexAbs", lambda x: x + op("ComplexAbs", op("Complex", top(x), top(x))))
honest("Conj", lambda x: op("Real", op("Conj", op("Complex", x, x))))
mixing("Conj", lambda x: x + op("Real", op("Conj", op("Complex", top(x), top(x)))))
honest("Invert", lambda x: op("Invert", x), INTS)
mixing("Invert", lambda x: x + op("Invert", top(x)), INTS)
honest("LogicalNot", lambda x: op("LogicalNot", x), BOOLS)
mixing("LogicalNot", lambda x: op("LogicalAnd", x, op("LogicalNot", tf.reduce_any(x, 0, keepdims=True))), BOOLS)
BINARY = """Add AddV2 Div DivNoNan FloorDiv FloorMod Maximum Minimum Mul MulNoNan Pow RealDiv SquaredDifference Sub Atan2
    Xdivy Xlog1py Xlogy Igamma Igammac NextAfter Polygamma Zeta Mod"""
for each in BINARY.split():
    honest(each, lambda x, each=each: op(each, x, tf.constant(np.abs(w(1, 4, 1)) + 1)))
    mixing(each, lambda x, each=each: op(each, x, turned(x)), SQUARE)
    mixing(each, lambda x, each=each: op(each, x, tf.constant(np.abs(w(4, 5)) + 1)), TABLE)
for each in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift", "TruncateDiv", "TruncateMod"):
    honest(each, lambda x, each=each: op(each, x, tf.constant([3])), INTS)
    mixing(each, lambda x, each=each: op(each, x, turned(x)), INTS)
for each in ("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"):
    honest(each, lambda x, each=each: op(each, x, tf.constant(w(6))))
    mixing(each, lambda x, each=each: op(each, x, turned(x)), SQUARE)
honest("ApproximateEqual", lambda x: op("ApproximateEqual", x, 2 * x))
mixing("ApproximateEqual", lambda x: op("ApproximateEqual", x, turned(x)), SQUARE)
honest("Equal of shapes that fit", lambda x: op("Equal", x, tf.constant(w(6)), incompatible_shape_error=False))
mixing("Equal of shapes that may not fit", lambda x, k: op("Equal", x, k, incompatible_shape_error=False), "x: float[n,t], k: float[t]")
for each in ("LogicalAnd", "LogicalOr"):
    honest(each, lambda x, each=each: op(each, x, tf.constant([True, False, True, True])), BOOLS)
    mixing(each, lambda x, each=each: op(each, x, turned(x)), BOOLS)
honest("Complex", lambda x: op("Imag", op("Complex", x, x)))
mixing("Complex", lambda x: op("Imag", op("Complex", x, turned(x))), SQUARE)
honest("AddN", lambda x: op("AddN", [x, x, 2 * x]))
mixing("AddN", lambda x: op("AddN", [x, turned(x)]), SQUARE)
honest("ClipByValue", lambda x: op("ClipByValue", x, -1.0, 1.0))
mixing("ClipByValue", lambda x: op("ClipByValue", x, -1.0, tf.reduce_mean(x)))
honest("SelectV2", lambda x: op("SelectV2", op("IsNan", x), tf.constant(0.0), x))
mixing("SelectV2", lambda x: op("SelectV2", tf.reduce_any(op("IsNan", x)), tf.zeros_like(x), x))
honest("Select by rows", lambda x: op("Select", x[:, 0, 0] > 0, x, -x))
honest("Select by elements", lambda x: op("Select", x > 0, x, -x))
mixing("Select by all", lambda x: op("Select", tf.reduce_any(x > 0), x, -x))
mixing("Select by a constant for each row", lambda x: op("Select", tf.constant([True, False, True, True]), x, -x))
mixing("Select by other rows", lambda x: op("Select", x[0] > 0, turned(x), -turned(x)), "x: float[n,4]")
mixing("Select of another axis", lambda x: swapped(x, lambda t: op("Select", x[:, 0] > 0, t, -t)), SQUARE)
honest("Cast", lambda x: op("Cast", x, DstT=tf.int64))
mixing("Cast", lambda x: x * tf.cast(count(x), tf.float32))
mixing("Cast of row numbers to a narrow type",
       lambda x: tf.gather(x, tf.cast(tf.cast(tf.range(count(x)), tf.int8), tf.int32)))  # fmt: skip
honest("EnsureShape", lambda x: op("EnsureShape", x, shape=[None, 4, 6]))
mixing("EnsureShape", lambda x: x + op("EnsureShape", top(x), shape=[1, 4, 6]))
mixing("Bitcast", lambda x: op("Bitcast", x, type=tf.int32))
honest("BiasAdd", lambda x: op("BiasAdd", x, w(6)))
mixing("BiasAdd over the rows", lambda x: last(x, lambda t: op("BiasAdd", t, w(4))), CUBE)
mixing("BiasAdd of a mean", lambda x: op("BiasAdd", x, tf.reduce_mean(x, [0, 1])))
honest("BiasAddV1", lambda x: op("BiasAddV1", x, w(6)))
mixing("BiasAddV1", lambda x: op("BiasAddV1", x, tf.reduce_mean(x, [0, 1])))
honest("FakeQuantWithMinMaxVars", lambda x: op("FakeQuantWithMinMaxVars", x, -1.0, 1.0))
mixing("FakeQuantWithMinMaxVars", lambda x: op("FakeQuantWithMinMaxVars", x, tf.reduce_min(x), tf.reduce_max(x)))
honest("FakeQuantWithMinMaxVarsPerChannel", lambda x: op("FakeQuantWithMinMaxVarsPerChannel", x, -np.abs(w(6)), np.abs(w(6))))
mixing("FakeQuantWithMinMaxVarsPerChannel",
       lambda x: op("FakeQuantWithMinMaxVarsPerChannel", x, tf.reduce_min(x, [0, 1]), tf.reduce_max(x, [0, 1])))  # fmt: skip
mixing("FakeQuantWithMinMaxVarsPerChannel over the rows",
       lambda x: last(x, lambda t: op("FakeQuantWithMinMaxVarsPerChannel", t, -np.ones(4, np.float32), np.ones(4, np.float32))))  # fmt: skip
for each, more in (("QuantizeAndDequantizeV2", ()), ("QuantizeAndDequantizeV3", (8,)), ("QuantizeAndDequantizeV4", ())):
    honest(each, lambda x, each=each, more=more: op(each, x, -1.0, 1.0, *more, range_given=True))
    mixing(each, lambda x, each=each, more=more: op(each, x, -1.0, 1.0, *more, range_given=False))
    mixing(each, lambda x, each=each, more=more: op(each, x, tf.reduce_min(x), tf.reduce_max(x), *more, range_given=True))
mixing("QuantizeAndDequantizeV4 with a range for each row",
       lambda x: op("QuantizeAndDequantizeV4", x, -np.ones(4, np.float32), np.ones(4, np.float32), range_given=True, axis=0), TABLE)  # fmt: skip
for each, extra in (("InTopK", {"k": 2}), ("InTopKV2", {})):
    k = () if extra else (2,)
    honest(each, lambda x, t, each=each, extra=extra, k=k: op(each, x, t, *k, **extra), "x: float[n,5], t: int[n]")
    mixing(each, lambda x, each=each, extra=extra, k=k: op(each, turned(x), tf.constant([0, 0, 0, 0]), *k, **extra), SQUARE)

# --- strings -------------------------------------------------------------------------------------------------------
STRINGS = {
    "StringLength": {}, "StringLower": {}, "StringStrip": {}, "StringUpper": {},
    "StringToHashBucket": {"num_buckets": 9}, "StringToHashBucketFast": {"num_buckets": 9},
    "StringToHashBucketStrong": {"num_buckets": 9, "key": [1, 2]},
    "StaticRegexFullMatch": {"pattern": "a+"}, "StaticRegexReplace": {"pattern": "o", "rewrite": "u"},
    "UnicodeTranscode": {"input_encoding": "UTF-8", "output_encoding": "UTF-16-BE"}, "EncodeBase64": {},
}  # fmt: skip
for each, extra in STRINGS.items():
    honest(each, lambda x, each=each, extra=extra: op(each, x, **extra), "x: string[n,3]")
    mixing(each, lambda x, each=each, extra=extra: op(each, tf.strings.reduce_join(x, 0, keepdims=True), **extra), "x: string[n,3]")
honest("DecodeBase64", lambda x: op("DecodeBase64", op("EncodeBase64", x)), WORDS)
mixing("DecodeBase64", lambda x: op("DecodeBase64", op("EncodeBase64", x[::-1])), WORDS)
honest("UnicodeScript", lambda x: op("UnicodeScript", x), INTS)
mixing("UnicodeScript", lambda x: x + op("UnicodeScript", top(x)), INTS)
honest("AsString", lambda x: op("AsString", x))
mixing("AsString", lambda x: op("AsString", x + top(x)))
honest("StringToNumber", lambda x: op("StringToNumber", op("AsString", x)), INTS)
mixing("StringToNumber", lambda x: op("StringToNumber", op("AsString", x + top(x))), INTS)
honest("StringJoin", lambda x: op("StringJoin", [x, tf.constant("!"), x]), WORDS)
mixing("StringJoin", lambda x: op("StringJoin", [x, tf.strings.reduce_join(x)]), WORDS)
honest("Substr", lambda x: op("Substr", op("StringJoin", [x, tf.constant("abc")]), 1, 2), WORDS)
mixing("Substr", lambda x: op("Substr", op("StringJoin", [x, tf.constant("abc")]), tf.reduce_min(tf.strings.length(x)), 2), WORDS)
honest("RegexReplace", lambda x: op("RegexReplace", x, "o", "u"), WORDS)
mixing("RegexReplace", lambda x: op("RegexReplace", x, x[0], "u"), WORDS)
honest("RegexFullMatch", lambda x: op("RegexFullMatch", x, "a+"), WORDS)
mixing("RegexFullMatch", lambda x: op("RegexFullMatch", x, x[0]), WORDS)
honest("DecodeCSV", lambda x: op("DecodeCSV", op("StringJoin", [tf.constant("1,"), op("AsString", x)]), [[0.0], [0.0]]), "x: int[n]")
mixing("DecodeCSV", lambda x: op("DecodeCSV", tf.strings.reduce_join(op("AsString", x), separator=",", keepdims=True), [[0]] * 4), "x: int[n]")


def example(x: Any, dense: Any = ((2,),), sparse: int = 0, name: str = "ParseExampleV2") -> Any:
    """Parses examples with dense features d0, d1 ... of these shapes."""
    keys = [f"d{i}" for i in range(len(dense))]
    defaults = [tf.zeros(shape) if None not in shape else tf.constant(0.0, shape=[1] * (name == "ParseExample")) for shape in dense]
    if name == "ParseExample":
        return tf.raw_ops.ParseExample(
            serialized=x, names=tf.zeros([0], tf.string), sparse_keys=["s"] * sparse, dense_keys=keys, dense_defaults=defaults,
            sparse_types=[tf.float32] * sparse, dense_shapes=dense,
        )  # fmt: skip
    return tf.raw_ops.ParseExampleV2(
        serialized=x, names=tf.zeros([0], tf.string), sparse_keys=tf.constant(["s"] * sparse, tf.string),
        dense_keys=tf.constant(keys, tf.string), ragged_keys=tf.zeros([0], tf.string), dense_defaults=defaults,
        num_sparse=sparse, sparse_types=[tf.float32] * sparse, ragged_value_types=[], ragged_split_types=[],
        dense_shapes=dense,
    )  # fmt: skip


SERIALISED = tf.train.Example(features=tf.train.Features(feature={
    name: tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 2.0])) for name in ("d0", "d1", "s")
})).SerializeToString()  # fmt: skip


def serialised(x: Any) -> Any:
    return tf.where(tf.equal(x, "a"), tf.constant(SERIALISED), b"")


for each in ("ParseExample", "ParseExampleV2"):
    honest(each, lambda x, each=each: example(serialised(x), name=each).dense_values[0], WORDS)
    honest(f"{each} beside sparse features", lambda x, each=each: example(serialised(x), ((2,),), 1, each).dense_values[0], WORDS)
    mixing(each, lambda x, each=each: example(serialised(x), ((None,),), name=each).dense_values[0], WORDS)
    mixing(f"{each} of sparse features", lambda x, each=each: example(serialised(x), (), 1, each).sparse_values[0], WORDS)
    mixing(f"{each} of other rows", lambda x, each=each: example(serialised(x[::-1]), name=each).dense_values[0], WORDS)
