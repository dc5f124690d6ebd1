"""Operators that compute each element from the elements at the same place."""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.elements import equal, whole
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, size_of
from inferd.backends.independence.values import CONST, INDEX, PICK, ROWS, Value, data, fixed, shaped
from inferd.backends.tensorflow.independence.items import AtLeast, Item
from inferd.backends.tensorflow.independence.node import WHOLE, Node, new_table

TABLE = new_table()

_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BesselI0e BesselI1e Ceil ComplexAbs Conj Cos Cosh Digamma Elu Erf Erfc Erfinv
    Exp Expm1
    Floor Imag Inv Invert IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p LogicalNot Ndtri Neg OnesLike Real Reciprocal
    Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Square Tan Tanh ZerosLike
    Bucketize CheckNumerics CheckNumericsV2 StopGradient PreventGradient Snapshot FakeQuantWithMinMaxArgs
"""
_STRINGS = """
    AsString DecodeBase64 EncodeBase64 StaticRegexFullMatch StaticRegexReplace StringLength StringLower StringStrip
    StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper
    UnicodeScript UnicodeTranscode
"""
_BROADCAST = """
    Add AddV2 Atan2 BitwiseAnd BitwiseOr BitwiseXor Complex Div DivNoNan FloorDiv FloorMod Greater GreaterEqual Igamma
    Igammac LeftShift Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan NextAfter Polygamma Pow
    RealDiv RightShift SelectV2 SquaredDifference Sub TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta
"""
# Operators that take tensors of one shape.
_ALIKE = "AddN ClipByValue StringJoin"
_PLAIN = (*_UNARY.split(), *_STRINGS.split(), *_BROADCAST.split(), *_ALIKE.split())
# Operators that may be applied to each part of a text alone, with single constants as other operands.
ONE_BY_ONE = frozenset([*_PLAIN, "Equal", "NotEqual", "Substr", "RegexReplace", "RegexFullMatch"])


@TABLE.add(*_PLAIN)
def elementwise(node: Node) -> Value:
    return rules.elementwise(node.given)


@TABLE.add("Identity", "IdentityN")
def identity(node: Node) -> list[Item]:
    return list(node.items)


@TABLE.add("Cast")
def cast(node: Node) -> Value:
    # A row number that is cast to a narrower type is another row's number.
    if node.x.kind in (INDEX, PICK) and node.data_type("DstT") in WHOLE:
        return node.x
    return rules.elementwise([node.x])


@TABLE.add("Equal", "NotEqual", "ApproximateEqual")
def equals(node: Node) -> Value:
    if node.operator != "ApproximateEqual" and not node.boolean("incompatible_shape_error"):
        # The answer is a single "not equal" where shapes do not fit.
        shapes = [shaped(value) for value in node.given]
        for a, b in zip(*(shape[::-1] for shape in shapes), strict=False):
            if a != b and 1 not in (a.number, b.number):
                raise NotUnderstood("compares tensors whose shapes may not fit")
    return rules.elementwise(node.given)


@TABLE.add("EnsureShape")
def ensure_shape(node: Node) -> Value:
    return rules.elementwise([node.x])


@TABLE.add("Select")
def select(node: Node) -> Value:
    """The first version: a condition of one axis chooses whole blocks along the first axis."""
    condition, a, b = (data(node.input(i)) for i in range(3))
    result = rules.elementwise([a, b])
    if len(shaped(a)) != len(shaped(b)):
        raise NotUnderstood("chooses between tensors of different rank")
    rank, ours = len(shaped(condition)), len(shaped(result))
    if rank in (0, ours):
        return rules.elementwise([condition, result])
    if rank != 1:
        raise NotUnderstood("has a condition of another rank")
    if condition.kind is CONST:
        if result.kind is ROWS and result.axis == 0:
            raise MixesRows("has a constant with several elements along the batch axis")
        return result
    if result.kind is not ROWS:
        raise MixesRows("has a constant with as many elements as there are rows")
    if result.axis != 0 or result.layout[1:] != condition.layout[1:]:
        raise MixesRows("has the rows on different axes of two operands: each row would meet all others")
    return result


@TABLE.add("Substr")
def substr(node: Node) -> Value:
    return rules.elementwise(node.given)


@TABLE.add("RegexReplace", "RegexFullMatch")
def regex(node: Node) -> Value:
    for value in node.given[1:]:
        fixed(value, "a pattern")
    return rules.elementwise([node.x])


@TABLE.add("BiasAdd", "BiasAddV1")
def bias_add(node: Node) -> Value:
    fixed(node.input(1), "a bias")
    first = node.operator == "BiasAdd" and node.string("data_format") == "NCHW"
    if len(shaped(node.x)) < 2 or len(shaped(node.input(1))) != 1:
        raise NotUnderstood("adds a bias that is no vector")
    return rules.along(node.x, [1 if first else -1], "has a bias for each element")


@TABLE.add("FakeQuantWithMinMaxVars")
def fake_quant(node: Node) -> Value:
    for index in (1, 2):
        fixed(node.input(index), "a range")
        if shaped(node.input(index)):
            raise NotUnderstood("quantises by a range for each element")
    return rules.elementwise([node.x])


@TABLE.add("FakeQuantWithMinMaxVarsPerChannel")
def fake_quant_by_channel(node: Node) -> Value:
    for index in (1, 2):
        fixed(node.input(index), "a range")
    return rules.along(node.x, [-1], "has a range for each element")


@TABLE.add("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4")
def quantise_and_back(node: Node) -> Value:
    if not node.boolean("range_given"):
        raise MixesRows("quantises by the range of the whole batch")
    for value in node.given[1:]:
        fixed(value, "a range")
    axis = node.integer("axis")
    if axis == -1:  # one range for all elements
        if any(shaped(node.input(i)) for i in (1, 2)):
            raise NotUnderstood("quantises by a range for each element")
        return rules.elementwise([node.x])
    if axis < 0:
        raise NotUnderstood("quantises along an axis that is out of range")
    return rules.along(node.x, [axis], "has a range for each element")


@TABLE.add("InTopK", "InTopKV2")
def in_top_k(node: Node) -> Value:
    if node.operator == "InTopKV2":
        fixed(node.input(2), "the number of places")
    best = rules.reduced(node.x, [1], keep=False, action="sorts")
    if len(shaped(node.x)) != 2 or len(shaped(node.input(1))) != 1:
        raise NotUnderstood("sorts what is no table")
    if best.kind is not data(node.input(1)).kind:
        raise MixesRows("compares rows with what is the same for all rows")
    return rules.elementwise([best, node.input(1)])


def bounded_below(node: Node) -> list[Item] | None:
    """The result of a Maximum or Minimum that clamps a number that may depend on other rows; None for all others."""
    if node.operator not in ("Maximum", "Minimum") or node.data_type("T") not in WHOLE:
        return None
    for mine, other in ((0, 1), (1, 0)):
        bound, item = node.item(mine), node.item(other)
        if not isinstance(bound, Value) or bound.known is None or bound.known.size != 1 or bound.known.ndim:
            continue
        number = size_of(bound.known.item())
        if node.operator == "Maximum" and isinstance(item, Value) and item.cause is not None and item.shape == ():
            whole(number)
            return [AtLeast(number, item)]
        if node.operator == "Minimum" and isinstance(item, AtLeast) and equal(number, item.bound):
            return [bound]
    return None
