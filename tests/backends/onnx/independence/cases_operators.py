"""For each operator of the tables, graphs in which rows stay apart and graphs in which they meet.

A case is (body, settings): the nodes in ONNX's text form, and the settings of `support.onnx_graphs.graph`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Case = tuple[str, dict[str, Any]]
HONEST: list[Case] = []
MIXING: list[Case] = []


def honest(body: str, **settings: Any) -> None:
    HONEST.append((body, settings))


def mixing(body: str, **settings: Any) -> None:
    MIXING.append((body, settings))


TABLE = "float[n,5] x"
IMAGE = "float[n,2,8,8] x"
SEQUENCE = "float[t,n,3] x"
INTS = "int64[n,4] x"
rng = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(np.float32)


# --- element by element: honest on the rows; mixing on what was reduced over the batch ---------------------------------
UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log
    Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
    Identity"""
for op in UNARY.split():
    honest(f"y = {op}(x)")
    mixing(f"m = ReduceMax<keepdims=1>(x,a)\n k = {op}(m)\n y = Add(x,k)", a=[0])
for op in ("com.microsoft.Gelu", "com.microsoft.QuickGelu", "ai.onnx.ml.Binarizer"):
    honest(f"y = {op}(x)")
    mixing(f"m = ReduceMax<keepdims=1>(x,a)\n k = {op}(m)\n y = Add(x,k)", a=[0])
for op in ("com.microsoft.BiasGelu", "com.microsoft.FastGelu"):
    honest(f"y = {op}(x,b)", b=weights(6))
    mixing(f"b = ReduceMax<keepdims=0>(x,a)\n y = {op}(x,b)", a=[0, 1])
