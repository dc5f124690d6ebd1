"""Graphs of variables, tables, lists, control flow, and rows of different length: rows that stay apart and rows that meet."""

# fmt: off

from __future__ import annotations

from typing import Any

from graph_parts import SQUARE, TABLE, WORDS, Cases, after, count, first, handle, op, stored, top, turned, w
from support.tf_graphs import INITIALISERS, tf

CASES = Cases()
honest, mixing = CASES.add_honest, CASES.add_mixing

# --- variables and tables that are read ----------------------------------------------------------------------------
honest("VarHandleOp", lambda x: x @ stored(5, 3), TABLE)
mixing("VarHandleOp with a value for each row", lambda x: x + stored(4, 1), TABLE)
honest("ReadVariableOp", lambda x: x + stored(1, 5), TABLE)
mixing("ReadVariableOp of any shape", lambda x: x + stored(None, 5), TABLE)


def old(name: str, *shape: int) -> Any:
    """A variable of TensorFlow 1, with a value."""
    made = op(name, shape=shape, dtype=tf.float32)
    first(tf.raw_ops.Assign(ref=made, value=w(*shape)))
    return tf.identity(made)


for each in ("Variable", "VariableV2"):
    honest(each, lambda x, each=each: x + old(each, 1, 5), TABLE)
    mixing(each, lambda x, each=each: x + old(each, 4, 5), TABLE)
honest("VariableShape", lambda x: x[:, : op("VariableShape", handle(3, 1))[0]], TABLE)
mixing("VariableShape", lambda x: x + tf.reduce_sum(x, op("VariableShape", handle(3, 1))[1] - 1), TABLE)
honest("VarIsInitializedOp", lambda x: x * tf.cast(op("VarIsInitializedOp", handle(1)), tf.float32))
mixing("VarIsInitializedOp", lambda x: top(x) * tf.cast(op("VarIsInitializedOp", handle(1)), tf.float32))
honest("DisableCopyOnRead", lambda x: after(op("DisableCopyOnRead", handle(1)), x))
mixing("DisableCopyOnRead", lambda x: after(op("DisableCopyOnRead", handle(1)), x + top(x)))
honest("Assert", lambda x: after(op("Assert", tf.reduce_all(x < 1e9), ["too large"]), x))
mixing("Assert", lambda x: after(op("Assert", True, ["never"]), x + top(x)))
honest("NoOp", lambda x: after(op("NoOp"), x))
mixing("NoOp", lambda x: after(op("NoOp"), x + top(x)))
honest("PrintV2", lambda x: after(op("PrintV2", "", output_stream="log(info)"), x))
mixing("PrintV2", lambda x: after(op("PrintV2", "", output_stream="log(info)"), x + top(x)))
honest("Print", lambda x: op("Print", x, [], first_n=0))
mixing("Print", lambda x: x + op("Print", top(x), [], first_n=0))
honest("GuaranteeConst", lambda x: x + op("GuaranteeConst", w(6)))
mixing("GuaranteeConst", lambda x: x + op("GuaranteeConst", top(x)))
KEYS = ("good", "film", "a", "one")


def lookup_table(name: str) -> Any:
    """A table from some words to their numbers."""
    made = op(name, key_dtype=tf.string, value_dtype=tf.int64, shared_name=f"t{len(tf.compat.v1.get_collection(INITIALISERS))}")
    keys, numbers = tf.constant(KEYS), tf.constant([1, 2, 3, 4], tf.int64)
    if name.startswith("Mutable"):
        first(op("LookupTableInsertV2" if name.endswith("V2") else "LookupTableInsert", made, keys, numbers))
    else:
        first(op("InitializeTableV2" if name.endswith("V2") else "InitializeTable", made, keys, numbers))
    return made


def found(name: str, x: Any, default: Any = -1) -> Any:
    find = "LookupTableFindV2" if name.endswith("V2") else "LookupTableFind"
    return op(find, lookup_table(name), x, tf.constant(default, tf.int64))


for each in ("HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2"):
    honest(each, lambda x, each=each: found(each, x), WORDS)
    mixing(each, lambda x, each=each: found(each, op("StringJoin", [x, tf.strings.reduce_join(x)])), WORDS)
honest("LookupTableSizeV2", lambda x: x + tf.cast(op("LookupTableSizeV2", lookup_table("HashTableV2")), tf.float32))
mixing("LookupTableSizeV2", lambda x: x + top(x) * tf.cast(op("LookupTableSizeV2", lookup_table("HashTableV2")), tf.float32))
honest("LookupTableSize", lambda x: x + tf.cast(op("LookupTableSize", lookup_table("HashTable")), tf.float32))
mixing("LookupTableSize", lambda x: x + top(x) * tf.cast(op("LookupTableSize", lookup_table("HashTable")), tf.float32))

# --- lists and control flow ----------------------------------------------------------------------------------------


