"""Loops: as cases_adversaries. In TURNS rows stay apart in every turn, in MIXERS they meet in some turn."""

from __future__ import annotations

from typing import Any

import numpy as np

Case = tuple[str, dict[str, Any]]
T = "float[n,5] x"
SEQUENCE = "float[n,3,5] x"
NUM = {"three": np.int64(3), "yes": np.array(True), "zero": np.int64(0), "one": np.int64(1), "a0": [0], "a1": [1]}
W = np.random.default_rng(2).normal(size=(5, 5)).astype(np.float32)
COUNT = "s = Shape<start=0,end=1>(x)\n k = Squeeze(s)\n "
TWO = "float[n,5] q, float[1,5] r"


def loop(body: str, carried: str = "float[n,5] q", start: str = "x", count: str = "three", given: str = "yes",
         added: str = "") -> str:  # fmt: skip
    """y is what is carried first. The body gets i, c and what is carried, and makes c2 and the names with a 2 behind.
    `added`: the type and name of what every turn adds; then y is made of that, in a."""
    names = [item.split()[-1] for item in carried.split(", ")]
    ends = ", ".join(f"{item}2" for item in carried.split(", "))
    ends += f", {added}" if added else ""
    results = ", ".join(["y" if number == 0 and not added else f"o{number}" for number in range(len(names))])
    results += ", a" if added else ""
    condition = "" if "c2 =" in body else "c2 = Identity(c)\n "
    return (
        f"{results} = Loop<body = b (int64 i, bool c, {carried}) => (bool c2, {ends}) {{ {condition}{body} }}>"
        f"({count},{given},{start})"
    )


def scan(body: str, inputs: str, outputs: str, given: str, results: str, settings: str) -> str:
    return f"{results} = Scan<num_scan_inputs=1,{settings}body = b ({inputs}) => ({outputs}) {{ {body} }}>({given})"


TURNS: dict[str, Case] = {
    "a layer is applied three times": (loop("m = MatMul(q,w)\n q2 = Tanh(m)"), {"inputs": T, "w": W, **NUM}),
    "a recurrent network over time": (
        "t = Transpose<perm=[1,0,2]>(x)\n s = Shape<start=0,end=1>(x)\n f = Constant<value_ints=[5]>()\n "
        "d = Concat<axis=0>(s,f)\n e = Expand(z,d)\n "
        + loop("g = Gather<axis=0>(t,i)\n m = MatMul(q,w)\n p = Add(g,m)\n q2 = Tanh(p)", start="e"),
        {"inputs": SEQUENCE, "w": W, "z": np.float32(0), **NUM},
    ),
    "every step of a recurrent network": (
        "t = Transpose<perm=[1,0,2]>(x)\n v = Gather<axis=1>(x,zero)\n "
        + loop("g = Gather<axis=0>(t,i)\n q2 = Add(q,g)\n h = Identity(q2)", start="v", added="float[n,5] h")
        + "\n y = Transpose<perm=[1,0,2]>(a)",
        {"inputs": SEQUENCE, "w": W, **NUM},
    ),
    "the turn's number is the same for all rows": (
        loop("f = Cast<to=1>(i)\n q2 = Add(q,f)"), {"inputs": T, **NUM},
    ),
    "a counter is carried": (
        loop("k2 = Add(k,one)\n f = Cast<to=1>(k)\n q2 = Mul(q,f)", "float[n,5] q, int64 k", "x,one"), {"inputs": T, **NUM},
    ),
    "until the counter says so": (
        loop("c2 = Less(i,one)\n q2 = Add(q,q)"), {"inputs": T, **NUM},
    ),
    "as often as the sequence is long": (
        "l = Shape<start=1,end=2>(x)\n k = Squeeze(l)\n "
        + loop("q2 = Softmax<axis=2>(q)", "float[n,t,5] q", count="k"), {"inputs": "float[n,t,5] x", **NUM},
    ),
    "a loop in a loop": (
        loop(
            "p = Loop<body = d (int64 j, bool e, float[n,5] r) => (bool e2, float[n,5] r2)"
            "{ e2 = Identity(e)\n r2 = Softmax<axis=1>(r) }>(three,c,q)\n q2 = Neg(p)"
        ),
        {"inputs": T, **NUM},
    ),
    "scan over time": (
        "z = ReduceSum<keepdims=0>(x,a1)\n o = Neg(z)\n "
        + scan("q2 = Add(q,g)\n h = Relu(q2)", "float[n,5] q, float[n,5] g", "float[n,5] q2, float[n,5] h", "o,x", "e, y",
               "scan_input_axes=[1],scan_output_axes=[1],"),
        {"inputs": SEQUENCE, **NUM},
    ),
    "distances to constant rows": (
        scan("q2 = Identity(q)\n d = Sub(q,g)\n h = ReduceSumSquare<keepdims=0>(d,a1)", "float[n,5] q, float[5] g",
             "float[n,5] q2, float[n] h", "x,w", "e, a", "") + "\n y = Transpose(a)",
        {"inputs": T, "w": W, **NUM},
    ),
}  # fmt: skip

