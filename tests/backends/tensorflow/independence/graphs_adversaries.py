"""Whole graphs that mix rows in ways that models do, or that somebody might try. None may be accepted.

TWINS are graphs that look alike and do not mix.
"""

# fmt: off

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graph_parts import after, count, handle, op, stored, top, turned, w
from support.tf_graphs import tf

Adversary = tuple[Callable[..., Any], str]
T, WIDE, IMAGE, IDS, WORDS, ONE = "x: float[n,5]", "x: float[n,4,6]", "x: float[n,8,8,2]", "x: int[n,t]", "x: string[n]", "x: float[n]"
W, V, SQUARE = w(5, 2), w(4, 4), w(5, 5)


def words(x: Any) -> Any:
    return tf.strings.split(x)


def hashed(x: Any) -> Any:
    return tf.strings.to_hash_bucket_fast(x, 1000)


def moving_average(x: Any) -> Any:
    mean = handle(1, 5)
    old = op("ReadVariableOp", mean, dtype=tf.float32)
    return after(op("AssignVariableOp", mean, old * 0.9 + 0.1 * tf.reduce_mean(x, 0, keepdims=True)), x - old)


def assigned_in_a_function(x: Any) -> Any:
    largest = handle(1)

    @tf.function
    def remember(value: Any, resource: Any) -> Any:
        op("AssignVariableOp", resource, value)
        return value

    result = remember(tf.reshape(tf.reduce_max(x), [1]), largest)
    with tf.control_dependencies([result]):
        return x / op("ReadVariableOp", largest, dtype=tf.float32)


def assigned_in_a_branch(x: Any) -> Any:
    largest = handle(1)

    def store() -> Any:
        op("AssignVariableOp", largest, tf.reshape(tf.reduce_max(x), [1]))
        return tf.constant(1.0)

    with tf.control_dependencies([tf.cond(tf.reduce_max(x) > 0, store, lambda: tf.constant(0.0))]):
        return x / op("ReadVariableOp", largest, dtype=tf.float32)


def counter(x: Any) -> Any:
    seen = handle(1)
    return after(op("AssignAddVariableOp", seen, tf.ones([1])), x) * op("ReadVariableOp", seen, dtype=tf.float32)


def table_that_learns(x: Any) -> Any:
    table = op("MutableHashTableV2", key_dtype=tf.string, value_dtype=tf.int64)
    numbers = tf.range(tf.cast(count(x), tf.int64))
    with tf.control_dependencies([op("LookupTableInsertV2", table, x, numbers)]):
        return op("LookupTableFindV2", table, x, tf.constant(-1, tf.int64))


def rows_in_a_loop(x: Any) -> Any:
    """Each row is added to those before it."""
    def body(i: Any, total: Any, out: Any) -> Any:
        total = total + x[i]
        return i + 1, total, out.write(i, total)
    return tf.while_loop(lambda i, *_: i < count(x), body, [0, tf.zeros(5), tf.TensorArray(tf.float32, count(x), element_shape=[5])])[2].stack()


def time_on_the_first_axis(x: Any) -> Any:
    def body(i: Any, state: Any, out: Any) -> Any:
        state = tf.tanh(x[i] + state)
        return i + 1, state, out.write(i, state)
    return tf.while_loop(lambda i, *_: i < count(x), body, [0, tf.zeros_like(x[0]), tf.TensorArray(tf.float32, count(x), element_shape=x.shape[1:])])[2].stack()


def until_converged(x: Any) -> Any:
    return tf.while_loop(lambda a: tf.reduce_max(tf.abs(a)) > 0.1, lambda a: (a * 0.5,), [x])[0]


def slow_poison(x: Any) -> Any:
    """The third pass of the loop is the first one that mixes."""
    return tf.while_loop(lambda i, *_: i < 5, lambda i, a, b, c: (i + 1, b, c, tf.reverse(c, [0])), [0, x, x, x])[1]


def list_that_is_poisoned(x: Any) -> Any:
    def body(i: Any, out: Any) -> Any:
        return i + 1, out.write(i, tf.roll(x[:, i], i, 0))
    return tf.transpose(tf.while_loop(lambda i, _: i < 4, body, [0, tf.TensorArray(tf.float32, 4)])[1].stack(), [1, 0, 2])


def nested_calls(x: Any) -> Any:
    @tf.function
    def inner(a: Any) -> Any:
        return a - tf.reduce_mean(a, 0)

    @tf.function
    def outer(a: Any) -> Any:
        return tf.nn.relu(inner(a)), a

    return outer(x)[0]