for op in ["Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "PRelu", "Sub", "Sum"]:
    honest(f"y = {op}(x,c)", c=np.abs(weights(1, 4, 1)) + 1)
    mixing(f"t = Transpose<perm=[1,0]>(x)\n y = {op}(x,t)", inputs="float[n,4] x")
    mixing(f"y = {op}(x,c)", inputs=TABLE, c=np.abs(weights(3, 5)) + 1)
honest("y = Swish(x)", opset=24)
mixing("m = ReduceMax(x)\n k = Swish(m)\n y = Add(x,k)", opset=24)
for op in ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
    honest(f"y = {op}(x,c)", c=weights(6), output="bool[n] y")
    mixing(f"t = Transpose<perm=[1,0]>(x)\n y = {op}(x,t)", inputs="float[n,4] x", output="bool[n] y")
for op in ("IsInf", "IsNaN"):
    honest(f"y = {op}(x)", output="bool[n] y")
    mixing(f"m = ReduceMax(x)\n k = {op}(m)\n c = Cast<to=1>(k)\n y = Add(x,c)")
for op in ("And", "Or", "Xor"):
    honest(f"y = {op}(x,c)", inputs="bool[n,4] x", c=np.array([True, False, True, True]), output="bool[n] y")
    mixing(f"t = Transpose<perm=[1,0]>(x)\n y = {op}(x,t)", inputs="bool[n,4] x", output="bool[n] y")
honest("y = Not(x)", inputs="bool[n,4] x", output="bool[n] y")
mixing("t = Transpose<perm=[1,0]>(x)\n k = Not(t)\n y = And(x,k)", inputs="bool[n,4] x", output="bool[n] y")
for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod"):
    honest(f"y = {op}(x,c)", inputs=INTS, c=np.array([3]), output="int64[n] y")
    mixing(f"t = Transpose<perm=[1,0]>(x)\n y = {op}(x,t)", inputs=INTS, output="int64[n] y")
honest("y = BitwiseNot(x)", inputs=INTS, output="int64[n] y")
mixing("m = ReduceMax(x)\n k = BitwiseNot(m)\n y = Add(x,k)", inputs=INTS, output="int64[n] y")
honest('y = BitShift<direction="LEFT">(x,c)', inputs="uint64[n,4] x", c=np.array([3], np.uint64), output="uint64[n] y")
mixing('t = Transpose(x)\n y = BitShift<direction="LEFT">(x,t)', inputs="uint64[n,4] x", output="uint64[n] y")
honest("y = Clip(x,lo,hi)", lo=np.float32(-1), hi=np.float32(1))
mixing("hi = ReduceMean<keepdims=0>(x)\n y = Clip(x,lo,hi)", lo=np.float32(-1))
honest("c = IsNaN(x)\n y = Where(c,z,x)", z=np.float32(0))
mixing("n = IsNaN(x)\n f = Cast<to=1>(n)\n m = ReduceMax(f)\n c = Cast<to=9>(m)\n y = Where(c,z,x)", z=np.float32(0))
honest("y = StringConcat(x,c)", inputs="string[n,4] x", c=np.array(["a"], object), output="string[n] y")
mixing("t = Transpose(x)\n y = StringConcat(x,t)", inputs="string[n,4] x", output="string[n] y")
honest('y = RegexFullMatch<pattern="a+">(x)', inputs="string[n,4] x", output="bool[n] y")
mixing('t = Transpose(x)\n k = RegexFullMatch<pattern="a+">(t)\n m = RegexFullMatch<pattern="a+">(x)\n y = And(k,m)',
       inputs="string[n,4] x", output="bool[n] y")  # fmt: skip
ENCODER = "ai.onnx.ml.LabelEncoder<keys_int64s=[0,1],values_int64s=[7,9]>"
honest(f"y = {ENCODER}(x)", inputs=INTS, output="int64[n] y")
mixing(f"m = ReduceMax(x)\n k = {ENCODER}(m)\n y = Add(x,k)", inputs=INTS, output="int64[n] y")
honest("y = Cast<to=7>(x)", output="int64[n] y")
mixing("s = Shape<start=0,end=1>(x)\n f = Cast<to=1>(s)\n y = Mul(x,f)")
mixing("""s = Shape<start=0,end=1>(x)\n v = Squeeze(s,z)\n r = Range(zero,v,one)\n b = Cast<to=3>(r)\n i = Cast<to=7>(b)
    y = Gather(x,i)""", z=[0], zero=np.int64(0), one=np.int64(1))  # fmt: skip
honest("y = CastLike(x,c)", c=np.int64(1), output="int64[n] y")
mixing("m = ReduceMax(x)\n k = CastLike(m,c)\n y = Add(x,k)", c=np.float32(1))
honest("y = Dropout(x)")
honest("y, m = Dropout(x,r,t)", r=np.float32(0.5), t=np.array(False))
mixing("y = Dropout(x,r,t)", r=np.float32(0.5), t=np.array(True))
mixing("y = Dropout(x,r,t)", inputs="float[n,4] x, bool t", r=np.float32(0.5))
SCALE = {"s": np.float32(0.1), "z": np.int8(0)}
honest("q = QuantizeLinear(x,s,z)\n y = DequantizeLinear(q,s,z)", **SCALE)
honest(
    "q = QuantizeLinear<axis=1>(x,s,z)\n y = DequantizeLinear<axis=1>(q,s,z)",
    s=np.ones(4, np.float32),
    z=np.zeros(4, np.int8),
)
mixing("m = ReduceMax<keepdims=0>(x)\n q = QuantizeLinear(x,m,z)\n y = DequantizeLinear(q,s,z)", **SCALE)
mixing("q = QuantizeLinear(x,s,z)\n m = ReduceMax<keepdims=0>(x)\n y = DequantizeLinear(q,m,z)", **SCALE)
mixing(
    "q = QuantizeLinear<axis=0>(x,s,z)\n y = DequantizeLinear<axis=0>(q,s,z)",
    s=np.ones(3, np.float32),
    z=np.zeros(3, np.int8),
)
honest("q = com.microsoft.QuantizeLinear(x,s,z)\n y = com.microsoft.DequantizeLinear(q,s,z)", **SCALE)
mixing("m = ReduceMax<keepdims=0>(x)\n q = com.microsoft.QuantizeLinear(x,m,z)\n y = com.microsoft.DequantizeLinear(q,s,z)",
       **SCALE)  # fmt: skip

# --- along axes ----------------------------------------------------------------------------------------------------
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    honest(f"y = {op}(x)")
    honest(f"y = {op}<axis=1>(x)", opset=11, domains="")
    honest(f"y = {op}<axis=1>(x)")
    mixing(f"y = {op}<axis=0>(x)")
    mixing(f"y = {op}<axis=-3>(x)")
    mixing(f"y = {op}<axis=0>(x)", opset=11, domains="")
    mixing(
        f"t = Transpose<perm=[1,0,2]>(x)\n s = {op}<axis=1>(t)\n y = Transpose<perm=[1,0,2]>(s)", opset=11, domains=""
    )
    # Before version 13 the axes from `axis` on are one: the rows on axis 1 are among them for axis 1.
    mixing(f"t = Transpose<perm=[1,0,2]>(x)\n s = {op}(t)\n y = Transpose<perm=[1,0,2]>(s)", opset=9, domains="")
honest("y = CumSum(x,a)", a=np.int64(1))
mixing("y = CumSum(x,a)", a=np.int64(0))
mixing("y = CumSum(x,a)", a=np.int64(-3))
mixing("y = CumSum<reverse=1,exclusive=1>(x,a)", a=np.int64(0))
honest("y = CumProd(x,a)", a=np.int64(1), opset=26)
mixing("y = CumProd(x,a)", a=np.int64(0), opset=26)
honest("y = LpNormalization(x)")
mixing("y = LpNormalization<axis=0>(x)")
honest("y = Trilu(x)")
mixing("y = Trilu(x)", inputs=TABLE)
mixing("t = Transpose<perm=[1,0,2]>(x)\n l = Trilu<upper=0>(t)\n y = Transpose<perm=[1,0,2]>(l)")
for op in ("LayerNormalization", "SimplifiedLayerNormalization"):
    honest(f"y = {op}(x,w)", w=weights(6))
    mixing(f"y = {op}<axis=0>(x,w)", w=weights(1))
    mixing(f"w = ReduceMax<keepdims=0>(x,a)\n y = {op}(x,w)", a=[0, 1])
honest("y = RMSNormalization(x,w)", w=weights(6), opset=23)
mixing("y = RMSNormalization<axis=0>(x,w)", w=weights(1), opset=23)
honest("y = com.microsoft.SkipLayerNormalization(x,x,w,b)", w=weights(6), b=weights(6))
mixing(
    "s = Shape(x)\n m = ReduceMax<keepdims=1>(x,a)\n e = Expand(m,s)\n y = com.microsoft.SkipLayerNormalization(x,e,w)",
    w=weights(6),
    a=[0],
)
honest("y = com.microsoft.SkipSimplifiedLayerNormalization(x,x,w)", w=weights(6))
mixing("s = Shape(x)\n m = ReduceMax<keepdims=1>(x,a)\n e = Expand(m,s)\n y = com.microsoft.SkipSimplifiedLayerNormalization(x,e,w)",
       w=weights(6), a=[0])  # fmt: skip
honest("y = MeanVarianceNormalization<axes=[2,3]>(x)", inputs=IMAGE)
mixing("y = MeanVarianceNormalization(x)", inputs=IMAGE)
mixing("y = MeanVarianceNormalization<axes=[0,1,2,3]>(x)", inputs=IMAGE)
BN = {"s": weights(2), "b": weights(2), "m": weights(2), "v": np.abs(weights(2))}
honest("y = BatchNormalization(x,s,b,m,v)", inputs=IMAGE, **BN)
honest("y = BatchNormalization(x,s,b,m,v)", inputs=IMAGE, opset=9, domains="", **BN)
mixing("y, rm, rv = BatchNormalization<training_mode=1>(x,s,b,m,v)", inputs=IMAGE, **BN)
mixing("y, rm, rv, sm, sv = BatchNormalization(x,s,b,m,v)", inputs=IMAGE, opset=9, domains="", **BN)
mixing("mm = ReduceMean<keepdims=0>(x,a)\n y = BatchNormalization(x,s,b,mm,v)", inputs=IMAGE, a=[0, 2, 3],
       s=weights(2), b=weights(2), v=np.abs(weights(2)))  # fmt: skip
honest("y = InstanceNormalization(x,s,b)", inputs=IMAGE, s=weights(2), b=weights(2))
mixing(
    "t = Transpose<perm=[1,2,0,3]>(x)\n i = InstanceNormalization(t,s,b)\n y = Transpose<perm=[2,0,1,3]>(i)",
    inputs=IMAGE,
    s=weights(8),
    b=weights(8),
)
honest("y = GroupNormalization<num_groups=2>(x,s,b)", inputs=IMAGE, opset=21, s=weights(2), b=weights(2))
mixing("t = Transpose<perm=[1,2,0,3]>(x)\n i = GroupNormalization<num_groups=2>(t,s,b)\n y = Transpose<perm=[2,0,1,3]>(i)",
       inputs=IMAGE, opset=21, s=weights(8), b=weights(8))  # fmt: skip
honest("y = LRN<size=3>(x)", inputs=IMAGE)
mixing("t = Transpose<perm=[1,0,2,3]>(x)\n i = LRN<size=3>(t)\n y = Transpose<perm=[1,0,2,3]>(i)", inputs=IMAGE)
for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]:
    op = f"Reduce{kind}"
    honest(f"y = {op}(x,a)", a=[1, 2])
    honest(f"y = {op}<keepdims=0>(x,a)", a=[-1])
    mixing(f"y = {op}(x,a)", a=[0])
    mixing(f"m = {op}<keepdims=0>(x)\n y = Add(x,m)")
    honest(f"y = {op}<axes=[1]>(x)", opset=11, domains="")
    mixing(f"m = {op}<axes=[0]>(x)\n y = Add(x,m)", opset=11, domains="")
    mixing(f"m = {op}(x)\n y = Add(x,m)", opset=11, domains="")
