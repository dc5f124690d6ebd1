"""As cases_operators: what quantisation to ONNX Runtime's QOperator format and converters of scikit-learn write."""

from __future__ import annotations

import numpy as np
from cases_operators import TABLE, TREE, honest, mixing, weights

Q = {"s": np.float32(0.1), "z": np.uint8(128)}
BYTES = "uint8[n,4] x"
IMAGE = "uint8[n,2,4,4] x"
OUT = "uint8[n] y"
TURNED = "t = Transpose<perm=[1,0]>(x)\n "
EACH_ROW = {"r": np.full(4, 0.1, np.float32), "q": np.full(4, 128, np.uint8)}  # as many as there may be rows

for op in ("QLinearAdd", "QLinearMul"):
    honest(f"y = com.microsoft.{op}(x,s,z,c,s,z,s,z)", inputs=BYTES, output=OUT, c=np.arange(4, dtype=np.uint8), **Q)
    mixing(f"{TURNED}y = com.microsoft.{op}(x,s,z,t,s,z,s,z)", inputs=BYTES, output=OUT, **Q)
    mixing(f"y = com.microsoft.{op}(x,r,q,x,s,z,s,z)", inputs=BYTES, output=OUT, **Q, **EACH_ROW)
for op in ("QLinearSigmoid", "QLinearLeakyRelu"):
    honest(f"y = com.microsoft.{op}(x,s,z,s,z)", inputs=BYTES, output=OUT, **Q)
    mixing(f"{TURNED}k = com.microsoft.{op}(t,s,z,s,z)\n y = com.microsoft.QLinearAdd(x,s,z,k,s,z,s,z)",
           inputs=BYTES, output=OUT, **Q)  # fmt: skip
    mixing(f"f = Cast<to=1>(x)\n m = ReduceMax<keepdims=0>(f)\n y = com.microsoft.{op}(x,m,z,s,z)",
           inputs=BYTES, output=OUT, **Q)  # fmt: skip
honest("c = Greater(x,k)\n y = com.microsoft.QLinearWhere(c,x,s,z,k,s,z,s,z)", inputs=BYTES, output=OUT,
       k=np.uint8(3), **Q)  # fmt: skip
mixing(f"{TURNED}c = Greater(t,k)\n y = com.microsoft.QLinearWhere(c,x,s,z,k,s,z,s,z)", inputs=BYTES, output=OUT,
       k=np.uint8(3), **Q)  # fmt: skip
honest("y = com.microsoft.QLinearSoftmax<axis=1,opset=13>(x,s,z,s,z)", inputs=BYTES, output=OUT, **Q)
honest("y = com.microsoft.QLinearSoftmax<axis=1,opset=12>(x,s,z,s,z)", inputs=IMAGE, output=OUT, **Q)
mixing("y = com.microsoft.QLinearSoftmax<axis=0,opset=13>(x,s,z,s,z)", inputs=BYTES, output=OUT, **Q)
mixing("y = com.microsoft.QLinearSoftmax<axis=0,opset=12>(x,s,z,s,z)", inputs=BYTES, output=OUT, **Q)
honest("y = com.microsoft.QLinearGlobalAveragePool<channels_last=0>(x,s,z,s,z)", inputs=IMAGE, output=OUT, **Q)
mixing("t = Transpose<perm=[1,2,0,3]>(x)\n k = com.microsoft.QLinearGlobalAveragePool<channels_last=0>(t,s,z,s,z)\n "
       "y = Transpose<perm=[2,0,1,3]>(k)", inputs=IMAGE, output=OUT, **Q)  # fmt: skip
