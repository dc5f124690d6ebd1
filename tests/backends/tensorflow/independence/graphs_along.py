"""Graphs of operators along axes, products and convolutions: rows that stay apart and rows that meet."""

# fmt: off

from __future__ import annotations

import numpy as np
from graph_parts import BOOLS, IMAGE, INTS, TABLE, Cases, count, last, op, swapped, turned, w
from support.tf_graphs import tf

CASES = Cases()
honest, mixing = CASES.add_honest, CASES.add_mixing

# --- along axes ----------------------------------------------------------------------------------------------------
for each in ("Softmax", "LogSoftmax"):
    honest(each, lambda x, each=each: op(each, x))
    mixing(each, lambda x, each=each: last(x, lambda t: op(each, t)))
    mixing(each, lambda x, each=each: op(each, x), "x: float[n]")
for each in ("Cumsum", "Cumprod", "CumulativeLogsumexp"):
    honest(each, lambda x, each=each: op(each, x, 1))
    mixing(each, lambda x, each=each: op(each, x, 0))
    mixing(each, lambda x, each=each: op(each, x, -3, exclusive=True, reverse=True))
for each in ("Max", "Mean", "Min", "Prod", "Sum", "EuclideanNorm"):
    honest(each, lambda x, each=each: op(each, x, [1, 2], keep_dims=True))
    honest(each, lambda x, each=each: op(each, x, -1))
    mixing(each, lambda x, each=each: op(each, x, [0], keep_dims=True) + x)
    mixing(each, lambda x, each=each: op(each, x, [-3, -1], keep_dims=True) + x)
    mixing(each, lambda x, each=each: last(x, lambda t: t + op(each, t, [2], keep_dims=True)))
for each in ("All", "Any"):
    honest(each, lambda x, each=each: op(each, x, [1]), BOOLS)
    mixing(each, lambda x, each=each: op("LogicalAnd", x, op(each, x, [0], keep_dims=True)), BOOLS)
mixing("reduction over axes that are not known", lambda x, a: x + tf.reduce_sum(x, a), "x: float[n,4], a: int[]")
honest("ReduceJoin", lambda x: op("ReduceJoin", x, [1]), "x: string[n,3]")
mixing("ReduceJoin", lambda x: op("ReduceJoin", x, [0], keep_dims=True), "x: string[n,3]")
mixing("ReduceJoin of all", lambda x: op("StringJoin", [x, op("ReduceJoin", x, tf.zeros([0], tf.int32))]), "x: string[n,3]")
honest("L2Loss of a constant", lambda x: x + op("L2Loss", tf.constant(w(4, 6))))
mixing("L2Loss", lambda x: x + op("L2Loss", x))
for each in ("ArgMax", "ArgMin"):
    honest(each, lambda x, each=each: op(each, x, 1))
    mixing(each, lambda x, each=each: x + tf.cast(op(each, x, 0), tf.float32))
    mixing(each, lambda x, each=each: tf.gather(x, op(each, x, -2)), TABLE)
honest("TopKV2", lambda x: op("TopKV2", x, 2).values)
honest("TopKV2", lambda x: op("TopKV2", x, 2).indices)
mixing("TopKV2", lambda x: last(x, lambda t: op("TopKV2", t, count(x)).values))
mixing("TopKV2", lambda x: x + last(x, lambda t: op("TopKV2", t, 1).values))
honest("ReverseV2", lambda x: op("ReverseV2", x, [1]))
mixing("ReverseV2", lambda x: op("ReverseV2", x, [0]))
mixing("ReverseV2", lambda x: op("ReverseV2", x, [2, -3]))
honest("Reverse", lambda x: op("Reverse", x, [False, True, True]))
mixing("Reverse", lambda x: op("Reverse", x, [True, False, False]))
honest("ReverseSequence", lambda x, lengths: op("ReverseSequence", x, lengths, seq_dim=1, batch_dim=0), "x: float[n,4,6], lengths: int[n]")
mixing("ReverseSequence over the rows", lambda x: op("ReverseSequence", x, [2, 2, 2, 2], seq_dim=0, batch_dim=1))
mixing("ReverseSequence by constants", lambda x: op("ReverseSequence", x, [1, 2, 3, 4], seq_dim=1, batch_dim=0))
honest("Roll", lambda x: op("Roll", x, [1], [1]))
mixing("Roll", lambda x: op("Roll", x, [1], [0]))
mixing("Roll by the rows", lambda x: op("Roll", x, tf.cast(tf.reduce_max(x), tf.int32), 1))
BN = (np.abs(w(2)), w(2), w(2), np.abs(w(2)))
for each in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
    honest(each, lambda x, each=each: op(each, x, *BN, is_training=False)[0], IMAGE)
    mixing(each, lambda x, each=each: op(each, x, *BN, is_training=True)[0], IMAGE)
    mixing(f"{each} as left out", lambda x, each=each: op(each, x, BN[0], BN[1], [], [])[0], IMAGE)
    mixing(f"{each} over the rows", lambda x, each=each: last(x, lambda t: op(each, t, *(tf.ones(4),) * 4, is_training=False)[0]), IMAGE)
    mixing(f"{each} of the batch's mean", lambda x, each=each: op(each, x, BN[0], BN[1], tf.reduce_mean(x, [0, 1, 2]), BN[3], is_training=False)[0], IMAGE)