honest("y = ReduceSum<noop_with_empty_axes=1>(x)")
mixing("m = ReduceSum<noop_with_empty_axes=0>(x)\n y = Add(x,m)")
for op in ("ArgMax", "ArgMin"):
    honest(f"y = {op}<axis=1>(x)", output="int64[n] y")
    mixing(f"a = {op}<axis=0>(x)\n c = Cast<to=1>(a)\n y = Add(x,c)")
    mixing(f"a = {op}(x)\n c = Cast<to=1>(a)\n y = Add(x,c)")
honest("y, i = TopK(x,k)", k=[2])
honest("v, y = TopK<axis=1>(x,k)", k=[2], output="int64[n] y")
mixing("v, i = TopK<axis=0>(x,k)\n y = Add(x,v)", k=[1])
mixing("s = Shape<start=0,end=1>(x)\n y, i = TopK<axis=0>(x,s)")
honest("y = ReverseSequence<batch_axis=0,time_axis=1>(x,l)", inputs="float[n,4,6] x, int64[n] l")
mixing("y = ReverseSequence<batch_axis=1,time_axis=0>(x,l)", l=[2, 2, 2, 2])
mixing("y = ReverseSequence<batch_axis=0,time_axis=1>(x,l)", l=[1, 2, 3])

# --- products ------------------------------------------------------------------------------------------------------
honest("y = MatMul(x,w)", w=weights(6, 5))
honest("t = Transpose<perm=[0,2,1]>(x)\n y = MatMul(x,t)")
honest("y = MatMul(x,w)", w=weights(6))
mixing("t = Transpose<perm=[1,0]>(x)\n y = MatMul(x,t)", inputs=TABLE)
mixing("t = Transpose<perm=[1,0]>(x)\n g = MatMul(t,x)\n y = MatMul(x,g)", inputs=TABLE)
mixing("y = MatMul(w,x)", inputs="float[n,5] x", w=weights(3, 3))
INT = {"inputs": "int8[n,5] x", "output": "int32[n] y"}
honest("y = MatMulInteger(x,w)", w=np.ones((5, 2), np.int8), **INT)
mixing("y = MatMulInteger(x,w,z)", w=np.ones((5, 2), np.int8), z=np.zeros(3, np.int8), **INT)
mixing("t = Transpose(x)\n y = MatMulInteger(x,t)", **INT)
FLOATS = {"w": np.ones((5, 2), np.int8), "s": np.float32(0.1), "u": np.float32(0.2)}
honest("y = com.microsoft.MatMulIntegerToFloat(x,w,s,u)", inputs="int8[n,5] x", **FLOATS)
mixing(
    "t = Transpose(x)\n y = com.microsoft.MatMulIntegerToFloat(x,t,s,u)",
    inputs="int8[n,5] x",
    s=np.float32(0.1),
    u=np.float32(0.2),
)
Q = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones((5, 2), np.int8)}
honest("y = QLinearMatMul(x,s,z,w,s,z,s,z)", inputs="int8[n,5] x", output="int8[n] y", **Q)
mixing(
    "t = Transpose(x)\n y = QLinearMatMul(x,s,z,t,s,z,s,z)",
    inputs="int8[n,5] x",
    output="int8[n] y",
    s=Q["s"],
    z=Q["z"],
)
mixing(
    "y = QLinearMatMul(x,r,q,w,s,z,s,z)",
    inputs="int8[n,5] x",
    output="int8[n] y",
    r=np.ones(3, np.float32),
    q=np.zeros(3, np.int8),
    **Q,
)
honest("y = Gemm<transB=1>(x,w,b)", inputs=TABLE, w=weights(3, 5), b=weights(3))
mixing("y = Gemm<transA=1>(x,w)", inputs=TABLE, w=weights(3, 5))
mixing("y = Gemm(x,w,b)", inputs=TABLE, w=weights(5, 2), b=weights(3, 2))
mixing("y = Gemm<transB=1>(x,x)", inputs=TABLE)
honest("y = com.microsoft.FusedMatMul<transB=1>(x,w)", w=weights(5, 6))
mixing("y = com.microsoft.FusedMatMul<transB=1>(x,x)", inputs=TABLE)
mixing("y = com.microsoft.FusedMatMul<transA=1>(x,w)", inputs=TABLE, w=weights(3, 3))
honest('y = Einsum<equation="bij,jk->bik">(x,w)', w=weights(6, 5))
honest('y = Einsum<equation="bij,bik->bjk">(x,x)')
mixing('y = Einsum<equation="bij,cij->bc">(x,x)')
mixing('y = Einsum<equation="bij,bkl->ijkl">(x,x)')
mixing('y = Einsum<equation="bij->ijb">(x)')
honest("y = Conv(x,w)", inputs=IMAGE, w=weights(3, 2, 3, 3))
mixing(
    "t = Transpose<perm=[1,2,0,3]>(x)\n c = Conv<pads=[1,1,1,1]>(t,w)\n y = Transpose<perm=[2,0,1,3]>(c)",
    inputs=IMAGE,
    w=weights(8, 8, 3, 3),
)
mixing("w = Slice(x,a,b)\n y = Conv(x,w)", inputs=IMAGE, a=[0, 0, 0, 0], b=[1, 2, 3, 3])
honest("y = ConvInteger(x,w)", inputs="uint8[n,2,8,8] x", output="int32[n] y", w=np.ones((3, 2, 3, 3), np.uint8))
mixing("t = Transpose<perm=[1,2,0,3]>(x)\n c = ConvInteger<pads=[1,1,1,1]>(t,w)\n y = Transpose<perm=[2,0,1,3]>(c)",
       inputs="uint8[n,2,8,8] x", output="int32[n] y", w=np.ones((8, 8, 3, 3), np.uint8))  # fmt: skip
