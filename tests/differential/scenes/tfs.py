"""TensorFlow Serving's protocol: Predict, Classify, Regress, MultiInference, model metadata and status."""

from __future__ import annotations

from typing import Any

import numpy as np
from differential.models import DTYPES
from differential.requests import TFS, TFS_MODELS, rows, tfs, tfs_predict, tfs_spec
from differential.scene import Notes
from differential.scenes.native import MARKS, typed

from inferd.tfs.v1 import example_pb2
from inferd.tfs.v1 import model_service_pb2 as tfs_models

Request = tfs_predict.PredictRequest
PREDICT = f"{TFS}Predict"
_BF16 = 14


def of_type(dtype: str, *, raw: bool) -> Request:
    """A request to the model of this element type."""
    request = tfs(f"kind_{dtype.lower()}", {"in": typed(dtype)}, raw=raw)
    if dtype == "BF16":
        tensor = request.inputs["in"]
        tensor.dtype = _BF16
        if not raw:
            tensor.half_val.extend(tensor.int_val)
            tensor.ClearField("int_val")
    return request


def good() -> dict[str, Request]:
    """Valid requests by name."""
    x = {"x": rows(1, 2)}
    filled = tfs("rows", {"x": np.ones((2, 4), np.float32)}, raw=False)
    del filled.inputs["x"].float_val[1:]
    return {
        **{f"type {dtype}": of_type(dtype, raw=True) for dtype in DTYPES},
        **{f"typed {dtype}": of_type(dtype, raw=False) for dtype in DTYPES},
        "newest": tfs("rows", x),
        "version": tfs("rows", x, version=1),
        "label": tfs("rows", x, label="stable"),
        "signature": tfs("several", x, signature="other"),
        "strings": tfs("several", {"inputs": np.array([b"one", b"three"], object)}, signature="classes"),
        "filter": tfs("rows", x, outputs=["y"]),
        "filter in another order": tfs("rows", x, outputs=["y", "z"]),
        "one value for all": filled,
        "no rows": tfs("rows", {"x": np.zeros((0, 4), np.float32)}),
        "split": tfs("proven", {"x": rows(*range(70))}),
        "scalar": tfs("scalar", {"x": rows(5), "factor": np.array(3, np.int32)}),
        "free": tfs("free", {"in": np.ones((2, 1, 3), np.float32)}),
        "optional left out": tfs("optional", x, outputs=["y"]),
        "ensemble": tfs("chain", x),
        "onnx": tfs("onnx", x),
        "digits": tfs("digits_onnx", {"image": np.full((3, 64), 0.5, np.float32)}),
    }


def bad() -> dict[str, Request]:
    """Requests by name that are refused or fail."""
    x = {"x": rows(1, 2)}
    nobody = Request()
    no_tensor = tfs("rows", {})
    no_tensor.inputs["x"].SetInParent()
    changed: dict[str, Request] = {}
    for name, change in _CHANGES.items():
        changed[name] = tfs("rows", x)
        change(changed[name].inputs["x"])
    return {
        "nothing": nobody,
        "no model": tfs("", x),
        "unknown model": tfs("row", x),
        "unknown version": tfs("rows", x, version=9),
        "negative version": tfs("rows", x, version=-1),
        "unknown label": tfs("rows", x, label="stabel"),
        "unknown signature": tfs("several", x, signature="clases"),
        "failed model": tfs("failing", x),
        "unknown input": tfs("rows", {**x, "w": rows(1)}),
        "no inputs": tfs("rows", {}),
        "empty tensor": no_tensor,
        "missing input": tfs("scalar", x),
        "unknown output": tfs("rows", x, outputs=["yy"]),
        "output twice": tfs("rows", x, outputs=["y", "y"]),
        "width": tfs("rows", {"x": np.ones((2, 5), np.float32)}),
        "type": tfs("rows", {"x": np.ones((2, 4), np.float64)}),
        "more rows than a batch may hold": tfs("rows", {"x": rows(*range(20))}),
        **changed,
    }


def _content(data: bytes) -> Any:
    return lambda tensor: setattr(tensor, "tensor_content", data)


_CHANGES = {
    "content too short": _content(b"\0" * 31),
    "content too long": _content(b"\0" * 33),
    "no content": _content(b""),
    "content and values": lambda tensor: tensor.float_val.extend([1.0] * 8),
    "values of another type": lambda tensor: (tensor.ClearField("tensor_content"), tensor.int_val.extend([1] * 8)),
    "too many values": lambda tensor: (tensor.ClearField("tensor_content"), tensor.float_val.extend([1.0] * 9)),
    "no type": lambda tensor: setattr(tensor, "dtype", 0),
    "complex": lambda tensor: setattr(tensor, "dtype", 8),
    "unknown type": lambda tensor: setattr(tensor, "dtype", 99),
    "negative size": lambda tensor: setattr(tensor.tensor_shape.dim[0], "size", -1),
    "huge size": lambda tensor: setattr(tensor.tensor_shape.dim[0], "size", 2**62),
    "unknown rank": lambda tensor: setattr(tensor.tensor_shape, "unknown_rank", True),
    "no shape": lambda tensor: tensor.ClearField("tensor_shape"),
    "another version of the format": lambda tensor: setattr(tensor, "version_number", 3),
}


