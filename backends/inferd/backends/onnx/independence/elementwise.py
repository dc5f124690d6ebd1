"""Operators that compute each element from the elements at the same place, and those along given axes."""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, size_of
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import CONST, INDEX, PICK, Value, axis_of, data, fixed, shaped
from inferd.backends.onnx.independence.node import Node, Transfer, microsoft

TABLE: OperatorTable[Transfer] = OperatorTable()

_PLAIN = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Clip Cos
    Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less
    LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin
    Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor StringConcat RegexFullMatch
    ai.onnx.ml:Binarizer ai.onnx.ml:LabelEncoder
"""
ELEMENTWISE = (*_PLAIN.split(), *microsoft("BiasGelu FastGelu Gelu QuickGelu"))
_INT32, _INT64 = 6, 7


@TABLE.add(*ELEMENTWISE)
def elementwise(node: Node) -> Value:
    return rules.elementwise(node.given)


@TABLE.add("Identity")
def identity(node: Node) -> Value:
    return node.x if node.x.kind in (INDEX, PICK) else rules.elementwise([node.x])


@TABLE.add("Cast")
def cast(node: Node) -> Value:
    # A row number that is cast to a narrower type is another row's number.
    if node.x.kind in (INDEX, PICK) and node.integer("to", 0) in (_INT32, _INT64):
        return node.x
    return rules.elementwise([node.x])


@TABLE.add("CastLike")
def cast_like(node: Node) -> Value:
    return rules.elementwise([node.x])


@TABLE.add("Dropout")
def dropout(node: Node) -> list[Value]:
    training = node.optional(2)
    if training is not None:
        mode = training.known
        if mode is None or mode.dtype != bool or mode.size != 1:
            raise NotUnderstood("is in a mode that is not known")
        if mode.reshape(-1)[0]:
            raise MixesRows("is random in training mode")
    fixed(node.optional(1), "the ratio")
    return [rules.elementwise([node.x])] * node.outputs


@TABLE.add("QuantizeLinear", "DequantizeLinear", *microsoft("QuantizeLinear DequantizeLinear"))
def quantize(node: Node) -> Value:
    for index in (1, 2):
        fixed(node.optional(index), "a scale or zero point")
    scale = shaped(node.input(1))
    if len(scale) > 1 or node.integer("block_size", 0):
        if data(node.x).kind is not CONST:
            raise NotUnderstood("quantises by blocks")
        return rules.elementwise([node.x])
    if scale and scale[0] != 1:
        return rules.along(node.x, [node.integer("axis", 1)], "has a scale for each element")
    return rules.elementwise([node.x])


@TABLE.add("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node) -> Value:
    rank = len(shaped(node.x))
    if node.opset >= 13:
        return rules.along(node.x, [axis_of(node.x, node.integer("axis", -1))], "normalises")
    # Before version 13 the axes from `axis` on were taken together.
    first = node.integer("axis", 1)
    if not -rank <= first <= rank:
        raise NotUnderstood("has an axis that is out of range")
    return rules.along(node.x, range(first if first >= 0 else first + rank, rank), "normalises")


@TABLE.add("CumSum", "CumProd")
def cumulative(node: Node) -> Value:
    axes = node.numbers(1)
    if not axes:
        raise NotUnderstood("has no axis")
    return rules.along(node.x, axes, "accumulates")


@TABLE.add("LpNormalization")
def lp_normalization(node: Node) -> Value:
    return rules.along(node.x, [node.integer("axis", -1)], "normalises")


@TABLE.add("Trilu")
def trilu(node: Node) -> Value:
    fixed(node.optional(1), "the diagonal")
    return rules.along(node.x, [-1, -2], "cuts out a triangle")


@TABLE.add("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(node: Node) -> list[Value]:
    first = axis_of(node.x, node.integer("axis", -1))
    axes = range(first, len(shaped(node.x)))
    result = rules.along(node.x, axes, "normalises")
    for value in node.given[1:]:
        fixed(value, "a weight")
        if len(shaped(value)) > len(shaped(node.x)):
            raise NotUnderstood("has a weight of higher rank than its input")
    rules.aligned([result, *node.given[1:]])
    return [result, *[rules.reduced(node.x, axes, keep=True)] * (node.outputs - 1)]


@TABLE.add(*microsoft("SkipLayerNormalization SkipSimplifiedLayerNormalization"))
def skip_layer_normalization(node: Node) -> list[Value]:
    for value in node.given[2:]:
        fixed(value, "a weight")
        if len(shaped(value)) != 1:
            raise NotUnderstood("has a weight that is no vector")
    total = rules.elementwise([node.input(0), node.input(1)])
    if len(shaped(total)) != len(shaped(node.x)) or len(shaped(total)) < 2:
        raise NotUnderstood("adds a tensor of another rank")
    result = rules.along(total, [-1], "normalises")
    statistics = rules.reduced(total, [-1], keep=True)
    return [result, statistics, statistics, total][: node.outputs]


@TABLE.add("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Value:
    axes = node.integers("axes")
    return rules.along(node.x, [0, 2, 3] if axes is None else axes, "normalises")


@TABLE.add("BatchNormalization")
def batch_normalization(node: Node) -> Value:
    training = node.integer("training_mode", 0) if node.opset >= 14 else node.outputs > 1
    if training or node.outputs > 1:
        raise MixesRows("normalises by the statistics of the batch (training mode)")
    if not node.integer("spatial", 1):
        raise NotUnderstood("has a weight for each position")
    for value in node.given[1:]:
        fixed(value, "a weight")
    return rules.along(node.x, [1], "has a weight for each element")


@TABLE.add("InstanceNormalization", "GroupNormalization", "LRN")
def channel_normalization(node: Node) -> Value:
    for value in node.given[1:]:
        fixed(value, "a weight")
    return rules.along(node.x, range(1, len(shaped(node.x))), "normalises")


_KINDS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_REDUCTIONS = [f"Reduce{kind}" for kind in _KINDS.split()]


@TABLE.add(*_REDUCTIONS)
def reduction(node: Node) -> Value:
    by_input = node.opset >= (13 if node.operator == "ReduceSum" else 18)
    axes = node.numbers(1) if by_input else node.integers("axes")
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            return rules.elementwise([node.x])
        axes = list(range(len(shaped(node.x))))
    return rules.reduced(node.x, axes, bool(node.integer("keepdims", 1)), "reduces")


@TABLE.add("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Value:
    return rules.reduced(node.x, [node.integer("axis", 0)], bool(node.integer("keepdims", 1)), "reduces")


@TABLE.add("TopK")
def top_k(node: Node) -> list[Value]:
    given = node.sizes(1) if node.opset >= 10 else [size_of(node.integer("k", 1))]
    if given is None or len(given) != 1:
        raise NotUnderstood("takes a number of elements that is not known")
    if given[0].batched:
        raise MixesRows("takes as many elements as there are rows")
    return [rules.resized(node.x, {node.integer("axis", -1): given[0]}, "sorts")] * 2


@TABLE.add("ReverseSequence")
def reverse_sequence(node: Node) -> Value:
    batch, time = axis_of(node.x, node.integer("batch_axis", 1)), axis_of(node.x, node.integer("time_axis", 0))
    return rules.reversed_sequences(node.x, node.input(1), batch, time)