honest('y = com.microsoft.FusedConv<activation="Relu">(x,w)', inputs=IMAGE, w=weights(3, 2, 3, 3))
mixing(
    't = Transpose<perm=[1,2,0,3]>(x)\n y = com.microsoft.FusedConv<activation="Relu">(t,w)',
    inputs=IMAGE,
    w=weights(8, 8, 1, 1),
)
QC = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((3, 2, 3, 3), np.uint8)}
honest("y = QLinearConv(x,s,z,w,s,z,s,z)", inputs="uint8[n,2,8,8] x", output="uint8[n] y", **QC)
mixing(
    "f = Cast<to=1>(x)\n m = ReduceMax<keepdims=0>(f)\n y = QLinearConv(x,m,z,w,s,z,s,z)",
    inputs="uint8[n,2,8,8] x",
    output="uint8[n] y",
    **QC,
)
honest("y = ConvTranspose<strides=[2,2]>(x,w)", inputs=IMAGE, w=weights(2, 3, 3, 3))
mixing("t = Transpose<perm=[1,2,0,3]>(x)\n y = ConvTranspose(t,w)", inputs=IMAGE, w=weights(8, 3, 3, 3))
for op, extra in (("MaxPool", ""), ("AveragePool", ""), ("LpPool", "")):
    honest(f"y = {op}<kernel_shape=[2,2]{extra}>(x)", inputs=IMAGE)
    honest(f"y = {op}<kernel_shape=[3,3],strides=[2,2],ceil_mode=1{extra}>(x)", inputs=IMAGE)
    mixing(f"t = Transpose<perm=[1,2,0,3]>(x)\n p = {op}<kernel_shape=[3,1],pads=[1,0,1,0]>(t)\n y = Transpose<perm=[2,0,1,3]>(p)",
           inputs=IMAGE)  # fmt: skip