MIXERS: dict[str, Case] = {
    "as often as there are rows": (COUNT + loop("q2 = Neg(q)", count="k"), {"inputs": T, **NUM}),
    "as often as the rows say": (
        "m = ReduceMax<keepdims=0>(x)\n k = Cast<to=7>(m)\n " + loop("q2 = Neg(q)", count="k"), {"inputs": T, **NUM},
    ),
    "until all have converged": (
        loop("q2 = Mul(q,h)\n m = ReduceMax<keepdims=0>(q2)\n c2 = Greater(m,o)"),
        {"inputs": T, "h": np.float32(0.5), "o": np.float32(0.1), **NUM},
    ),
    "until the turns are as many as the rows": (
        COUNT + loop("c2 = Less(i,k)\n q2 = Neg(q)"), {"inputs": T, **NUM},
    ),
    "not at all if one is negative": (
        "m = ReduceMin<keepdims=0>(x)\n p = Greater(m,o)\n " + loop("q2 = Neg(q)", given="p"),
        {"inputs": T, "o": np.float32(0), **NUM},
    ),
    "every turn subtracts the batch's mean": (
        loop("m = ReduceMean<keepdims=1>(q,a0)\n q2 = Sub(q,m)"), {"inputs": T, **NUM},
    ),
    "the largest row comes in with the second turn": (
        loop("q2 = Sub(q,r)\n j = Constant<value_ints=[0]>()\n r2 = ReduceMax<keepdims=1>(q,j)", TWO, "x,r0"),
        {"inputs": T, "r0": np.zeros((1, 5), np.float32), **NUM},
    ),
    "the largest row comes in with the third turn": (
        loop("q2 = Sub(q,r)\n r2 = Identity(u)\n j = Constant<value_ints=[0]>()\n u2 = ReduceMax<keepdims=1>(q,j)",
             TWO + ", float[1,5] u", "x,r0,r0"),
        {"inputs": T, "r0": np.zeros((1, 5), np.float32), **NUM},
    ),
    "rows add up from turn to turn": (loop("q2 = CumSum(q,zero)"), {"inputs": T, **NUM}),
    "a turn adds the row of its number": (
        loop("g = Gather<axis=0>(x,i)\n q2 = Add(q,g)"), {"inputs": T, **NUM},
    ),
    "the batch is turned over": (loop("q2 = Transpose(q)", "float[n,n2] q"), {"inputs": "float[n,n2] x", **NUM}),
    "the batch becomes longer": (loop("q2 = Concat<axis=0>(q,q)"), {"inputs": T, **NUM}),
    "the number of rows is carried as data": (
        COUNT + "f = Cast<to=1>(k)\n " + loop("r2 = Identity(r)\n q2 = Add(q,r)", "float[n,5] q, float r", "x,f"),
        {"inputs": T, **NUM},
    ),
    "the number of rows is counted up": (
        COUNT + loop("v2 = Add(v,one)\n f = Cast<to=1>(v2)\n q2 = Add(q,f)", "float[n,5] q, int64 v", "x,k"), {"inputs": T, **NUM},
    ),
    "every turn is random": (
        loop("r = RandomNormalLike(q)\n q2 = Add(q,r)"), {"inputs": T, **NUM},
    ),
    "an outer value that mixes": (
        "m = ReduceMax<keepdims=0>(x)\n " + loop("q2 = Sub(q,m)"), {"inputs": T, **NUM},
    ),
    "what every turn adds has the batch second": (
        loop("q2 = Neg(q)\n h = Relu(q)", added="float[n,5] h") + "\n y = Relu(a)", {"inputs": T, **NUM},
    ),
    "scan over the rows": (
        scan("q2 = Add(q,g)\n h = Identity(q2)", "float[5] q, float[5] g", "float[5] q2, float[5] h", "z,x", "e, y", ""),
        {"inputs": T, "z": np.zeros(5, np.float32), **NUM},
    ),
    "scan over the rows, with the batch last": (
        "t = Transpose(x)\n "
        + scan("q2 = Add(q,g)\n h = Identity(q2)", "float[5] q, float[5] g", "float[5] q2, float[5] h", "z,t", "e, y",
               "scan_input_axes=[1],"),
        {"inputs": T, "z": np.zeros(5, np.float32), **NUM},
    ),
    "scan over time that mixes rows": (
        "z = ReduceSum<keepdims=0>(x,a1)\n "
        + scan("m = ReduceMax<keepdims=0>(g)\n q2 = Sub(q,m)\n h = Relu(q2)", "float[n,5] q, float[n,5] g",
               "float[n,5] q2, float[n,5] h", "z,x", "e, y", "scan_input_axes=[1],scan_output_axes=[1],"),
        {"inputs": SEQUENCE, **NUM},
    ),
    "a loop in a loop mixes rows": (
        loop(
            "p = Loop<body = d (int64 j, bool e, float[n,5] r) => (bool e2, float[n,5] r2)"
            "{ e2 = Identity(e)\n r2 = Softmax<axis=0>(r) }>(three,c,q)\n q2 = Neg(p)"
        ),
        {"inputs": T, **NUM},
    ),
}  # fmt: skip
