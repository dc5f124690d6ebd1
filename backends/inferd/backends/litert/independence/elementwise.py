"""Operators that compute each element from the elements at the same place, and those along given axes."""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood
from inferd.backends.independence.values import CONST, INDEX, PICK, ROWS, Value, by_row, data, like, shaped
from inferd.backends.litert.independence.node import Node, new_table

TABLE = new_table()
_PLAIN = """
    ABS ADD ADD_N ATAN2 BITWISE_XOR BUCKETIZE CEIL COS DEQUANTIZE DIV ELU EQUAL EXP FAKE_QUANT FLOOR FLOOR_DIV FLOOR_MOD
    GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC
    MAXIMUM MINIMUM MUL NEG NOT_EQUAL POW PRELU QUANTIZE RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RIGHT_SHIFT ROUND RSQRT
    SELECT_V2 SIGN SIN SQRT SQUARE SQUARED_DIFFERENCE SUB TANH ZEROS_LIKE
"""
ELEMENTWISE = (*_PLAIN.split(),)
_WHOLE = ("INT32", "INT64")


@TABLE.add(*ELEMENTWISE)
def elementwise(node: Node) -> Value:
    return rules.elementwise(node.given)


@TABLE.add("CAST")
def cast(node: Node) -> Value:
    # A row number that is cast to a narrower type is another row's number.
    if node.x.kind in (INDEX, PICK) and node.gives[0].type in _WHOLE:
        return node.x
    return rules.elementwise([node.x])


@TABLE.add("SELECT")
def select(node: Node) -> Value:
    """A condition of one axis chooses whole rows; it is not broadcast."""
    condition, a, b = (data(node.input(i)) for i in range(3))
    if len(shaped(condition)) == 1 < len(shaped(a)):
        if condition.kind is CONST and a.kind is CONST and b.kind is CONST:
            return rules.elementwise([a, b])
        by_row(condition, "the condition")
        return like(by_row(rules.elementwise([a, b]), "what is chosen"), shaped(a))
    return rules.elementwise([condition, a, b])


@TABLE.add("SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION")
def normalised(node: Node) -> Value:
    return rules.along(node.x, [-1], "normalises")


@TABLE.add("LOCAL_RESPONSE_NORMALIZATION")
def local_response(node: Node) -> Value:
    return rules.along(node.x, [-1], "normalises")


@TABLE.add("CUMSUM")
def cumulative(node: Node) -> Value:
    return rules.along(node.x, [node.number(1)], "accumulates")


@TABLE.add("REVERSE_V2")
def reverse(node: Node) -> Value:
    return rules.along(node.x, node.numbers(1), "reverses")


@TABLE.add("REVERSE_SEQUENCE")
def reverse_sequence(node: Node) -> Value:
    rank = len(shaped(node.x))
    batch, time = node.integer("batch_dim"), node.integer("seq_dim")
    if not (0 <= batch < rank and 0 <= time < rank):
        raise NotUnderstood("has axes that are out of range")
    return rules.reversed_sequences(node.x, node.input(1), batch, time)


@TABLE.add("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL")
def reduction(node: Node) -> Value:
    return rules.reduced(node.x, node.numbers(1), bool(node.integer("keep_dims")))


@TABLE.add("ARG_MAX", "ARG_MIN")
def arg_extreme(node: Node) -> Value:
    return rules.reduced(node.x, [node.number(1)], keep=False)


@TABLE.add("TOPK_V2")
def top_k(node: Node) -> list[Value]:
    count = node.sizes(1)
    if len(count) != 1:
        raise NotUnderstood("takes a number of elements that is not known")
    if count[0].batched:
        raise MixesRows("takes as many elements as there are rows")
    return [rules.resized(node.x, {-1: count[0]}, "sorts")] * 2


@TABLE.add("MATRIX_DIAG")
def matrix_diag(node: Node) -> Value:
    value = data(node.x)
    shape = shaped(value)
    if not shape:
        raise NotUnderstood("makes a matrix of a scalar")
    if value.kind is ROWS and value.axis == len(shape) - 1:
        raise MixesRows("lays the rows along two axes")
    return like(value, [*shape, shape[-1]])