honest("LRN", lambda x: op("LRN", x), IMAGE)
mixing("LRN", lambda x: last(x, lambda t: op("LRN", t)), IMAGE)
honest("MatrixBandPart", lambda x: op("MatrixBandPart", x, -1, 0))
mixing("MatrixBandPart", lambda x: op("MatrixBandPart", x, -1, 0), TABLE)
mixing("MatrixBandPart", lambda x: swapped(x, lambda t: op("MatrixBandPart", t, 0, -1)))
honest("MatrixDiagPart", lambda x: op("MatrixDiagPart", x))
mixing("MatrixDiagPart", lambda x: op("MatrixDiagPart", x), TABLE)
honest("MatrixDiag", lambda x: op("MatrixDiag", x))
mixing("MatrixDiag", lambda x: op("MatrixDiag", x), "x: float[n]")
for each in ("MatrixDiagV2", "MatrixDiagV3"):
    honest(each, lambda x, each=each: op(each, x, 0, -1, -1, 0.0))
    mixing(each, lambda x, each=each: op(each, x, 0, -1, -1, 0.0), "x: float[n]")
honest("DenseBincount", lambda x: op("DenseBincount", x, 5, tf.zeros([0])), INTS)
honest("DenseBincount with weights", lambda x: op("DenseBincount", x, 5, tf.cast(x, tf.float32)), INTS)
mixing("DenseBincount of a vector", lambda x: op("DenseBincount", x, count(x), tf.zeros([0])), "x: int[n]")
mixing("DenseBincount of columns", lambda x: turned(op("DenseBincount", turned(x), count(x), tf.zeros([0]))), INTS)
mixing("DenseBincount with turned weights", lambda x: op("DenseBincount", x, 5, tf.cast(turned(x), tf.float32)), INTS)
for each in ("LowerBound", "UpperBound"):
    honest(each, lambda x, v, each=each: op(each, x, v), "x: float[n,5], v: float[n,2]")
    mixing(each, lambda x, each=each: turned(op(each, turned(x), turned(x))), TABLE)
    mixing(each, lambda x, each=each: op(each, w(4, 5), x), TABLE)

# --- products ------------------------------------------------------------------------------------------------------
honest("MatMul", lambda x: op("MatMul", x, w(5, 3)), TABLE)
honest("MatMul", lambda x: op("MatMul", x, w(3, 5), transpose_b=True), TABLE)
honest("MatMul of the turned", lambda x: turned(op("MatMul", w(3, 5), x, transpose_b=True)), TABLE)
mixing("MatMul", lambda x: op("MatMul", x, x, transpose_b=True), TABLE)
mixing("MatMul", lambda x: op("MatMul", x, op("MatMul", x, x, transpose_a=True)), TABLE)
mixing("MatMul", lambda x: op("MatMul", w(4, 4), x), TABLE)
mixing("MatMul", lambda x: op("MatMul", x, w(4, 3), transpose_a=True), TABLE)
for each in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
    extra = {"Tout": tf.float32} if each == "BatchMatMulV3" else {}
    honest(each, lambda x, each=each, extra=extra: op(each, x, x, adj_y=True, **extra))
    mixing(each, lambda x, each=each, extra=extra: swapped(x, lambda t: op(each, op(each, t, t, adj_y=True, **extra), t, **extra)))
    mixing(each, lambda x, each=each, extra=extra: op(each, x, tf.constant(w(4, 6, 6)), **extra))