def steps(x: Any, axis: int = 1) -> Any:
    """The list of the tensors along an axis."""
    order = [axis, *(i for i in range(x.shape.rank) if i != axis)]
    return op("TensorListFromTensor", tf.transpose(x, order), tf.constant([-1] * (x.shape.rank - 1)))


def item(items: Any, at: Any, width: int = 6) -> Any:
    return op("TensorListGetItem", items, at, tf.constant([-1, width]), element_dtype=tf.float32)


def stacked(items: Any, width: int = 6, length: int = -1) -> Any:
    shape = tf.constant([-1, width])
    return tf.transpose(op("TensorListStack", items, shape, element_dtype=tf.float32, num_elements=length), [1, 0, 2])


def empty_list(length: Any) -> Any:
    return op("TensorListReserve", tf.constant([-1, 6]), length, element_dtype=tf.float32)


honest("TensorListFromTensor, TensorListStack", lambda x: stacked(steps(x)))
mixing("TensorListFromTensor, TensorListStack", lambda x: stacked(steps(x, 0)))
honest("TensorListGetItem", lambda x: item(steps(x), 2))
mixing("TensorListGetItem", lambda x: x[:, 0] + item(steps(x), count(x) - 1))
mixing("TensorListGetItem by the rows", lambda x: x[:, 0] + item(steps(x), tf.cast(tf.reduce_max(x[:, 0, 0]) > 0, tf.int32)))
honest("TensorListSetItem, TensorListReserve", lambda x: stacked(op("TensorListSetItem", op("TensorListSetItem", empty_list(2), 0, x[:, 1]), 1, x[:, 0])))
mixing("TensorListSetItem, TensorListReserve", lambda x: stacked(op("TensorListSetItem", empty_list(count(x)), 0, x[:, 1])))
mixing("TensorListSetItem of other rows", lambda x: stacked(op("TensorListSetItem", steps(x), 0, x[::-1, 0])))
mixing("TensorListSetItem where the rows say", lambda x: stacked(op("TensorListSetItem", steps(x), tf.cast(x[0, 0, 0] > 0, tf.int32), x[:, 0])))
honest("TensorListLength", lambda x: x * tf.cast(op("TensorListLength", steps(x)), tf.float32))
mixing("TensorListLength", lambda x: x * tf.cast(op("TensorListLength", steps(x, 0)), tf.float32))
honest("StatefulPartitionedCall", tf.function(lambda a: tf.nn.relu(a) * 2))
mixing("StatefulPartitionedCall", tf.function(lambda a: a - tf.reduce_mean(a)))
honest("If by a constant", lambda x, k: tf.cond(k > 0, lambda: x, lambda: -x), "x: float[n,4], k: float[]")
mixing("If by the rows", lambda x: tf.cond(tf.reduce_max(x) > 1, lambda: x / 255, lambda: x))
mixing("If by the number of rows", lambda x: tf.cond(count(x) > 1, lambda: x / 255, lambda: x))
mixing("If with a branch that mixes", lambda x, k: tf.cond(k > 0, lambda: x, lambda: x - top(x)), "x: float[n,4], k: float[]")
mixing("If with branches of different layout", lambda x, k: tf.cond(k > 0, lambda: x, lambda: turned(x)), "x: float[n,4], k: float[]")


def switched(condition: Any, x: Any, yes: Any, no: Any) -> Any:
    """A branch as TensorFlow 1 writes it."""
    sides = op("Switch", x, condition)
    return op("Merge", [no(sides.output_false), yes(sides.output_true)]).output


honest("Switch by a constant", lambda x, k: switched(k > 0, x, lambda a: a * 2, lambda a: -a), "x: float[n,4], k: float[]")
honest("Switch that is never taken", lambda x: switched(tf.constant(False), x, lambda a: a - top(a), lambda a: a * 2))
mixing("Switch that is always taken", lambda x: switched(tf.constant(True), x, lambda a: a - top(a), lambda a: a * 2))
mixing("Switch by the rows", lambda x: switched(tf.reduce_max(x) > 1, x, lambda a: a / 255, lambda a: a))
mixing("Switch by the number of rows", lambda x: switched(count(x) > 1, x, lambda a: a * 2, lambda a: a))
mixing("Switch with a side that mixes", lambda x, k: switched(k > 0, x, lambda a: a, lambda a: a - top(a)), "x: float[n,4], k: float[]")
mixing("Switch with sides of different layout", lambda x, k: switched(k > 0, x, lambda a: a, turned), "x: float[n,4], k: float[]")
honest("Case by a constant", lambda x, k: tf.switch_case(k, [lambda: x, lambda: -x]), "x: float[n,4], k: int[]")
mixing("Case by the rows", lambda x: tf.switch_case(tf.argmax(x[:, 0], output_type=tf.int32), [lambda: x, lambda: -x]), SQUARE)