def example(**features: Any) -> example_pb2.Example:
    """A tf.Example."""
    found = example_pb2.Example()
    for name, values in features.items():
        kind = found.features.feature[name]
        if isinstance(values[0], bytes):
            kind.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            kind.int64_list.value.extend(values)
        else:
            kind.float_list.value.extend(values)
    return found


def _examples() -> dict[str, tfs_predict.Input]:
    text = [example(inputs=[b"one"]), example(inputs=[b"seventeen"])]
    context = tfs_predict.Input()
    context.example_list_with_context.examples.extend(text)
    context.example_list_with_context.context.CopyFrom(example(other=[1]))
    return {
        "two": tfs_predict.Input(example_list=tfs_predict.ExampleList(examples=text)),
        "with context": context,
        "none": tfs_predict.Input(example_list=tfs_predict.ExampleList()),
        "nothing": tfs_predict.Input(),
        "other feature": tfs_predict.Input(example_list=tfs_predict.ExampleList(examples=[example(outputs=[b"a"])])),
        "other type": tfs_predict.Input(example_list=tfs_predict.ExampleList(examples=[example(inputs=[1.5])])),
    }


def play(notes: Notes) -> None:
    """Predict."""
    side = notes.side
    answer = tfs_predict.PredictResponse
    for turn in ("first", "again", "third"):
        for name, request in good().items():
            notes.see(f"{name} ({turn})", side.ask(PREDICT, request, answer))
    for turn in ("first", "again"):
        for name, request in bad().items():
            notes.see(f"{name} ({turn})", side.ask(PREDICT, request, answer))
        for name, mark in MARKS.items():
            notes.see(f"marked: {name} ({turn})", side.ask(PREDICT, tfs("rows", {"x": rows(1, mark)}), answer))
    data = tfs("rows", {"x": rows(1, 2)}).SerializeToString(deterministic=True)
    for name, body in {
        "garbage": bytes(range(256)) * 3,
        "cut": data[:-3],
        "twice": data + data,
        "unknown field": data + b"\xfa\x3f\x03abc",
        "reserved field": data + b"\x22\x01a",
    }.items():
        notes.see(f"message: {name}", side.ask(PREDICT, body, answer))
    priority = [("inferd-priority", "3"), ("x-request-id", "mine")]
    notes.see("metadata", side.ask(PREDICT, data, answer, priority))


def play_examples(notes: Notes) -> None:
    """Classify, Regress and MultiInference over examples."""
    side = notes.side
    for turn in ("first", "again"):
        for name, given in _examples().items():
            for signature in ("classes", "values", "other", "", "clases"):
                spec = tfs_spec("several", signature=signature)
                classify = tfs_predict.ClassificationRequest(model_spec=spec, input=given)
                case = f"{name}, signature {signature!r} ({turn})"
                notes.see(f"classify {case}", side.ask(f"{TFS}Classify", classify, tfs_predict.ClassificationResponse))
                regress = tfs_predict.RegressionRequest(model_spec=spec, input=given)
                notes.see(f"regress {case}", side.ask(f"{TFS}Regress", regress, tfs_predict.RegressionResponse))
    given = _examples()["two"]
    for name, tasks in {
        "both": [("several", "classes", "classify"), ("several", "values", "regress")],
        "one": [("several", "classes", "classify")],
        "none": [],
        "wrong method": [("several", "classes", "regress")],
        "two models": [("several", "classes", "classify"), ("rows", "", "classify")],
        "unknown": [("nobody", "", "classify")],
    }.items():
        request = tfs_predict.MultiInferenceRequest(input=given)
        for model, signature, method in tasks:
            request.tasks.add(
                model_spec=tfs_spec(model, signature=signature), method_name=f"tensorflow/serving/{method}"
            )
        notes.see(f"multi {name}", side.ask(f"{TFS}MultiInference", request, tfs_predict.MultiInferenceResponse))


def play_described(notes: Notes) -> None:
    """Signatures and states."""
    side = notes.side
    for name, spec in {
        "rows": tfs_spec("rows"),
        "version": tfs_spec("rows", 1),
        "label": tfs_spec("rows", label="stable"),
        "several": tfs_spec("several"),
        "chain": tfs_spec("chain"),
        "free": tfs_spec("free"),
        "scalar": tfs_spec("scalar"),
        "digits": tfs_spec("digits_onnx"),
        "failing": tfs_spec("failing"),
        "unknown": tfs_spec("nobody"),
        "unknown version": tfs_spec("rows", 9),
        "nobody": tfs_spec(""),
    }.items():
        for fields in (["signature_def"], [], ["other"]):
            asked = tfs_predict.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)
            answer = side.ask(f"{TFS}GetModelMetadata", asked, tfs_predict.GetModelMetadataResponse)
            notes.see(f"metadata {name} {fields}", answer)
        status = tfs_models.GetModelStatusRequest(model_spec=spec)
        notes.see(f"status {name}", side.ask(f"{TFS_MODELS}GetModelStatus", status, tfs_models.GetModelStatusResponse))