mixing("p, y = MaxPool<kernel_shape=[2,2]>(x)", inputs=IMAGE, output="int64[n] y")
for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    honest(f"y = {op}(x)", inputs=IMAGE)
    mixing(f"t = Transpose<perm=[1,2,0,3]>(x)\n p = {op}(t)\n y = Add(x,p)", inputs=IMAGE)
honest("y = GridSample(x,g)", inputs="float[n,2,8,8] x, float[n,3,3,2] g")
mixing("y = GridSample(x,g)", inputs=IMAGE, g=weights(1, 3, 3, 2))

# --- layout --------------------------------------------------------------------------------------------------------
honest("y = Transpose<perm=[0,2,1]>(x)")
mixing("y = Transpose(x)")
mixing("y = Transpose<perm=[1,0,2]>(x)")
honest("y = Reshape(x,s)", s=[0, -1])
honest("y = Reshape(x,s)", s=[-1, 24])
honest("r = Reshape(x,s)\n y = Reshape(r,t)", s=[-1, 6], t=[-1, 4, 6])
mixing("y = Reshape(x,s)", s=[-1, 12])
mixing("y = Reshape(x,s)", s=[4, -1])
mixing("y = Reshape(x,s)", s=[-1])
mixing("y = Reshape(x,s)", s=[6, -1, 4])
mixing("t = Transpose<perm=[1,0,2]>(x)\n y = Reshape(t,s)", s=[-1, 4, 6])
mixing("t = Transpose<perm=[1,0]>(x)\n s = Shape(x)\n y = Reshape(t,s)", inputs=TABLE)
honest("y = Flatten(x)")
mixing("y = Flatten<axis=0>(x)")
mixing("y = Flatten<axis=2>(x)")
honest("y = Squeeze(x,a)", inputs="float[n,1,4] x", a=[1])
mixing("y = Squeeze(x)", inputs="float[n,1,4] x")
mixing("y = Squeeze(x)", inputs="float[n,1,4] x", opset=11, domains="")
mixing("y = Squeeze(x,a)", inputs="float[n,1,4] x", a=[0])
honest("y = Unsqueeze(x,a)", a=[1, -1])
mixing("y = Unsqueeze(x,a)", a=[0])
honest("y = Concat<axis=1>(x,x)")
mixing("y = Concat<axis=0>(x,x)")
mixing("y = Concat<axis=-3>(x,x)")
mixing("y = Concat<axis=1>(x,c)", c=weights(3, 4, 6))
honest("y, z = Split<axis=1,num_outputs=2>(x)")
honest("y, z = Split<axis=1>(x,s)", s=[1, 3])
mixing("y, z = Split<axis=0,num_outputs=2>(x)")
mixing("y, z = Split(x)", opset=11, domains="")
honest("y = Slice(x,a,b,c)", a=[1], b=[2**31 - 1], c=[1])
honest("y = Slice(x,a,b,c,d)", a=[-1], b=[-(2**63) + 1], c=[1], d=[-1])
honest("y = Slice(x,a,b)", a=[0], b=[10**9])
mixing("y = Slice(x,a,b)", a=[1], b=[10**9])
mixing("y = Slice(x,a,b)", a=[0], b=[-1])
mixing("y = Slice(x,a,b,c,d)", a=[-1], b=[-(2**63) + 1], c=[0], d=[-1])
mixing("s = Shape<start=0,end=1>(x)\n y = Slice(x,z,s,o)", z=[0], o=[1])
honest("y = Pad(x,p)", p=[0, 1, 0, 0, 0, 2])
mixing("y = Pad(x,p)", p=[1, 0, 0, 0, 0, 0])
mixing('y = Pad<mode="wrap">(x,p)', p=[0, 0, 0, 1, 0, 0])
mixing("c = ReduceMax<keepdims=0>(x)\n y = Pad(x,p,c)", p=[0, 1, 0, 0, 0, 2])
honest("y = Pad<pads=[0,1,0,0,0,2]>(x)", opset=10, domains="")
mixing("y = Pad<pads=[1,0,0,0,0,0]>(x)", opset=10, domains="")
honest("s = Shape(x)\n e = Expand(c,s)\n y = Add(x,e)", c=weights(1, 4, 1))
honest("y = Expand(x,s)", inputs="float[n,1] x", s=[1, 7])
mixing("y = Expand(x,s)", inputs="float[n,1] x", s=[3, 7])
mixing("y = Expand(x,s)", inputs="float[n,1] x", s=[3, 1, 1])
mixing("s = Shape(x)\n y = Expand(c,s)", c=weights(3, 1, 1))
honest("y = Tile(x,r)", r=[1, 2, 1])
mixing("y = Tile(x,r)", r=[2, 1, 1])
mixing("s = Shape<start=0,end=1>(x)\n r = Concat<axis=0>(s,o)\n y = Tile(c,r)", inputs=TABLE, o=[1], c=weights(2, 3))
honest("y = DepthToSpace<blocksize=2>(x)", inputs="float[n,4,3,3] x")
mixing("t = Transpose<perm=[1,0,2,3]>(x)\n y = DepthToSpace<blocksize=2>(t)", inputs="float[n,4,3,3] x")
honest("y = SpaceToDepth<blocksize=2>(x)", inputs=IMAGE)
mixing("t = Transpose<perm=[1,2,0,3]>(x)\n y = SpaceToDepth<blocksize=2>(t)", inputs=IMAGE)
honest("y = Resize(x,,s)", inputs=IMAGE, s=np.array([1, 1, 2, 1.5], np.float32))
honest("s = Shape<start=0,end=2>(x)\n z = Concat<axis=0>(s,h)\n y = Resize(x,,,z)", inputs=IMAGE, h=[5, 16])
mixing("y = Resize(x,,s)", inputs=IMAGE, s=np.array([2, 1, 1, 1], np.float32))
mixing("y = Resize(x,,,z)", inputs=IMAGE, z=[4, 2, 8, 8])
mixing('y = Resize<axes=[0,1,2,3],keep_aspect_ratio_policy="not_larger">(x,,,z)', inputs=IMAGE, z=[4, 4, 8, 8])
honest("y = Upsample(x,s)", inputs=IMAGE, opset=9, domains="", s=np.array([1, 1, 2, 2], np.float32))
mixing("y = Upsample(x,s)", inputs=IMAGE, opset=9, domains="", s=np.array([2, 1, 1, 1], np.float32))
honest("s = Shape(x)\n c = ConstantOfShape(s)\n y = Add(x,c)")
mixing("s = Shape(x)\n c = ConstantOfShape<value = float[1] {1}>(s)\n k = ReduceSum(c)\n y = Mul(x,k)")
mixing(
    "s = Shape<start=0,end=1>(x)\n c = ConstantOfShape<value = float[1] {1}>(s)\n k = CumSum(c,a)\n y = Mul(x,k)",
    inputs="float[n] x",
    a=np.int64(0),
)
NUMBERS = {"zero": np.int64(0), "one": np.int64(1)}
honest("s = Shape(x)\n v = Gather(s,i)\n r = Range(zero,v,one)\n y = Gather(x,r)", i=np.int64(0), **NUMBERS)
honest("r = Range(zero,k,one)\n c = Cast<to=1>(r)\n y = Mul(x,c)", k=np.int64(6), **NUMBERS)
mixing("s = Shape(x)\n v = Gather(s,i)\n r = Range(zero,v,one)\n c = Cast<to=1>(r)\n u = Unsqueeze(c,a)\n y = Mul(x,u)",
       i=np.int64(0), a=[1, 2], **NUMBERS)  # fmt: skip