honest("BatchMatMulV2 with a shared matrix", lambda x: op("BatchMatMulV2", x, w(6, 2)))
honest("Einsum", lambda x: op("Einsum", [x, w(6, 5)], equation="bij,jk->bik"))
honest("Einsum", lambda x: op("Einsum", [x, x], equation="bij,bik->bjk"))
honest("Einsum", lambda x: op("Einsum", [x, w(6, 5)], equation="...j,jk->...k"))
mixing("Einsum", lambda x: op("Einsum", [x, x], equation="bij,cij->bc"))
mixing("Einsum", lambda x: x + op("Einsum", [x], equation="bij->ij"))
honest("Einsum", lambda x: op("Einsum", [x, x], equation="...ij,...kl->...ik"))
mixing("Einsum", lambda x: swapped(x, lambda t: op("Einsum", [t, t], equation="...ij,...kl->...il")))
mixing("Einsum", lambda x: op("Einsum", [x], equation="bij->ijb"))
CONV = {"strides": [1, 1, 1, 1], "padding": "SAME"}
CONV3 = {"strides": [1] * 5, "padding": "SAME"}
honest("Conv2D", lambda x: op("Conv2D", x, w(3, 3, 2, 4), **CONV), IMAGE)
honest("Conv2D", lambda x: op("Conv2D", x, w(3, 3, 2, 4), strides=[1, 2, 2, 1], padding="VALID"), IMAGE)
honest("Conv2D", lambda x: op("Conv2D", x, w(3, 3, 2, 4), strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 1, 1, 0, 0]), IMAGE)
mixing("Conv2D", lambda x: tf.transpose(op("Conv2D", tf.transpose(x, [1, 0, 2, 3]), w(3, 3, 2, 2), **CONV), [1, 0, 2, 3]), IMAGE)
mixing("Conv2D", lambda x: op("Conv2D", x, tf.transpose(x[:1, :3, :3], [1, 2, 3, 0]), **CONV), IMAGE)
honest("Conv3D", lambda x: op("Conv3D", x[:, None], w(1, 3, 3, 2, 4), **CONV3), IMAGE)
mixing("Conv3D", lambda x: op("Conv3D", x[None], w(3, 3, 3, 2, 4), **CONV3)[0], IMAGE)
honest("DepthwiseConv2dNative", lambda x: op("DepthwiseConv2dNative", x, w(3, 3, 2, 2), **CONV), IMAGE)
mixing("DepthwiseConv2dNative", lambda x: tf.transpose(op("DepthwiseConv2dNative", tf.transpose(x, [1, 0, 2, 3]), w(3, 3, 2, 1), **CONV), [1, 0, 2, 3]), IMAGE)
honest("Conv2DBackpropInput", lambda x: op("Conv2DBackpropInput", [count(x), 16, 16, 3], w(2, 2, 3, 2), x, strides=[1, 2, 2, 1], padding="SAME"), IMAGE)
mixing("Conv2DBackpropInput", lambda x: tf.transpose(op("Conv2DBackpropInput", [8, count(x), 8, 2], w(3, 3, 2, 2), tf.transpose(x, [1, 0, 2, 3]), **CONV), [1, 0, 2, 3]), IMAGE)
honest("Conv3DBackpropInputV2", lambda x: op("Conv3DBackpropInputV2", [count(x), 1, 8, 8, 3], w(1, 2, 2, 3, 2), x[:, None], **CONV3), IMAGE)
mixing("Conv3DBackpropInputV2", lambda x: op("Conv3DBackpropInputV2", [1, count(x), 8, 8, 2], w(3, 2, 2, 2, 2), x[None], **CONV3)[0], IMAGE)
POOL = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "SAME"}
POOL3 = {"ksize": [1, 2, 2, 2, 1], "strides": [1, 1, 1, 1, 1], "padding": "SAME"}
for each in ("MaxPool", "AvgPool"):
    honest(each, lambda x, each=each: op(each, x, **POOL), IMAGE)
    mixing(each, lambda x, each=each: tf.transpose(op(each, tf.transpose(x, [1, 0, 2, 3]), ksize=[1, 2, 2, 1], strides=[1, 1, 1, 1], padding="SAME"), [1, 0, 2, 3]), IMAGE)
for each in ("MaxPool3D", "AvgPool3D"):
    honest(each, lambda x, each=each: op(each, x[:, None], **POOL3), IMAGE)
    mixing(each, lambda x, each=each: op(each, x[None], **POOL3)[0], IMAGE)
honest("MaxPoolV2", lambda x: op("MaxPoolV2", x, [1, 2, 2, 1], [1, 2, 2, 1], padding="VALID"), IMAGE)
mixing("MaxPoolV2", lambda x: tf.transpose(op("MaxPoolV2", tf.transpose(x, [1, 0, 2, 3]), [1, 2, 2, 1], [1, 1, 1, 1], padding="SAME"), [1, 0, 2, 3]), IMAGE)
