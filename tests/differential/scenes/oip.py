"""The Open Inference Protocol, unary: valid requests, and requests with one mistake each."""

from __future__ import annotations

import numpy as np
from differential.models import DTYPES
from differential.requests import INFER, contents, oip, oip_infer, packed, parameter, rows
from differential.scene import Notes
from differential.scenes.native import MARKS, typed

ANSWER = oip_infer.ModelInferResponse
Request = oip_infer.ModelInferRequest


def of_type(dtype: str, *, raw: bool) -> Request:
    """A request to the model of this element type."""
    array = typed(dtype)
    name = {"STRING": "BYTES"}.get(dtype, dtype)
    request = Request(model_name=f"kind_{dtype.lower()}")
    tensor = request.inputs.add(name="in", datatype=name, shape=array.shape)
    if raw:
        request.raw_input_contents.append(packed(array))
    else:
        getattr(tensor.contents, contents(name)).extend(array.ravel().tolist())
    return request


def good() -> dict[str, Request]:
    """Valid requests by name."""
    x = {"x": rows(1, 2)}
    classes = {"inputs": np.array([b"one", b"three", b"seventeen"], object)}
    classified = oip("rows", x)
    classified.outputs.add(name="y").parameters["classification"].int64_param = 2
    return {
        **{f"type {dtype}": of_type(dtype, raw=True) for dtype in DTYPES},
        **{f"typed {dtype}": of_type(dtype, raw=False) for dtype in DTYPES if dtype not in ("FP16", "BF16")},
        "newest": oip("rows", x),
        "version": oip("rows", x, version="1"),
        "label as version": oip("rows", x, version="stable"),
        "one output": oip("rows", x, outputs=["y"]),
        "outputs in another order": oip("rows", x, outputs=["y", "z"]),
        "id": oip("rows", x, id="request-17"),
        "typed fields": oip("rows", x, raw=False),
        "priority": oip("rows", x, parameters={"priority": 3}),
        "timeout": oip("rows", x, parameters={"timeout": 30_000_000}),
        "own parameter": oip("rows", x, parameters={"mine": "yes", "more": 1.5, "flag": True}),
        "sequence of none": oip("rows", x, parameters={"sequence_id": 0, "sequence_start": True}),
        "empty final": oip("rows", x, parameters={"triton_enable_empty_final_response": True}),
        "binary output": _output("binary_data", True),
        "classification": classified,
        "no rows": oip("rows", {"x": np.zeros((0, 4), np.float32)}),
        "strings": oip("several", classes),
        "as many rows as a batch": oip("rows", {"x": rows(*range(8))}),
        "split": oip("proven", {"x": rows(*range(70))}),
        "scalar": oip("scalar", {"x": rows(5), "factor": np.array(3, np.int32)}),
        "free": oip("free", {"in": np.ones((2, 1, 3), np.float32)}),
        "optional left out": oip("optional", x, outputs=["y"]),
        "count": oip("counting", x),
        "ensemble": oip("chain", x),
        "onnx": oip("onnx", x),
        "digits": oip("digits_onnx", {"image": np.full((3, 64), 0.5, np.float32)}),
    }