def batch_norm_by_hand(x: Any) -> Any:
    mean, variance = tf.nn.moments(x, [0])
    return tf.nn.batch_normalization(x, mean, variance, None, None, 1e-3)


def gram(x: Any) -> Any:
    return tf.matmul(x, tf.matmul(x, x, transpose_a=True))


ADVERSARIES: dict[str, Adversary] = {
    # reductions
    "scale by the largest pixel": (lambda x: tf.where(tf.reduce_max(x) > 1, x / 255, x) @ W, T),
    "branch on the largest pixel": (lambda x: tf.cond(tf.reduce_max(x) > 1, lambda: x / 255, lambda: x) @ W, T),
    "subtract the batch's mean": (lambda x: x - tf.reduce_mean(x, 0), T),
    "NaN anywhere clears all": (lambda x: tf.where(tf.reduce_any(tf.math.is_nan(x)), tf.zeros_like(x), x), T),
    "infinity spreads by a sum": (lambda x: x + 0 * tf.reduce_sum(x), T),
    "all finite or nothing": (lambda x: x * tf.cast(tf.reduce_all(tf.math.is_finite(x)), tf.float32), T),
    "clip by the global norm": (lambda x: tf.clip_by_global_norm([x], 1.0)[0][0], T),
    "normalise the flattened batch": (lambda x: tf.math.l2_normalize(x, [0, 1]), T),
    "normalise columns": (lambda x: tf.math.l2_normalize(x, 0), T),
    "mean over transposed rows": (lambda x: turned(turned(x) - tf.reduce_mean(turned(x), 1, keepdims=True)), T),
    "mean over a negative axis": (lambda x: x - tf.reduce_mean(x, -2, keepdims=True), T),
    "mean by a matrix of ones": (lambda x: x - tf.matmul(tf.ones(tf.stack([count(x), count(x)])), x), T),
    "argmax over the batch picks a row": (lambda x: tf.gather(x, tf.argmax(x, 0)), "x: float[n,n]"),
    "largest row wins": (lambda x: tf.gather(x, tf.math.top_k(tf.reduce_sum(x, 1), 1).indices) + x, T),
    "variance of the batch by numpy's way": (lambda x: x / tf.math.reduce_std(x, 0), T),
    "attention over the batch": (lambda x: tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x, T),
    "attention over the batch by einsum": (lambda x: tf.einsum("ik,kj->ij", tf.nn.softmax(tf.einsum("ij,kj->ik", x, x)), x), T),
    "covariance": (gram, T),
    "kernel against all rows": (lambda x: tf.reduce_sum(tf.exp(-tf.reduce_sum((x[:, None] - x[None]) ** 2, -1)), 1), T),
    "log of a sum over the batch": (lambda x: x - tf.reduce_logsumexp(x, 0), T),
    "cosine with the batch's first row": (lambda x: tf.reduce_sum(x * x[:1], 1), T),
    "histogram": (lambda x: tf.cast(tf.gather(tf.histogram_fixed_width(x, [-5.0, 5.0]), tf.zeros_like(x[:, 0], tf.int32)), tf.float32), T),
    # sorts, softmax, cumulative sums
    "sort the batch": (lambda x: tf.sort(x, 0), T),
    "rank within the batch": (lambda x: tf.argsort(x), ONE),
    "sort without an axis": (lambda x: tf.sort(x), ONE),
    "softmax over the batch": (lambda x: tf.nn.softmax(x, 0), T),
    "softmax of a vector of rows": (lambda x: tf.nn.softmax(x), ONE),
    "running sum": (lambda x: tf.cumsum(x), T),
    "running sum backwards": (lambda x: tf.cumsum(x, 0, reverse=True), T),
    "running product of a vector": (lambda x: tf.math.cumprod(x), ONE),
    # normalisation in training mode, dropout, randomness
    "batch normalisation in training mode": (lambda x: op("FusedBatchNormV3", x, w(2), w(2), [], [], is_training=True)[0], IMAGE),
    "batch normalisation by hand": (batch_norm_by_hand, T),
    "dropout": (lambda x: tf.nn.dropout(x, 0.5), T),
    "stateless dropout": (lambda x: tf.nn.experimental.stateless_dropout(x, 0.5, seed=[1, 2]), T),
    "noise": (lambda x: x + tf.random.normal(tf.shape(x)), T),
    "seeded noise for each place": (lambda x: x + tf.random.stateless_normal(tf.shape(x), [1, 2]), T),
    "shuffle": (lambda x: tf.random.shuffle(x), T),
    "sample from each row": (lambda x: tf.random.categorical(x, 1), T),
    # reshapes and transposes that shift rows
    "reshape with columns first": (lambda x: tf.reshape(turned(x), tf.shape(x)), T),
    "reshape that swaps time and rows": (lambda x: tf.reshape(tf.transpose(x, [1, 0, 2]), tf.shape(x)), WIDE),
    "heads in front of the rows": (lambda x: tf.reduce_sum(tf.reshape(x, tf.stack([2, -1, 12])), 0) + 0 * x[:, 0, :1], WIDE),
    "transpose": (lambda x: turned(x), "x: float[n,n]"),
    "depth to space over rows": (lambda x: op("BatchToSpaceND", x, [2, 1], [[0, 0], [0, 0]]), IMAGE),
    "space to batch and not back": (lambda x: op("SpaceToBatchND", x, [2, 2], [[0, 0], [0, 0]]), IMAGE),
    "squeeze of a single row": (lambda x: tf.squeeze(x), T),
    "convolution over time on axis 0": (lambda x: tf.nn.conv1d(x[None], w(3, 5, 5), 1, "SAME")[0], T),
    "pooling over neighbours": (lambda x: tf.nn.max_pool1d(x[None], 3, 1, "SAME")[0], T),
    "resize over rows": (lambda x: tf.image.resize(tf.transpose(x, [1, 0, 2, 3]), tf.shape(x)[:2])[..., 0], IMAGE),
    # gather, scatter and slices on the batch axis
    "the row before": (lambda x: tf.concat([x[-1:], x[:-1]], 0), T),
    "difference to the row before": (lambda x: x - tf.roll(x, 1, 0), T),
    "reverse the rows": (lambda x: tf.reverse(x, [0]), T),
    "reverse by a negative step": (lambda x: x[::-1], T),
    "every row is the first": (lambda x: tf.broadcast_to(x[:1], tf.shape(x)), T),
    "every row is the last": (lambda x: x * 0 + x[-1], T),
    "last row at the number of rows": (lambda x: x + tf.gather(x, count(x) - 1), T),
    "gather by the rows' own data": (lambda x, i: tf.gather(x, i % count(x)), "x: float[n,5], i: int[n]"),
    "gather by row numbers backwards": (lambda x: tf.gather(x, count(x) - 1 - tf.range(count(x))), T),
    "gather by halved row numbers": (lambda x: tf.gather(x, tf.range(count(x)) // 2), T),
    "gather by nd in the second axis": (lambda x, i: tf.gather_nd(x, tf.stack([i % count(x), tf.range(count(x))], 1)), "x: float[n,n], i: int[n]"),
    "embeddings of row numbers": (lambda x: x + tf.gather(w(64, 5), tf.range(count(x))), T),
    "scatter onto other rows": (lambda x, i: tf.scatter_nd(i[:, None] % count(x), x, tf.shape(x)), "x: float[n,5], i: int[n]"),
    "write into the first row": (lambda x: tf.tensor_scatter_nd_update(x, [[0]], tf.zeros([1, 5])), T),
    "add the last to the first": (lambda x: tf.tensor_scatter_nd_add(x, [[0]], x[-1:]), T),
    "segment sum by the rows' data": (lambda x, i: tf.gather(tf.math.unsorted_segment_sum(x, i, 3), i), "x: float[n,5], i: int[n]"),
    "count of equal rows": (lambda x: tf.gather(tf.unique_with_counts(x)[2], tf.unique_with_counts(x)[1]), "x: int[n]"),
    "number of the value in the batch": (lambda x: tf.unique(x)[1], "x: int[n]"),
    "rows that are not empty": (lambda x: tf.boolean_mask(x, x[:, 0] > 0), T),
    "places that are not zero": (lambda x: tf.where(x > 0), T),
    "dynamic partition and back": (lambda x: tf.concat(tf.dynamic_partition(x, tf.cast(x[:, 0] > 0, tf.int32), 2), 0), T),
    "padding in front": (lambda x: tf.pad(x, [[1, 0], [0, 0]])[:-1], T),
    "constants for each row": (lambda x: x + w(4, 5), T),
    "variable for each row": (lambda x: x + stored(4, 5), T),
    "variable of any shape": (lambda x: x + stored(None, 5), T),
    # row numbers and the number of rows as data
    "row numbers": (lambda x: x + tf.cast(tf.range(count(x)), tf.float32)[:, None], T),
    "row numbers by a running sum": (lambda x: x + tf.cumsum(tf.ones_like(x), 0), T),
    "row numbers through a narrow type": (lambda x: tf.gather(x, tf.cast(tf.cast(tf.range(count(x)), tf.uint8), tf.int32)), T),
    "number of rows": (lambda x: x / tf.cast(count(x), tf.float32), T),
    "number of rows by a sum of ones": (lambda x: x * tf.reduce_sum(tf.ones_like(x[:, 0])), T),
    "more than one row": (lambda x: tf.cond(count(x) > 1, lambda: x * 2, lambda: x), T),
    "size of all": (lambda x: x / tf.cast(tf.size(x), tf.float32), T),
    "one hot as wide as the batch": (lambda x: tf.one_hot(x, count(x)), "x: int[n]"),
    "identity matrix": (lambda x: tf.eye(count(x)) @ x + tf.reduce_sum(tf.eye(count(x)), 1, keepdims=True) * tf.linspace(0.0, 1.0, count(x))[:, None], T),
    "triangle over the rows": (lambda x: tf.linalg.band_part(x, 0, -1), T),
    "shape that does not fit": (lambda x, k: tf.cast(op("Equal", x[:, 0], k, incompatible_shape_error=False), tf.float32) + x[:, 0], "x: float[n,5], k: float[4]"),
    # texts
    "pad to the longest text": (lambda x: tf.reduce_mean(tf.gather(w(1000, 4), hashed(words(x).to_tensor(""))), 1), WORDS),
    "pad to the longest text, cut to a bound": (lambda x: hashed(words(x).to_tensor("")[:, :8]), WORDS),
    "words by a sparse tensor": (lambda x: tf.sparse.to_dense(words(x).to_sparse(), ""), WORDS),
    "letters of the longest": (lambda x: tf.strings.unicode_decode(x, "UTF-8").to_tensor(0), WORDS),
    "length of the longest text": (lambda x: tf.strings.length(x) / tf.reduce_max(tf.strings.length(x)), WORDS),
    "words of all texts joined": (lambda x: tf.strings.join([x, tf.strings.reduce_join(x)]), WORDS),
    "words to rows of another text": (lambda x: tf.RaggedTensor.from_row_lengths(words(x).flat_values, tf.reverse(words(x).row_lengths(), [0]), validate=False).to_tensor("", shape=[None, 4]), WORDS),
    "number of a word in the batch": (lambda x: words(x).with_flat_values(tf.range(tf.size(words(x).flat_values))).to_tensor(0, shape=[None, 4]), WORDS),
    "two splits with one's ids": (lambda x: to_rows(words(tf.reverse(x, [0])), words(x)), WORDS),
    # dynamic quantisation
    "quantise by the range of the batch": (lambda x: op("FakeQuantWithMinMaxVars", x, tf.reduce_min(x), tf.reduce_max(x)), T),
    "quantise and back": (lambda x: tf.quantization.quantize_and_dequantize_v2(x, 0.0, 0.0, range_given=False), T),
    "int8 by the largest": (lambda x: tf.cast(tf.cast(tf.round(x / tf.reduce_max(tf.abs(x)) * 127), tf.int8), tf.float32) * tf.reduce_max(tf.abs(x)) / 127, T),
    # control flow, loops, state
    "until it converges": (until_converged, T),
    "each row added to those before": (rows_in_a_loop, T),
    "time on the first axis": (time_on_the_first_axis, T),
    "slow poison": (slow_poison, T),
    "list that is poisoned": (list_that_is_poisoned, WIDE),
    "scan over the rows": (lambda x: tf.scan(lambda a, row: a + row, x), T),
    "moving average": (moving_average, T),
    "assigned in a function": (assigned_in_a_function, T),
    "assigned in a branch": (assigned_in_a_branch, T),
    "counter of calls": (counter, T),
    "table that learns": (table_that_learns, WORDS),
    "Python code": (lambda x: tf.ensure_shape(tf.numpy_function(lambda a: a - a.mean(0), [x], tf.float32), [None, 5]), T),
    "mixing in a function of a function": (nested_calls, T),
    "second output mixes": (lambda x: (x * 2, x - tf.reduce_mean(x)), T),
    "custom gradient around a mean": (lambda x: tf.custom_gradient(lambda a: (a - top(a), lambda g: g))(x), T),
    "layout of both axes": (lambda x: tf.matmul(x, x, transpose_b=True)[:, :, None] * x[None], T),
    "clamped, but not to one number": (lambda x: x[:, : tf.minimum(3, tf.maximum(2, tf.cast(tf.reduce_max(x), tf.int32)))] @ w(2, 2), T),
    "clamped vectors": (lambda x: x + tf.cast(tf.minimum(4, tf.maximum(4, tf.cast(turned(x), tf.int32))), tf.float32)[0, :, None] * 0 + x[::-1] * 0, T),
}


def to_rows(parts: Any, other: Any) -> Any:
    return tf.raw_ops.RaggedTensorToTensor(
        shape=[-1, 3], values=parts.flat_values, default_value="", row_partition_types=["FIRST_DIM_SIZE", "VALUE_ROWIDS"],
        row_partition_tensors=[other.nrows(), other.value_rowids()],
    )


TWINS: dict[str, Adversary] = {
    "scale by each row's largest": (lambda x: tf.where(tf.reduce_max(x, 1, keepdims=True) > 1, x / 255, x) @ W, T),
    "NaN clears its own row": (lambda x: tf.where(tf.reduce_any(tf.math.is_nan(x), 1, keepdims=True), tf.zeros_like(x), x), T),
    "normalise rows": (lambda x: tf.math.l2_normalize(x, 1), T),
    "sort each row": (lambda x: tf.sort(x, 1), T),
    "softmax of each row": (lambda x: tf.nn.softmax(x), T),
    "running sum of each row": (lambda x: tf.cumsum(x, 1), T),
    "batch normalisation": (lambda x: op("FusedBatchNormV3", x, *(tf.ones(2),) * 4, is_training=False)[0], IMAGE),
    "attention in each row": (lambda x: tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x, WIDE),
    "flatten": (lambda x: tf.reshape(x, tf.stack([count(x), -1])), WIDE),
    "heads behind the rows": (lambda x: tf.transpose(tf.reshape(x, tf.stack([-1, 4, 2, 3])), [0, 2, 1, 3]), WIDE),
    "time first and back": (lambda x: tf.transpose(tf.tanh(tf.transpose(x, [1, 0, 2])), [1, 0, 2]), WIDE),
    "grids and back": (lambda x: op("BatchToSpaceND", op("SpaceToBatchND", x, [2, 2], [[0, 0], [0, 0]]) * 2, [2, 2], [[0, 0], [0, 0]]), IMAGE),
    "reshape into wider rows": (lambda x: tf.reshape(tf.reshape(x, [-1, 12]) * w(12), [-1, 4, 6]), WIDE),
    "grids back in another order": (lambda x: tf.transpose(op("BatchToSpaceND", tf.transpose(op("SpaceToBatchND", x, [2, 1], [[0, 0], [0, 0]]), [0, 2, 1, 3]), [1, 2], [[0, 0], [0, 0]]), [0, 2, 1, 3])[:, :8], IMAGE),
    "squeeze of an axis": (lambda x: tf.squeeze(x[:, None], 1), T),
    "rows selected by their numbers": (lambda x, i: tf.gather_nd(x, tf.stack([tf.range(count(x)), i], 1)), "x: float[n,5], i: int[n]"),
    "row before in time": (lambda x: tf.concat([x[:, -1:], x[:, :-1]], 1), WIDE),
    "zeros for each row": (lambda x: x + tf.zeros(tf.stack([count(x), 5])), T),
    "pad to a fixed width": (lambda x: tf.reduce_mean(tf.gather(w(1000, 4), tf.ragged.map_flat_values(hashed, words(x)).to_tensor(0, shape=[None, 6])), 1), WORDS),
    "quantise by constants": (lambda x: op("FakeQuantWithMinMaxVars", x, -3.0, 3.0), T),
    "loop over time": (lambda x: tf.while_loop(lambda i, *_: i < 4, lambda i, s: (i + 1, tf.tanh(s + x[:, i])), [0, tf.zeros_like(x[:, 0])])[1], WIDE),
    "branch by a constant input": (lambda x, k: tf.cond(k > 0, lambda: x * k, lambda: x), "x: float[n,5], k: float[]"),
    "lookup": (lambda x: op("LookupTableFindV2", initialised(), x, tf.constant(-1, tf.int64)), WORDS),
    "variable that is read": (lambda x: x @ stored(5, 3), T),
    "clamped to one number": (lambda x: op("DenseBincount", x, tf.minimum(4, tf.maximum(4, tf.reduce_max(x) + 1)), tf.zeros([0])), "x: int[n,3]"),
}


def initialised() -> Any:
    from graph_parts import first

    table = op("HashTableV2", key_dtype=tf.string, value_dtype=tf.int64)
    first(op("InitializeTableV2", table, tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)))
    return table