mixing("s = Shape(x)\n v = Gather(s,i)\n r = Range(one,v,one)\n y = Gather(x,r)", i=np.int64(0), **NUMBERS)
honest("y = OneHot(x,d,v)", inputs=INTS, d=np.int64(3), v=np.array([0, 1], np.float32))
mixing("s = Shape<start=0,end=1>(x)\n y = OneHot(x,s,v)", inputs=INTS, v=np.array([0, 1], np.float32))
mixing("""s = Shape(x)\n k = Gather(s,i)\n r = Range(zero,k,one)\n y = OneHot(r,d,v)""", inputs=INTS, i=np.int64(0), d=np.int64(9),
       v=np.array([0, 1], np.float32), **NUMBERS)  # fmt: skip
honest("y = Gather(w,x)", inputs=INTS, w=weights(2, 3))
honest("y = Gather<axis=1>(x,i)", i=[2, 0])
mixing("y = Gather(x,i)", i=[0])
mixing("y = Gather(x,i)", i=np.int64(-1))
mixing("y = Gather(w,x)", inputs="int64[n] x, float[n,4] w")
honest("y = GatherElements<axis=1>(w,x)", inputs="int64[n,2] x, float[n,2] w")
mixing("y = GatherElements<axis=0>(w,x)", inputs="int64[n,2] x, float[n,2] w")
mixing("y = GatherElements<axis=1>(x,i)", inputs="float[n,4] x", i=[[0], [1], [2]])
honest("y = GatherND(w,x)", inputs="int64[n,2] x", w=weights(2, 2, 3))
honest("y = GatherND<batch_dims=1>(w,x)", inputs="int64[n,3,1] x, float[n,4] w")
mixing("y = GatherND(w,x)", inputs="int64[n,1] x, float[n,4] w")
PICK = "s = Shape(x)\n k = Gather(s,i)\n r = Range(zero,k,one)\n u = Unsqueeze(r,a)\n"
honest(
    PICK + "p = Concat<axis=1>(u,l)\n y = GatherND(x,p)",
    inputs="float[n,4] x, int64[n,1] l",
    i=np.int64(0),
    a=[1],
    **NUMBERS,
)
mixing(
    PICK + "p = Concat<axis=1>(l,u)\n y = GatherND(x,p)",
    inputs="float[n,4] x, int64[n,1] l",
    i=np.int64(0),
    a=[1],
    **NUMBERS,
)
mixing(PICK + "f = Cast<to=1>(u)\n y = Concat<axis=1>(x,f)", inputs=TABLE, i=np.int64(0), a=[1], **NUMBERS)
ROWS3 = "float[n,4] x, int64[n,2] i, float[n,2] u"
honest("y = ScatterElements<axis=1>(x,i,u)", inputs=ROWS3)
mixing("y = ScatterElements<axis=0>(x,i,u)", inputs=ROWS3)
mixing("y = ScatterElements<axis=1>(w,i,u)", inputs="int64[n,2] i, float[n,2] u", w=weights(9, 4))
honest("y = Scatter<axis=1>(x,i,u)", inputs=ROWS3, opset=9, domains="")
mixing("y = Scatter<axis=0>(x,i,u)", inputs=ROWS3, opset=9, domains="")
mixing("y = ScatterND(x,i,u)", inputs=TABLE, i=[[0]], u=weights(1, 5))
mixing("y = ScatterND(w,i,u)", inputs="int64[n,1] i, float[n,4] u", w=weights(9, 4))
honest("t = Transpose<perm=[1,0,2]>(x)\n u = Slice(t,a,b)\n v = Neg(u)\n w = ScatterND(t,i,v)\n y = Transpose<perm=[1,0,2]>(w)",
       a=[0], b=[1], i=[[2]])  # fmt: skip