def bad() -> dict[str, Request]:
    """Requests by name that are refused or fail."""
    x = {"x": rows(1, 2)}
    both = oip("rows", x)
    both.inputs[0].contents.fp32_contents.extend([1.0] * 8)
    other_field = oip("rows", x, raw=False)
    other_field.inputs[0].contents.int_contents.append(1)
    wrong_field = oip("rows", {})
    wrong_field.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp64_contents.extend([1.0] * 4)
    few = oip("rows", x, raw=False)
    del few.inputs[0].contents.fp32_contents[-1]
    none = oip("rows", x, raw=False)
    none.inputs[0].ClearField("contents")
    raws = oip("rows", x)
    raws.raw_input_contents.append(b"")
    short = oip("rows", x)
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    strings = of_type("STRING", raw=True)
    strings.raw_input_contents[0] = strings.raw_input_contents[0][:-1]
    half = oip("kind_fp16", {})
    half.inputs.add(name="in", datatype="FP16", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
    range_ = oip("kind_int8", {})
    range_.inputs.add(name="in", datatype="INT8", shape=[1, 2]).contents.int_contents.extend([1, 200])
    twice = oip("rows", x)
    twice.inputs.append(twice.inputs[0])
    twice.raw_input_contents.append(twice.raw_input_contents[0])
    return {
        "no model": oip("", x),
        "unknown model": oip("row", x),
        "unknown version": oip("rows", x, version="9"),
        "version too large": oip("rows", x, version="9" * 30),
        "negative version": oip("rows", x, version="-1"),
        "unknown label": oip("rows", x, version="stabel"),
        "failed model": oip("failing", x),
        "unknown input": oip("rows", {**x, "w": rows(1)}),
        "no inputs": oip("rows", {}),
        "missing input": oip("scalar", x),
        "unknown output": oip("rows", x, outputs=["yy"]),
        "output twice": oip("rows", x, outputs=["y", "y"]),
        "width": oip("rows", {"x": np.ones((2, 5), np.float32)}),
        "rank": oip("rows", {"x": np.ones(4, np.float32)}),
        "type": oip("rows", {"x": np.ones((2, 4), np.float64)}),
        "more rows than a batch may hold": oip("rows", {"x": rows(*range(20))}),
        "raw and typed": both,
        "two typed fields": other_field,
        "wrong typed field": wrong_field,
        "too few typed": few,
        "no contents": none,
        "raw too many": raws,
        "raw too short": short,
        "string cut": strings,
        "half in a field": half,
        "typed out of range": range_,
        "input twice": twice,
        "unknown type": _input(datatype="FP33"),
        "type in small letters": _input(datatype="fp32"),
        "no type": _input(datatype=""),
        "no name": _input(name=""),
        "negative size": _input(shape=[-1, 4]),
        "huge size": _input(shape=[2**62, 4]),
        "priority of a wrong kind": oip("rows", x, parameters={"priority": "high"}),
        "negative priority": oip("rows", x, parameters={"priority": -1}),
        "timeout of a wrong kind": oip("rows", x, parameters={"timeout": 1.5}),
        "negative timeout": oip("rows", x, parameters={"timeout": -1}),
        "sequence": oip("rows", x, parameters={"sequence_id": 7}),
        "sequence by name": oip("rows", x, parameters={"sequence_id": "s"}),
        "sequence flag of a wrong kind": oip("rows", x, parameters={"sequence_start": 1}),
        "reserved parameter": oip("rows", x, parameters={"triton_something": True}),
        "parameter of nothing": _empty_parameter(),
        "classification of nothing": _output("classification", 0),
        "classification of a wrong kind": _output("classification", "two"),
        "shared memory unknown": _output("shared_memory_region", "nowhere"),
        "input in shared memory unknown": _input(region="nowhere"),
    }


def _input(region: str = "", **fields: object) -> Request:
    request = oip("rows", {"x": rows(1, 2)})
    tensor = request.inputs[0]
    for key, value in fields.items():
        tensor.ClearField(key)  # type: ignore[arg-type]
        if key == "shape":
            tensor.shape.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, key, value)
    if region:
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = 32
        del request.raw_input_contents[:]
    return request


def _output(key: str, value: object) -> Request:
    request = oip("rows", {"x": rows(1, 2)})
    request.outputs.add(name="y").parameters[key].CopyFrom(parameter(value))
    return request


def _empty_parameter() -> Request:
    request = oip("rows", {"x": rows(1, 2)})
    request.parameters["priority"].SetInParent()
    return request


def play(notes: Notes) -> None:
    """Sends the requests one after the other, the valid ones three times: a known form may take another path."""
    side = notes.side
    for turn in ("first", "again", "third"):
        for name, request in good().items():
            notes.see(f"{name} ({turn})", side.ask(INFER, request, ANSWER))
    for turn in ("first", "again"):
        for name, request in bad().items():
            notes.see(f"{name} ({turn})", side.ask(INFER, request, ANSWER))
        for name, mark in MARKS.items():
            notes.see(f"marked: {name} ({turn})", side.ask(INFER, oip("rows", {"x": rows(1, mark)}), ANSWER))
    data = oip("rows", {"x": rows(1, 2)}).SerializeToString()
    for name, body in {
        "nothing": b"",
        "garbage": bytes(range(256)) * 3,
        "cut": data[:-3],
        "twice": data + data,
        "unknown field": data + b"\xfa\x3f\x03abc",
        "field of another kind": data + b"\x08\x01",
        "name not utf-8": data.replace(b"rows", b"r\xff\xfes"),
    }.items():
        notes.see(f"message: {name}", side.ask(INFER, body, ANSWER))
    for name, metadata in {
        "id": [("x-request-id", "from-metadata")],
        "triton's id": [("triton-request-id", "theirs")],
        "priority": [("inferd-priority", "3")],
    }.items():
        notes.see(f"metadata: {name}", side.ask(INFER, data, ANSWER, metadata))