def recurrent(x: Any, start: Any = None, bound: Any = None) -> Any:
    """A state that goes through the steps of time."""
    steps_of_time = tf.transpose(x, [1, 0, 2])
    state = tf.zeros(tf.stack([count(x), 6])) if start is None else start

    def body(i: Any, value: Any, out: Any) -> Any:
        value = tf.tanh(value @ tf.constant(W6) + steps_of_time[i])
        return i + 1, value, out.write(i, value)

    out = tf.TensorArray(tf.float32, tf.shape(steps_of_time)[0] if bound is None else bound)
    last_step = tf.shape(steps_of_time)[0] if bound is None else bound
    return tf.while_loop(lambda i, *_: i < last_step, body, [0, state, out])


W6 = w(6, 6)
honest("While: the last state", lambda x: recurrent(x)[1], "x: float[n,t,6]")
honest("While: all states", lambda x: tf.transpose(recurrent(x)[2].stack(), [1, 0, 2]))
mixing("While: as often as there are rows", lambda x: recurrent(x, bound=tf.minimum(count(x), 4))[1])
mixing("While: the state of the largest row", lambda x: recurrent(x, start=x[:, 0] + top(x)[:, 0])[1])
mixing("While: until the rows say", lambda x: tf.while_loop(lambda a: tf.reduce_max(a) > 1, lambda a: (a / 2,), [x])[0])
mixing("While: mixes in its second pass", lambda x: tf.while_loop(lambda i, *_: i < 3, lambda i, a, b: (i + 1, a + b, a - tf.reduce_mean(a, 0)), [0, x, x])[1])
mixing("While: counts rows", lambda x: x * tf.cast(tf.while_loop(lambda i, _: i < 3, lambda i, k: (i + 1, k + count(x)), [0, 0])[1], tf.float32))
mixing("While: shifts rows", lambda x: tf.while_loop(lambda i, _: i < 1, lambda i, a: (i + 1, tf.roll(a, 1, 0)), [0, x])[1])
mixing("map over the rows", lambda x: tf.map_fn(lambda row: row * 2, x))

# --- rows of different length --------------------------------------------------------------------------------------


def split(x: Any) -> Any:
    return tf.strings.split(x)


def ids(x: Any) -> Any:
    return tf.ragged.map_flat_values(lambda words: tf.strings.to_hash_bucket_fast(words, 9), split(x))


honest("StringSplitV2 to fixed width", lambda x: ids(x).to_tensor(0, shape=[None, 5]), WORDS)
honest("StringSplitV2 of words looked up", lambda x: tf.ragged.map_flat_values(lambda words: found("HashTableV2", words), split(x)).to_tensor(0, shape=[None, 5]), WORDS)
honest("StringSplitV2: how many", lambda x: split(x).row_lengths(), WORDS)
mixing("StringSplitV2: sums by masks", lambda x: tf.reduce_sum(ids(x), 1), WORDS)
honest("StringSplitV2: counts", lambda x: tf.math.bincount(ids(x), minlength=9, maxlength=9, axis=-1), WORDS)
mixing("StringSplitV2 to the longest", lambda x: ids(x).to_tensor(0), WORDS)
mixing("StringSplitV2 to the longest, of fixed rows", lambda x: ids(x).to_tensor(0, shape=[4, None]), WORDS)
mixing("StringSplitV2 of all words", lambda x: tf.reduce_sum(ids(x).flat_values) + tf.cast(tf.strings.length(x), tf.int64), WORDS)
mixing("StringSplitV2 to the words of other texts", lambda x: tf.RaggedTensor.from_row_splits(split(x).flat_values, split(x[::-1]).row_splits, validate=False).to_tensor("", shape=[None, 5]), WORDS)
mixing("StringSplitV2 of words with their neighbours", lambda x: split(x).with_flat_values(tf.strings.join([split(x).flat_values, split(x).flat_values[::-1]])).to_tensor("", shape=[None, 5]), WORDS)
mixing("StringSplitV2: longest row", lambda x: split(x).bounding_shape()[1] + tf.cast(tf.strings.length(x), tf.int64), WORDS)
mixing("StringSplitV2: places in the list", lambda x: split(x).row_starts(), WORDS)
mixing("StringSplitV2: counts up to the largest", lambda x: tf.math.bincount(ids(x), axis=-1), WORDS)
honest("StringSplit", lambda x: to_width(op("StringSplit", x, " ")), WORDS)
mixing("StringSplit", lambda x: tf.sparse.to_dense(tf.SparseTensor(*op("StringSplit", x, " ")), ""), WORDS)


def to_width(parts: Any) -> Any:
    return tf.raw_ops.RaggedTensorToTensor(
        shape=[-1, 3], values=parts.values, default_value="", row_partition_types=["FIRST_DIM_SIZE", "VALUE_ROWIDS"],
        row_partition_tensors=[parts.shape[0], parts.indices[:, 0]],
    )  # fmt: skip