# --- recurrent networks, attention ---------------------------------------------------------------------------------
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    W = {"w": weights(1, gates * 2, 3), "r": weights(1, gates * 2, 2)}
    honest(
        f"t = Transpose<perm=[1,0,2]>(x)\n v, h = {op}<hidden_size=2>(t,w,r)\n y = Squeeze(h,a)",
        inputs="float[n,5,3] x",
        a=[0],
        **W,
    )
    honest(f"t = Transpose<perm=[1,0,2]>(x)\n v = {op}<hidden_size=2>(t,w,r)\n s = Squeeze(v,a)\n y = Transpose<perm=[1,0,2]>(s)",
           inputs="float[n,5,3] x", a=[1], **W)  # fmt: skip
    mixing(
        f"v, h = {op}<hidden_size=2>(x,w,r)\n s = Squeeze(v,a)\n y = Identity(s)", inputs="float[n,5,3] x", a=[1], **W
    )
    mixing(f"t = Transpose<perm=[1,0,2]>(x)\n v, h = {op}<hidden_size=2>(t,w,r,,,s)\n y = Squeeze(h,a)", inputs="float[n,5,3] x",
           a=[0], s=weights(1, 3, 2), **W)  # fmt: skip
honest("y = Attention<q_num_heads=2,kv_num_heads=2>(x,x,x)", opset=23, domains="")
honest("y = Attention<q_num_heads=2,kv_num_heads=2>(x,x,x,m)", opset=23, domains="", m=weights(4, 4))
mixing("t = Transpose<perm=[1,0,2]>(x)\n y = Attention<q_num_heads=2,kv_num_heads=2>(t,t,t)", opset=23, domains="")
mixing("y = Attention<q_num_heads=2,kv_num_heads=2>(x,x,x,m)", opset=23, domains="", m=weights(3, 1, 4, 4))
honest("y = com.microsoft.MultiHeadAttention<num_heads=2>(x,x,x)")
mixing(
    "t = Transpose<perm=[1,0,2]>(x)\n a = com.microsoft.MultiHeadAttention<num_heads=2>(t,t,t)\n y = Transpose<perm=[1,0,2]>(a)"
)
honest("y = com.microsoft.Attention<num_heads=2>(x,w,b)", w=weights(6, 18), b=weights(18))
mixing("t = Transpose<perm=[1,0,2]>(x)\n a = com.microsoft.Attention<num_heads=2>(t,w,b)\n y = Transpose<perm=[1,0,2]>(a)",
       w=weights(6, 18), b=weights(18))  # fmt: skip

