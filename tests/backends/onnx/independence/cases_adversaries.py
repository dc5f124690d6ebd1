"""Whole graphs that mix rows in ways that models do, or that somebody might try. None may be accepted.

TWINS are graphs that look alike and do not mix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Case = tuple[str, dict[str, Any]]
rng = np.random.default_rng(1)


def w(*shape: int) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(np.float32)


T = "float[n,5] x"
IDS = "int64[n,t] x"
NUM = {"zero": np.int64(0), "one": np.int64(1), "i0": np.int64(0)}
ROW = "s = Shape(x)\n k = Gather(s,i0)\n r = Range(zero,k,one)\n"  # the rows' numbers
COUNT = "s = Shape<start=0,end=1>(x)\n"
SWAP = "t = Transpose<perm=[1,0]>(x)\n"

ADVERSARIES: dict[str, Case] = {
    # reductions
    "scale by the largest pixel": (
        "m = ReduceMax<keepdims=0>(x)\n c = Greater(m,o)\n d = Div(x,h)\n z = Where(c,d,x)\n y = MatMul(z,w)",
        {"inputs": T, "o": np.float32(1), "h": np.float32(255), "w": w(5, 2)},
    ),
    "subtract the batch's mean": ("m = ReduceMean<keepdims=1>(x,a)\n y = Sub(x,m)", {"inputs": T, "a": [0]}),
    "NaN anywhere clears all": (
        "n = IsNaN(x)\n f = Cast<to=1>(n)\n m = ReduceMax<keepdims=0>(f)\n c = Cast<to=9>(m)\n y = Where(c,z,x)",
        {"inputs": T, "z": np.float32(0)},
    ),
    "all finite or nothing": (
        "z = Sub(x,x)\n f = ReduceSum<keepdims=0>(z)\n y = Add(x,f)", {"inputs": T},
    ),
    "norm of the flattened batch": (
        "f = Reshape(x,s)\n n = ReduceL2<keepdims=1>(f)\n y = Div(x,n)", {"inputs": T, "s": [-1]},
    ),
    "mean over transposed rows": (
        SWAP + "m = ReduceMean<keepdims=1>(t,a)\n u = Sub(t,m)\n y = Transpose<perm=[1,0]>(u)", {"inputs": T, "a": [1]},
    ),
    "mean over negative axis": ("m = ReduceMean<keepdims=1>(x,a)\n y = Sub(x,m)", {"inputs": T, "a": [-2]}),
    "argmax over the batch picks a row": ("i = ArgMax<axis=0,keepdims=0>(x)\n y = Gather(x,i)", {"inputs": T}),
    "largest row wins": (
        "r = ReduceSum<keepdims=0>(x,a)\n v, i = TopK(r,k)\n y = Gather(x,i)", {"inputs": T, "a": [1], "k": [1]},
    ),
    "mean by a matrix of ones": (
        COUNT + "q = Concat<axis=0>(s,s)\n o = ConstantOfShape<value = float[1] {1}>(q)\n m = MatMul(o,x)\n y = Sub(x,m)", {"inputs": T},
    ),
    "attention over the batch": (
        SWAP + "g = MatMul(x,t)\n p = Softmax(g)\n y = MatMul(p,x)", {"inputs": T},
    ),
    "attention over the batch by einsum": (
        'g = Einsum<equation="ij,kj->ik">(x,x)\n p = Softmax(g)\n y = Einsum<equation="ik,kj->ij">(p,x)', {"inputs": T},
    ),
    "covariance": (SWAP + "g = MatMul(t,x)\n y = MatMul(x,g)", {"inputs": T}),
    "convolution over time on axis 0": (
        "u = Unsqueeze(x,a)\n t = Transpose<perm=[1,2,0]>(u)\n c = Conv<pads=[1,1]>(t,k)\n v = Transpose<perm=[2,0,1]>(c)\n y = Squeeze(v,b)",
        {"inputs": T, "a": [0], "b": [1], "k": w(5, 5, 3)},
    ),
    "pooling over neighbours": (
        "u = Unsqueeze(x,a)\n t = Transpose<perm=[0,2,1]>(u)\n c = MaxPool<kernel_shape=[3],pads=[1,1]>(t)\n v = Transpose<perm=[0,2,1]>(c)\n"
        " y = Squeeze(v,a)", {"inputs": T, "a": [0]},
    ),
    # sorts, softmax, cumulative sums
    "sort the batch": (COUNT + "y, i = TopK<axis=0>(x,s)", {"inputs": T}),
    "rank within the batch": (COUNT + "v, i = TopK<axis=0>(x,s)\n y = Cast<to=1>(i)", {"inputs": T}),
    "softmax over the batch": ("y = Softmax<axis=0>(x)", {"inputs": T}),
    "softmax before 13 over a transposed batch": (
        "t = Transpose<perm=[1,0,2]>(x)\n s = Softmax<axis=1>(t)\n y = Transpose<perm=[1,0,2]>(s)", {"opset": 12, "domains": ""},
    ),
    "softmax of a vector of rows": ("y = Softmax(x)", {"inputs": "float[n] x"}),
    "softmax before 13 of a vector": ("y = Softmax<axis=0>(x)", {"inputs": "float[n] x", "opset": 11, "domains": ""}),
    "running sum": ("y = CumSum(x,a)", {"inputs": T, "a": np.int64(0)}),
    "running sum backwards": ("y = CumSum<reverse=1>(x,a)", {"inputs": T, "a": np.int64(-2)}),
    "running product by log": (
        "a = Abs(x)\n l = Log(a)\n c = CumSum(l,z)\n y = Exp(c)", {"inputs": T, "z": np.int64(0)},
    ),
    "lower triangle times rows": (
        SWAP + "g = MatMul(x,t)\n l = Trilu<upper=0>(g)\n y = MatMul(l,x)", {"inputs": T},
    ),
    # normalisation
    "batch normalisation in training mode": (
        "y, m, v = BatchNormalization<training_mode=1>(x,a,b,c,d)",
        {"inputs": T, "a": w(5), "b": w(5), "c": w(5), "d": np.abs(w(5))},
    ),
    "batch normalisation by hand": (
        "m = ReduceMean<keepdims=1>(x,a)\n c = Sub(x,m)\n q = Mul(c,c)\n v = ReduceMean<keepdims=1>(q,a)\n e = Add(v,o)\n s = Sqrt(e)\n"
        " y = Div(c,s)", {"inputs": T, "a": [0], "o": np.float32(1)},
    ),
    "mean-variance normalisation with its default axes": ("y = MeanVarianceNormalization(x)", {"inputs": "float[n,2,4,4] x"}),
    "layer normalisation from axis 0": ("y = LayerNormalization<axis=0>(x,g)", {"inputs": T, "g": w(1, 5)}),
    "instance normalisation of one image of rows": (
        "u = Unsqueeze(x,a)\n i = InstanceNormalization(u,g,b)\n y = Squeeze(i,a)",
        {"inputs": "float[n,5] x", "a": [0], "g": w(1), "b": w(1)},
    ),
    "local response over rows as channels": (
        "u = Unsqueeze(x,a)\n i = LRN<size=3>(u)\n y = Squeeze(i,a)", {"inputs": "float[n,4,4] x", "a": [0]},
    ),
    # reshapes, transposes, writes
    "reshape shifts rows": (SWAP + "s = Shape(x)\n y = Reshape(t,s)", {"inputs": T}),
    "two rows become one": ("r = Reshape(x,p)\n m = Softmax(r)\n s = Shape(x)\n y = Reshape(m,s)", {"inputs": "float[n,4] x", "p": [-1, 8]}),
    "interleave by reshape": (
        "r = Reshape(x,p)\n t = Transpose<perm=[1,0,2]>(r)\n s = Shape(x)\n y = Reshape(t,s)", {"inputs": "float[n,4] x", "p": [2, -1, 4]},
    ),
    "windows over the flattened batch": (
        "f = Reshape(x,p)\n c = MaxPool<kernel_shape=[3],pads=[1,1]>(f)\n s = Shape(x)\n y = Reshape(c,s)", {"inputs": T, "p": [1, 1, -1]},
    ),
    "rows in reverse order": ("y = Slice(x,a,b,c,d)", {"inputs": T, "a": [-1], "b": [-(2**63) + 1], "c": [0], "d": [-1]}),
    "roll by one row": (
        "l = Slice(x,m,e,z)\n f = Slice(x,z,m,z)\n y = Concat<axis=0>(l,f)", {"inputs": T, "m": [-1], "e": [2**40], "z": [0]},
    ),
    "last row overwrites the first": (
        "l = Slice(x,m,e,z)\n y = ScatterND(x,i,l)", {"inputs": T, "m": [-1], "e": [2**40], "z": [0], "i": [[0]]},
    ),
    "first row for all": ("f = Gather(x,i)\n s = Shape(x)\n y = Expand(f,s)", {"inputs": T, "i": np.int64(0)}),
    "compare with the first row": ("f = Slice(x,z,o,z)\n y = Sub(x,f)", {"inputs": T, "z": [0], "o": [1]}),
    "difference to the row before": (
        "p = Pad(x,q)\n s = Shape(x)\n b = Slice(p,z,s)\n y = Sub(x,b)", {"inputs": T, "q": [1, 0, 0, 0], "z": [0, 0]},
    ),
    "split and swap halves": ("a, b = Split<axis=0,num_outputs=2>(x)\n y = Concat<axis=0>(b,a)", {"inputs": T}),
    "squeeze without axes": ("u = Squeeze(x)\n y = Softmax(u)", {"inputs": "float[n,1] x"}),
    "space to depth over rows": (
        "u = Unsqueeze(x,a)\n d = SpaceToDepth<blocksize=2>(u)\n f = DepthToSpace<blocksize=2,mode=\"CRD\">(d)\n y = Squeeze(f,a)",
        {"inputs": "float[n,4,4] x", "a": [0]},
    ),
    "resize the batch axis": (
        'y = Resize<mode="nearest">(x,,s)', {"inputs": T, "s": np.array([0.5, 1], np.float32)},
    ),
    # gather, scatter, row numbers
    "sort rows by their score": (
        COUNT + "c = ReduceSum<keepdims=0>(x,a)\n v, i = TopK(c,s)\n y = Gather(x,i)", {"inputs": T, "a": [1]},
    ),
    "a row points to another": ("i = Cast<to=7>(p)\n y = Gather(x,i)", {"inputs": "float[n,4] x, float[n] p"}),
    "gather elements over rows": ("y = GatherElements<axis=0>(x,i)", {"inputs": "float[n,4] x, int64[n,4] i"}),
    "scatter to a row by its data": ("y = ScatterElements<axis=0>(x,i,x)", {"inputs": "float[n,4] x, int64[n,4] i"}),
    "histogram of the batch": (
        "y = ScatterElements<axis=0,reduction=\"add\">(t,x,o)", {"inputs": "int64[n] x, float[n] o", "t": np.zeros(9, np.float32)},
    ),
    "add the row's number": (ROW + "f = Cast<to=1>(r)\n u = Unsqueeze(f,a)\n y = Add(x,u)", {"inputs": T, "a": [1], **NUM}),
    "position embedding on the batch axis": (ROW + "e = Gather(t,r)\n y = Add(x,e)", {"inputs": T, "t": w(99, 5), **NUM}),
    "the row's number by a running sum of ones": (
        COUNT + "o = ConstantOfShape<value = float[1] {1}>(s)\n c = CumSum(o,a)\n u = Unsqueeze(c,b)\n y = Mul(x,u)",
        {"inputs": T, "a": np.int64(0), "b": [1]},
    ),
    "the row's number by NonZero": (
        "o = ReduceMax<keepdims=0>(x,a)\n e = Equal(o,o)\n z = NonZero(e)\n f = Cast<to=1>(z)\n t = Transpose(f)\n y = Add(x,t)", {"inputs": T, "a": [1]},
    ),
    "the row's number in one byte picks a row": (ROW + "b = Cast<to=2>(r)\n i = Cast<to=7>(b)\n y = Gather(x,i)", {"inputs": T, **NUM}),
    "the next row": (ROW + "j = Add(r,one)\n m = Mod(j,k)\n y = Gather(x,m)", {"inputs": T, **NUM}),
    "rows by numbers of another length": (ROW + "d = Add(r,r)\n h = Div(d,one)\n y = Gather(x,h)", {"inputs": T, **NUM}),
    "one hot of the row's number": (
        ROW + "h = OneHot(r,d,v)\n y = Concat<axis=1>(x,h)", {"inputs": T, "d": np.int64(8), "v": np.array([0, 1], np.float32), **NUM},
    ),
    "identity matrix of rows": (
        ROW + "a = Unsqueeze(r,p)\n b = Unsqueeze(r,z)\n e = Equal(a,b)\n f = Cast<to=1>(e)\n y = MatMul(f,x)", {"inputs": T, "p": [1], "z": [0], **NUM},
    ),
    # the batch's size as data
    "divide by the number of rows": (COUNT + "f = Cast<to=1>(s)\n y = Div(x,f)", {"inputs": T}),
    "divide by the number of elements": ("z = Size(x)\n f = Cast<to=1>(z)\n y = Div(x,f)", {"inputs": T}),
    "the number of rows as a sum of ones": (
        COUNT + "o = ConstantOfShape<value = float[1] {1}>(s)\n k = ReduceSum<keepdims=0>(o)\n y = Mul(x,k)", {"inputs": T},
    ),
    "as wide as there are rows": (COUNT + "o = Concat<axis=0>(s,s)\n z = ConstantOfShape(o)\n y = Concat<axis=1>(x,z)", {"inputs": T}),
    "a slice as long as there are rows": (COUNT + "l = Slice(x,z,s,o)\n y = ReduceSum<keepdims=1>(l,o)", {"inputs": T, "z": [0], "o": [1]}),
    "a branch by the number of rows": (
        COUNT + "v = Squeeze(s)\n c = Greater(v,one)\n y = If<then_branch = a() => (float[n,5] p) { p = Neg(x) },"
        " else_branch = b() => (float[n,5] q) { q = Identity(x) }>(c)", {"inputs": T, **NUM},
    ),
    # control flow on values of the batch
    "a branch by the largest value": (
        "m = ReduceMax<keepdims=0>(x)\n c = Greater(m,o)\n y = If<then_branch = a() => (float[n,5] p) { p = Neg(x) },"
        " else_branch = b() => (float[n,5] q) { q = Identity(x) }>(c)", {"inputs": T, "o": np.float32(1)},
    ),
    "mixing in one branch": (
        "y = If<then_branch = a() => (float[n,5] p) { p = Softmax<axis=0>(x) }, else_branch = b() => (float[n,5] q) { q = Identity(x) }>(c)",
        {"inputs": "float[n,5] x, bool c"},
    ),
    "mixing in a branch that a constant chooses": (
        "y = If<then_branch = a() => (float[n,5] p) { p = Identity(x) }, else_branch = b() => (float[n,5] q) { q = Softmax<axis=0>(x) }>(c)",
        {"inputs": T, "c": np.array(False)},
    ),
    "a branch chosen by constants of floats": (
        "d = Greater(h,z)\n y = If<then_branch = a() => (float[n,5] p) { p = Softmax<axis=0>(x) },"
        " else_branch = b() => (float[n,5] q) { q = Identity(x) }>(d)", {"inputs": T, "h": np.float32(0.5), "z": np.float32(0)},
    ),
    # randomness, quantisation, whole-batch lists
    "noise": ("r = RandomNormalLike(x)\n y = Add(x,r)", {"inputs": T}),
    "noise of a constant": ("r = RandomUniform<shape=[1,5]>()\n y = Add(x,r)", {"inputs": T}),
    "dropout in training mode": ("y = Dropout(x,r,t)", {"inputs": T, "r": np.float32(0.5), "t": np.array(True)}),
    "sampling": ("y = Multinomial<sample_size=1>(x)", {"inputs": T, "output": "int32[n] y"}),
    "dynamic quantisation": (
        "q, s, z = DynamicQuantizeLinear(x)\n m = MatMulInteger(q,w,z)\n f = Cast<to=1>(m)\n y = Mul(f,s)",
        {"inputs": T, "w": np.ones((5, 2), np.uint8)},
    ),
    "dynamic quantisation by hand": (
        "a = Abs(x)\n m = ReduceMax<keepdims=0>(a)\n s = Div(m,k)\n q = QuantizeLinear(x,s,z)\n y = DequantizeLinear(q,s,z)",
        {"inputs": T, "k": np.float32(127), "z": np.int8(0)},
    ),
    "unique values": ("u, i, v, c = Unique<sorted=1>(x)\n y = Cast<to=1>(v)", {"inputs": "float[n] x"}),
    "rows above zero": ("m = ReduceMax<keepdims=0>(x,a)\n c = Greater(m,o)\n y = Compress<axis=0>(x,c)", {"inputs": T, "a": [1], "o": np.float32(0)}),
    "numbers of pooled elements": (
        "p, i = MaxPool<kernel_shape=[2,2]>(x)\n y = Cast<to=1>(i)", {"inputs": "float[n,2,4,4] x"},
    ),
    "padding to the longest": ('y, l = StringSplit<delimiter=" ">(x)', {"inputs": "string[n] x", "output": "string[n] y"}),
    # recurrence
    "batch-first data in a time-first LSTM": (
        "v, h, c = LSTM<hidden_size=2>(x,w,r)\n y = Squeeze(v,a)", {"inputs": "float[n,5,3] x", "w": w(1, 8, 3), "r": w(1, 8, 2), "a": [1]},
    ),
    "a recurrence over rows": (
        "u = Unsqueeze(x,a)\n v, h = RNN<hidden_size=5>(u,w,r)\n y = Squeeze(v,b)", {"inputs": T, "w": w(1, 5, 5), "r": w(1, 5, 5), "a": [1], "b": [1, 2]},
    ),
    "attention with the batch as sequence": (
        "u = Unsqueeze(x,a)\n t = Attention<q_num_heads=1,kv_num_heads=1>(u,u,u)\n y = Squeeze(t,a)",
        {"inputs": T, "a": [0], "opset": 23, "domains": ""},
    ),
    # what hides the mixing
    "in a function": (
        "y = my.mix(x)", {"inputs": T, "domains": '"my" : 1',
        "functions": '<domain: "my", opset_import: ["" : 20]> mix (a) => (b) { b = Softmax<axis=0>(a) }'},
    ),
    "in a function by its attribute": (
        "y = my.mix<k=0>(x)", {"inputs": T, "domains": '"my" : 1',
        "functions": '<domain: "my", opset_import: ["" : 20]> mix <k> (a) => (b) { b = Softmax<axis : int = @k>(a) }'},
    ),
    "a function in the name of an operator": (
        "y = Relu(x)", {"inputs": T, "domains": "",
        "functions": '<domain: "", opset_import: ["" : 20]> Relu (a) => (b) { b = Softmax<axis=0>(a) }'},
    ),
    "an operator of an unknown domain": ("y = acme.Scale(x)", {"inputs": T, "domains": '"acme" : 1'}),
    "a constant of three rows": ("y = Add(x,c)", {"inputs": T, "c": w(3, 1)}),
    "two inputs on different axes": ("y = Add(x,z)", {"inputs": "float[n,5] x, float[n] z"}),
    "an output that is a constant": ("z = Relu(x)\n y = Identity(c)", {"inputs": T, "c": w(3)}),
    "an output with rows on axis 1": ("y = Transpose(x)", {"inputs": T}),
    "an output of two rows for each": ("y = Reshape(x,s)", {"inputs": "float[n,4] x", "s": [-1, 2]}),
}  # fmt: skip

TWINS: dict[str, Case] = {
    "scale by the row's largest pixel": (
        "m = ReduceMax<keepdims=1>(x,a)\n c = Greater(m,o)\n d = Div(x,h)\n z = Where(c,d,x)\n y = MatMul(z,w)",
        {"inputs": T, "a": [1], "o": np.float32(1), "h": np.float32(255), "w": w(5, 2)},
    ),
    "attention within the row": (
        "t = Transpose<perm=[0,2,1]>(x)\n g = MatMul(x,t)\n p = Softmax(g)\n y = MatMul(p,x)", {},
    ),
    "running sum within the row": ("y = CumSum(x,a)", {"inputs": T, "a": np.int64(1)}),
    "flatten and back": (
        "s = Shape(x)\n f = Reshape(x,p)\n d = MatMul(f,w)\n y = Reshape(d,s)", {"p": [-1, 6], "w": w(6, 6)},
    ),
    "time first and back": (
        "t = Transpose<perm=[1,0,2]>(x)\n r = Reshape(t,p)\n d = MatMul(r,w)\n s = Shape(t)\n b = Reshape(d,s)\n y = Transpose<perm=[1,0,2]>(b)",
        {"p": [-1, 6], "w": w(6, 6)},
    ),
    "a class token for each row": (
        COUNT + "e = Concat<axis=0>(s,o)\n c = Expand(k,e)\n y = Concat<axis=1>(c,x)", {"k": w(1, 1, 6), "o": [1, 6]},
    ),
    "zeros as first state": (
        COUNT + "z = Concat<axis=0>(o,s,h)\n i = ConstantOfShape(z)\n t = Transpose<perm=[1,0,2]>(x)\n"
        " v, l, c = LSTM<hidden_size=2>(t,w,r,,,i,i)\n y = Squeeze(l,a)",
        {"inputs": "float[n,5,3] x", "o": [1], "h": [2], "a": [0], "w": w(1, 8, 3), "r": w(1, 8, 2)},
    ),
    "the row's own number picks it": (ROW + "y = Gather(x,r)", {"inputs": T, **NUM}),
    "quantisation with constant scales": (
        "q = QuantizeLinear(x,s,z)\n d = DequantizeLinear(q,s,z)\n y = MatMul(d,w)", {"inputs": T, "s": np.float32(0.1), "z": np.int8(0), "w": w(5, 2)},
    ),
    "a function": (
        "y = my.keep<k=1>(x)", {"inputs": T, "domains": '"my" : 1',
        "functions": '<domain: "my", opset_import: ["" : 20]> keep <k> (a) => (b) { b = Softmax<axis : int = @k>(a) }'},
    ),
    "a branch by a setting": (
        "y = If<then_branch = a() => (float[n,5] p) { p = Neg(x) }, else_branch = b() => (float[n,5] q) { q = Identity(x) }>(c)",
        {"inputs": "float[n,5] x, bool c"},
    ),
    "tokens, mask and positions of any length": (
        "e = Gather(w,x)\n s = Shape(x)\n t = Gather(s,i1)\n r = Range(zero,t,one)\n p = Gather(v,r)\n h = Add(e,p)\n u = Unsqueeze(m,a)\n"
        " f = Cast<to=1>(u)\n g = Mul(h,f)\n y = ReduceSum<keepdims=0>(g,o)",
        {"inputs": "int64[n,t] x, int64[n,t] m", "w": w(9, 4), "v": w(64, 4), "a": [2], "o": [1], "i1": np.int64(1), **NUM},
    ),
}  # fmt: skip