honest("y = com.microsoft.QLinearConcat<axis=1>(s,z,x,s,z,x,s,z)", inputs=BYTES, output=OUT, **Q)
mixing("y = com.microsoft.QLinearConcat<axis=0>(s,z,x,s,z,x,s,z)", inputs=BYTES, output=OUT, **Q)
W = {"w": np.arange(12, dtype=np.uint8).reshape(4, 3), "b": np.arange(3, dtype=np.int32)}
honest("y = com.microsoft.QGemm(x,s,z,w,s,z,b,s,z)", inputs=BYTES, output=OUT, **Q, **W)
honest(
    "y = com.microsoft.QGemm<transB=1>(x,s,z,v,s,z,b,s,z)", inputs=BYTES, output=OUT, v=W["w"].T.copy(), b=W["b"], **Q
)
mixing("y = com.microsoft.QGemm<transA=1>(x,s,z,w,s,z,b,s,z)", inputs=BYTES, output=OUT, **Q, **W)
mixing("y = com.microsoft.QGemm(v,s,z,x,s,z,b,s,z)", inputs=BYTES, output=OUT, v=W["w"].T.copy(), b=np.arange(4, dtype=np.int32), **Q)  # fmt: skip

# A classifier's label is looked up by the number of the largest score, which may be a column.
LOOKUP = "i = ArgMax<axis=1,keepdims={keep}>(x)\n r = ai.onnx.ml.ArrayFeatureExtractor(w,i)\n y = Reshape(r,s)"
for keep in (0, 1):
    for table in (weights(5), weights(1, 5)):
        honest(LOOKUP.format(keep=keep), inputs=TABLE, w=table, s=[-1])
mixing("i = ArgMax<axis=0,keepdims=1>(x)\n r = ai.onnx.ml.ArrayFeatureExtractor(w,i)\n y = Add(x,r)", inputs=TABLE,
       w=weights(1, 9))  # fmt: skip
mixing("i = ArgMax<axis=1,keepdims=0>(x)\n r = ai.onnx.ml.ArrayFeatureExtractor(t,i)\n t = Transpose(x)\n y = Reshape(r,s)",
       inputs=TABLE, s=[-1])  # fmt: skip
honest("y = ai.onnx.ml.OneHotEncoder<cats_int64s=[0,1,2]>(x)", inputs="int64[n,4] x")
mixing("o = ai.onnx.ml.OneHotEncoder<cats_int64s=[0,1,2]>(x)\n y = CumSum(o,a)", inputs="int64[n,4] x", a=np.int64(0))
# A forest of two trees: their scores as stacked tables, and the mean over the trees.
FOREST = TREE + (
    ",class_treeids=[0,0,0],class_nodeids=[1,2,2],class_ids=[0,1,2],class_weights=[1.0,1.0,1.0],"
    "classlabels_int64s=[0,1,2]>(x)\n"
)
for axis, add in ((0, honest), (1, mixing)):
    add("l, p = ai.onnx.ml.TreeEnsembleClassifier<" + FOREST + " a = Reshape(p,s)\n b = Neg(a)\n c = Concat<axis=0>(a,b)\n "
        f"y = ReduceMean<keepdims=0>(c,x{axis})", inputs=TABLE, s=[1, -1, 3], **{f"x{axis}": [axis]})  # fmt: skip
# torch.onnx (dynamo) computes half of an open width, and writes shapes with allowzero.
HALF = "n = Shape<start=0,end=1>(x)\n w = Shape<start=2,end=3>(x)\n h = Div(w,two)\n d = Concat<axis=0>({order},k)\n "
POOLED = "m = MaxPool<kernel_shape=[2],strides=[2]>(x)\n r = Reshape<allowzero={zero}>(m,d)\n y = Relu(r)"
OPEN = {"inputs": "float[n,4,w] x", "two": [2], "k": [4]}
honest(HALF.format(order="n,h") + POOLED.format(zero=1), **OPEN)
mixing(HALF.format(order="h,n") + POOLED.format(zero=1), **OPEN)
mixing(HALF.format(order="n,h") + POOLED.format(zero=0), **OPEN)  # a width of 0 would mean the one that is there