# --- classical machine learning ------------------------------------------------------------------------------------
TREE = ("nodes_treeids=[0,0,0],nodes_nodeids=[0,1,2],nodes_featureids=[1,0,0],nodes_values=[0.5,0.0,0.0],"
        'nodes_modes=["BRANCH_LEQ","LEAF","LEAF"],nodes_truenodeids=[1,0,0],nodes_falsenodeids=[2,0,0]')  # fmt: skip
ESTIMATORS = {
    "Scaler": "offset=[1.0,1.0,1.0,1.0,1.0],scale=[2.0,2.0,2.0,2.0,2.0]",
    "Normalizer": 'norm="L2"',
    "Imputer": "imputed_value_floats=[1.0],replaced_value_float=0.0",
    "LinearRegressor": "coefficients=[1.0,2.0,3.0,4.0,5.0],intercepts=[1.0],targets=1",
    "TreeEnsembleRegressor": TREE + ",n_targets=1,target_treeids=[0,0],target_nodeids=[1,2],target_ids=[0,0],target_weights=[1.0,2.0]",
    "SVMRegressor": "coefficients=[1.0,-1.0],support_vectors=[1.0,2.0,3.0,4.0,5.0,5.0,4.0,3.0,2.0,1.0],rho=[0.5],n_supports=2,"
                    'kernel_type="RBF",kernel_params=[0.1,0.0,0.0]',
}  # fmt: skip
for op, attributes in ESTIMATORS.items():
    honest(f"y = ai.onnx.ml.{op}<{attributes}>(x)", inputs=TABLE)
    mixing(f"m = ReduceMax<keepdims=1>(x,a)\n s = Sub(x,m)\n y = ai.onnx.ml.{op}<{attributes}>(s)", inputs=TABLE, a=[0])
for op in ("Scaler", "Normalizer", "Imputer"):
    attributes = {
        "Scaler": "offset=[1.0],scale=[2.0]",
        "Normalizer": 'norm="L2"',
        "Imputer": "imputed_value_floats=[1.0]",
    }[op]
    mixing(f"y = ai.onnx.ml.{op}<{attributes}>(x)", inputs="float[n] x")
    mixing(f"t = Transpose<perm=[1,0,2]>(x)\n s = ai.onnx.ml.{op}<{attributes}>(t)\n y = Transpose<perm=[1,0,2]>(s)")
CLASSIFIERS = {
    "LinearClassifier": "coefficients=[1.0,2.0,3.0,4.0,5.0,5.0,4.0,3.0,2.0,1.0],intercepts=[1.0,0.0],classlabels_ints=[0,1]",
    "TreeEnsembleClassifier": TREE + ",class_treeids=[0,0],class_nodeids=[1,2],class_ids=[0,1],class_weights=[1.0,1.0],"
                              "classlabels_int64s=[0,1]",
    "SVMClassifier": "coefficients=[1.0,-1.0],support_vectors=[1.0,2.0,3.0,4.0,5.0,5.0,4.0,3.0,2.0,1.0],rho=[0.5],"
                     'vectors_per_class=[1,1],kernel_type="RBF",kernel_params=[0.1,0.0,0.0],classlabels_ints=[0,1]',
}  # fmt: skip
for op, attributes in CLASSIFIERS.items():
    honest(f"l, y = ai.onnx.ml.{op}<{attributes}>(x)", inputs=TABLE)
    honest(f"y, s = ai.onnx.ml.{op}<{attributes}>(x)", inputs=TABLE, output="int64[n] y")
    mixing(
        f"m = ReduceMax<keepdims=1>(x,a)\n z = Sub(x,m)\n l, y = ai.onnx.ml.{op}<{attributes}>(z)", inputs=TABLE, a=[0]
    )
NEW_TREE = ('nodes_featureids=[1],nodes_splits = double[1] {0.5},nodes_modes = uint8[1] {0},nodes_truenodeids=[0],nodes_trueleafs=[1],'
            "nodes_falsenodeids=[1],nodes_falseleafs=[1],leaf_targetids=[0,0],leaf_weights = double[2] {1,2},n_targets=1,tree_roots=[0]")  # fmt: skip
honest(
    f"y = ai.onnx.ml.TreeEnsemble<{NEW_TREE}>(x)",
    inputs="double[n,5] x",
    output="double[n] y",
    domains='"ai.onnx.ml" : 5',
)
mixing(f"m = ReduceMax<keepdims=1>(x,a)\n s = Sub(x,m)\n y = ai.onnx.ml.TreeEnsemble<{NEW_TREE}>(s)", inputs="double[n,5] x",
       output="double[n] y", domains='"ai.onnx.ml" : 5', a=[0])  # fmt: skip
honest("y = ai.onnx.ml.ArrayFeatureExtractor(x,i)", inputs=TABLE, i=[1, 3])
honest("r = ai.onnx.ml.ArrayFeatureExtractor(w,x)\n y = Reshape(r,s)", inputs="int64[n] x", w=weights(1, 4), s=[-1])
mixing("t = Transpose(x)\n r = ai.onnx.ml.ArrayFeatureExtractor(t,i)\n y = Transpose(r)", inputs=TABLE, i=[0])
mixing("y = ai.onnx.ml.ArrayFeatureExtractor(x,i)", inputs="float[n] x", i=[0])
