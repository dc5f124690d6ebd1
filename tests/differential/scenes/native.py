"""Our own protocol, unary: valid requests, and requests with one mistake each."""

from __future__ import annotations

import grpc
import numpy as np
from differential.models import DTYPES
from differential.requests import PREDICT, Array, native, native_predict, native_tensor, rows
from differential.scene import Notes

ANSWER = native_predict.PredictResponse


def typed(dtype: str) -> Array:
    """Two rows of an element type."""
    if dtype == "STRING":
        return np.array([[b"", b"a"], [b"\xff\x00", "ä€".encode()]], object)
    if dtype == "BOOL":
        return np.array([[True, False], [False, False]])
    if dtype == "BF16":
        return np.array([[0x3F80, 0xBF80], [0x7FC0, 0x0000]], np.uint16)  # 1, -1, not a number, 0
    kind = np.dtype({"FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(dtype, dtype.lower()))
    if kind.kind == "f":
        return np.array([[1.5, -2.25], [np.inf, np.nan]], kind)
    return np.array([[0, 1], [np.iinfo(kind).max, np.iinfo(kind).min]], kind)


def request_of(dtype: str) -> native_predict.PredictRequest:
    """A request to the model of this element type."""
    request = native(f"kind_{dtype.lower()}", {"in": typed(dtype)})
    request.inputs[0].dtype = native_tensor.DataType.Value(f"DATA_TYPE_{dtype}")
    return request


def good() -> dict[str, native_predict.PredictRequest]:
    """Valid requests by name."""
    x = {"x": rows(1, 2)}
    factor = {"x": rows(5), "factor": np.array(3, np.int32)}
    return {
        **{f"type {dtype}": request_of(dtype) for dtype in DTYPES},
        "newest": native("rows", x),
        "version": native("rows", x, version=1),
        "label": native("rows", x, label="stable"),
        "other label": native("rows", x, label="canary"),
        "signature": native("rows", x, signature="serving_default"),
        "other signature": native("several", x, signature="other"),
        "one output": native("rows", x, outputs=["y"]),
        "outputs in another order": native("rows", x, outputs=["y", "z"]),
        "id": native("rows", x, request_id="request-17"),
        "id in other letters": native("rows", x, request_id="ä€\n" + "x" * 300),
        "priority": native("rows", x, priority=5),
        "queue timeout": native("rows", x, queue_timeout_us=30_000_000),
        "no rows": native("rows", {"x": np.zeros((0, 4), np.float32)}),
        "one row": native("rows", {"x": rows(7)}),
        "as many rows as a batch": native("rows", {"x": rows(*range(8))}),
        "more than a batch": native("proven", {"x": rows(*range(40))}),
        "split in four": native("proven", {"x": rows(*range(100))}),
        "rows that mix": native("mixing", {"x": rows(1, 2, 3)}),
        "scalar": native("scalar", factor),
        "inputs in another order": native("scalar", dict(reversed(factor.items()))),
        "free": native("free", {"in": np.ones((2, 1, 3), np.float32)}),
        "free scalar": native("free", {"in": np.float32(4).reshape(())}),
        "optional given": native("optional", {"x": rows(1, 2), "w": np.array([8, 9])}, outputs=["v", "y"]),
        "optional left out": native("optional", x, outputs=["y"]),
        "first count": native("counting", x),
        "second count": native("counting", x),
        "ensemble": native("chain", x),
        "ensemble, one output": native("chain", x, outputs=["aside"]),
        "onnx": native("onnx", x),
        "digits": native("digits_onnx", {"image": np.full((3, 64), 0.5, np.float32)}),
        "not finite": native("rows", {"x": np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)}),
    }


def bad() -> dict[str, native_predict.PredictRequest]:
    """Requests by name that are refused or fail."""
    x = {"x": rows(1, 2)}
    no_model = native("rows", x)
    no_model.ClearField("model")
    cases = {
        "no model": no_model,
        "empty name": native("", x),
        "unknown model": native("row", x),
        "unknown model, long name": native("r" * 5000, x),
        "unknown version": native("rows", x, version=9),
        "version zero": native("rows", x, version=0),
        "negative version": native("rows", x, version=-1),
        "unknown label": native("rows", x, label="stabel"),
        "empty label": native("rows", x, label=""),
        "unknown signature": native("several", x, signature="clases"),
        "failed model": native("failing", x),
        "failed version": native("failing", x, version=3),
        "model with bad settings": native("misread", x),
        "model with a bad option": native("optioned", x),
        "model of nothing": native("nothing", x),
        "ensemble without its step": native("headless", x),
        "unknown input": native("rows", {**x, "w": rows(1)}),
        "misspelt input": native("rows", {"X": rows(1)}),
        "no inputs": native("rows", {}),
        "missing input": native("scalar", x),
        "unknown output": native("rows", x, outputs=["yy"]),
        "output twice": native("rows", x, outputs=["y", "y"]),
        "output of an input left out": native("optional", x),
        "rank too small": native("rows", {"x": np.ones(4, np.float32)}),
        "rank too large": native("rows", {"x": np.ones((1, 1, 4), np.float32)}),
        "width": native("rows", {"x": np.ones((2, 5), np.float32)}),
        "type": native("rows", {"x": np.ones((2, 4), np.float64)}),
        "strings for numbers": native("rows", {"x": np.array([[b"a"] * 4], object)}),
        "scalar with an axis": native("scalar", {"x": rows(1), "factor": np.array([3], np.int32)}),
        "rows that differ": native("optional", {"x": rows(1, 2), "w": np.array([1, 2, 3])}),
        "signature without batch": native("several", x, signature="classes"),
        "more rows than a batch may hold": native("rows", {"x": rows(*range(20))}),
        "more rows than a step may hold": native("chain", {"x": rows(*range(20))}),
        "ensemble refuses": native("chain", {"x": np.ones((2, 5), np.float32)}),
    }
    for name, change in _CHANGES.items():
        request = native("rows", x)
        change(request)
        cases[name] = request
    twice = native("rows", x)
    twice.inputs.append(twice.inputs[0])
    odd = request_of("BOOL")
    odd.inputs[0].data = b"\x00\x01\x02\x01"
    cut = request_of("STRING")
    cut.inputs[0].data = cut.inputs[0].data[:-1]
    over = request_of("STRING")
    over.inputs[0].data = b"\xff\xff\xff\x7f" + over.inputs[0].data[4:]
    return {**cases, "input twice": twice, "byte that is no bool": odd, "string cut": cut, "string too long": over}


def _set(**fields: object):  # type: ignore[no-untyped-def]
    def change(request: native_predict.PredictRequest) -> None:
        tensor = request.inputs[0]
        for key, value in fields.items():
            tensor.ClearField(key)
            if key == "shape":
                tensor.shape.extend(value)
            else:
                setattr(tensor, key, value)

    return change


_CHANGES = {
    "no data": _set(data=b""),
    "data too short": _set(data=b"\0" * 31),
    "data too long": _set(data=b"\0" * 33),
    "no shape": _set(shape=[]),
    "negative size": _set(shape=[-1, 4]),
    "huge size": _set(shape=[2**62, 4]),
    "sizes that overflow": _set(shape=[2**40, 2**40]),
    "no type": _set(dtype=0),
    "unknown type": _set(dtype=99),
    "no name": _set(name=""),
    "long name": _set(name="x" * 3000),
}

MARKS = {
    "refuses": -9001, "breaks": -9002, "raises": -9003, "too many rows": -9004, "output missing": -9005,
    "other type": -9006, "output too many": -9007, "not finite": -9008, "rank": -9010, "leaves": -9011,
}  # fmt: skip


def play(notes: Notes) -> None:
    """Sends the requests one after the other, the valid ones three times: a known form may take another path."""
    side = notes.side
    requests = good()
    for turn in ("first", "again", "third"):
        for name, request in requests.items():
            notes.see(f"{name} ({turn})", side.ask(PREDICT, request, ANSWER))
    for turn in ("first", "again"):
        for name, request in bad().items():
            notes.see(f"{name} ({turn})", side.ask(PREDICT, request, ANSWER))
        for model in ("rows", "proven", "mixing"):
            for name, mark in MARKS.items():
                request = native(model, {"x": rows(1, mark)})
                notes.see(f"{model} {name} ({turn})", side.ask(PREDICT, request, ANSWER))


def play_calls(notes: Notes) -> None:
    """Metadata, compression, size, deadline, malformed messages and unknown methods."""
    side = notes.side
    request = native("rows", {"x": rows(1, 2)})
    data = request.SerializeToString()
    for name, metadata in {
        "id": [("x-request-id", "from-metadata")],
        "two ids": [("x-request-id", "one"), ("x-request-id", "two")],
        "long id": [("x-request-id", "i" * 1000)],
        "priority": [("inferd-priority", "3")],
        "priority that is no number": [("inferd-priority", "high")],
        "trace": [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        "bad trace": [("traceparent", "00-xyz")],
        "token nobody asked for": [("authorization", "Bearer something")],
        "binary": [("something-bin", b"\xff\x00")],
        "too much": [("x-much", "m" * 20_000)],
        "forwarded": [("x-forwarded-for", "10.0.0.1")],
    }.items():
        notes.see(f"metadata: {name}", side.ask(PREDICT, request, ANSWER, metadata))
    for name, compression in (("gzip", grpc.Compression.Gzip), ("deflate", grpc.Compression.Deflate)):
        notes.see(name, side.ask(PREDICT, request, ANSWER, compression=compression))
        large = native("proven", {"x": rows(*range(2000))})
        notes.see(f"{name}, large", side.ask(PREDICT, large, ANSWER, compression=compression))
    for name, body in {
        "nothing": b"",
        "one byte": b"\x08",
        "garbage": bytes(range(256)) * 3,
        "cut": data[:-3],
        "longer than said": data[:10] + b"\xff\xff\xff\xff\x7f" + data[10:],
        "twice": data + data,
        "unknown field": data + b"\xfa\x3f\x03abc",
        "field of another kind": data + b"\x08\x01",
        "name not utf-8": data.replace(b"rows", b"r\xff\xfes"),
        "varint too long": data + b"\x28" + b"\xff" * 11,
        "group": data + b"\x3b\x3c",
        "field zero": data + b"\x00\x00",
    }.items():
        notes.see(f"message: {name}", side.ask(PREDICT, body, ANSWER))
    for method in (
        "/inferd.v1.PredictService/Predikt",
        "/inferd.v2.PredictService/Predict",
        "/",
        "/nothing",
        "/inferd.v1.PredictService/PredictStream",
    ):
        notes.see(f"method {method}", side.ask(method, request, ANSWER))
    large = native("rows", {"x": np.zeros((5 * 2**18, 4), np.float32)})
    notes.see("too large", side.ask(PREDICT, large, ANSWER))
    notes.see("generous deadline", side.ask(PREDICT, request, ANSWER, timeout=50.0))
    notes.see("no deadline", side.ask(PREDICT, request, ANSWER, timeout=None))
