"""Recurrent networks, attention, and the operators of classical machine learning (domain ai.onnx.ml)."""

from __future__ import annotations

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import ONE, MixesRows, N, NotUnderstood, product, size_of
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import CONST, ROWS, Value, by_row, data, fixed, like, rows, shaped
from inferd.backends.onnx.independence.node import Node, Transfer, microsoft

TABLE: OperatorTable[Transfer] = OperatorTable()


@TABLE.add("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> list[Value]:
    for index in (1, 2, 3, 7):
        fixed(node.optional(index), "a weight")
    shape = shaped(data(node.x))
    if len(shape) != 3:
        raise NotUnderstood("reads a sequence that has not three axes")
    batch_first = bool(node.integer("layout", 0))
    batch, time = (0, 1) if batch_first else (1, 0)
    if node.x.kind is not ROWS:
        raise NotUnderstood("reads a sequence that is the same for all rows")
    if node.x.axis != batch:
        raise MixesRows("has the steps of time on the batch axis")
    for index in (4, 5, 6):
        value = node.optional(index)
        if value is None:
            continue
        if data(value).kind is not ROWS or value.axis != (0 if index == 4 else batch):
            raise MixesRows("has lengths or a first state that are not one for each row")
        if value.layout[1:] != node.x.layout[1:]:
            raise MixesRows("has lengths or a first state that are not one for each row")
    units = size_of(node.integer("hidden_size", 0))
    directions = size_of(2 if node.string("direction", "forward") == "bidirectional" else 1)
    rows, steps = shape[batch], shape[time]
    if batch_first:
        every, last = [rows, steps, directions, units], [rows, directions, units]
    else:
        every, last = [steps, directions, rows, units], [directions, rows, units]
    results = [like(node.x, every, 0 if batch_first else 2), *[like(node.x, last, batch)] * 2]
    return results[: node.outputs]


def _rows_or_shared(value: Value | None, role: str) -> None:
    """Raises MixesRows unless the operand of four axes (batch, heads, queries, keys), or fewer aligned at the last, is
    the same for all rows or has them first."""
    if value is None:
        return
    shape = shaped(data(value))
    if value.kind is ROWS:
        by_row(value, role)
        if len(shape) != 4:
            raise MixesRows(f"has {role} without the batch axis first")
    elif len(shape) > 3 and shape[0] != 1:
        raise MixesRows(f"has {role} with several elements along the batch axis, the same for all rows")


@TABLE.add("Attention")
def attention(node: Node) -> list[Value]:
    query, key, value = (by_row(node.input(i), "an operand") for i in range(3))
    _rows_or_shared(node.optional(3), "the mask")
    for index in (4, 5, 6):
        given = node.optional(index)
        if given is not None:
            by_row(given, "an operand")
    if node.outputs > 1:
        raise NotUnderstood("has several outputs")
    shape, width = shaped(query), shaped(value)[-1]
    if len(shape) not in (3, 4) or len(shaped(key)) != len(shape) or len(shaped(value)) != len(shape):
        raise NotUnderstood("has operands of different rank")
    if len(shape) == 3:
        heads, stored = node.integer("q_num_heads", 0), node.integer("kv_num_heads", 0)
        each = width.over(size_of(stored)) if stored > 0 else None
        if each is None:
            raise NotUnderstood("has heads that do not divide its width")
        width = each * heads
    return [like(query, [*shape[:-1], width])]


@TABLE.add(*microsoft("MultiHeadAttention"))
def multi_head_attention(node: Node) -> list[Value]:
    query, key, value = (by_row(node.input(i), "an operand") for i in range(3))
    fixed(node.optional(3), "a bias")
    mask = node.optional(4)
    if mask is not None and len(shaped(by_row(mask, "the mask"))) < 2:
        raise NotUnderstood("has a mask of lengths")
    bias = node.optional(5)
    if bias is not None and len(shaped(bias)) != 4:
        raise NotUnderstood("has an attention bias that has not four axes")
    _rows_or_shared(bias, "the attention bias")
    if node.outputs > 1 or any(node.optional(i) is not None for i in range(6, 10)):
        raise NotUnderstood("keeps keys and values of earlier calls")
    shape = shaped(query)
    if len(shape) != 3 or len(shaped(key)) != 3 or len(shaped(value)) != 3:
        raise NotUnderstood("has packed operands")
    return [like(query, [shape[0], shape[1], shaped(value)[2]])]


@TABLE.add(*microsoft("Attention"))
def packed_attention(node: Node) -> list[Value]:
    value = by_row(node.x, "the input")
    shape, weight = shaped(value), shaped(node.input(1))
    for index in (1, 2):
        fixed(node.optional(index), "a weight")
    mask = node.optional(3)
    if mask is not None and len(shaped(by_row(mask, "the mask"))) < 2:
        raise NotUnderstood("has a mask of lengths")
    others = any(node.optional(i) is not None for i in range(4, 10))
    if others or node.outputs > 1 or len(shape) != 3 or len(weight) != 2 or "qkv_hidden_sizes" in node.attributes:
        raise NotUnderstood("keeps keys and values of earlier calls, or has a bias")
    width = weight[1].over(size_of(3))
    if width is None:
        raise NotUnderstood("has weights of unknown width")
    return [like(value, [shape[0], shape[1], width])]


def _ml(names: str) -> list[str]:
    return [f"ai.onnx.ml:{name}" for name in names.split()]


@TABLE.add(*_ml("Scaler Normalizer Imputer"))
def column_by_column(node: Node) -> Value:
    if len(shaped(node.x)) > 2:
        raise NotUnderstood("reads what is no table of rows and columns")  # runtimes take axis 1 as the columns
    return rules.along(node.x, [-1], "treats elements as columns")


@TABLE.add(*_ml("LinearRegressor SVMRegressor TreeEnsembleRegressor TreeEnsemble"))
def regressor(node: Node) -> Value:
    return like(_table(node), [N, node.fresh()])


@TABLE.add(*_ml("LinearClassifier SVMClassifier TreeEnsembleClassifier"))
def classifier(node: Node) -> list[Value]:
    value = _table(node)
    columns = node.fresh()
    if node.operator == "ai.onnx.ml:TreeEnsembleClassifier":
        labels = node.attributes.get("classlabels_int64s") or node.attributes.get("classlabels_strings")
        if isinstance(labels, list) and len(labels) > 1:
            columns = size_of(len(labels))
    return [like(value, [N]), like(value, [N, columns])][: node.outputs]


def _table(node: Node) -> Value:
    """The input: one row of columns for each row of the batch."""
    value = by_row(node.x, "the input")
    if len(shaped(value)) != 2:
        raise NotUnderstood("reads what is no table of rows and columns")
    return value


@TABLE.add(*_ml("ArrayFeatureExtractor"))
def array_feature_extractor(node: Node) -> Value:
    index = data(node.input(1))
    if index.kind is CONST:
        return rules.resized(node.x, {-1: product(shaped(index))}, "picks elements")
    # A table of labels, from which each row picks some.
    if data(node.x).kind is not CONST:
        raise MixesRows("picks from all rows by a row's own data")
    picked = layout.reshaped(index, [product(shaped(index))])
    before = list(shaped(node.x)[:-1]) or [ONE]
    return rows([*before, *shaped(picked)], len(before), picked.outer, picked.inner)


@TABLE.add(*_ml("OneHotEncoder"))
def one_hot_encoder(node: Node) -> Value:
    known = node.attributes.get("cats_int64s") or node.attributes.get("cats_strings")
    columns = size_of(len(known)) if isinstance(known, list) else node.fresh()
    return like(data(node.x), [*shaped(node.x), columns])
