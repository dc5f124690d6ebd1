"""Builds requests of the three protocols, and names their methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd.oip.v1 import infer_pb2 as oip_infer
from inferd.tfs.v1 import prediction_service_pb2 as tfs_predict
from inferd.tfs.v1 import tensor_pb2 as tfs_tensor
from inferd.v1 import predict_service_pb2 as native_predict
from inferd.v1 import tensor_pb2 as native_tensor

Array = np.ndarray[Any, Any]

PREDICT = "/inferd.v1.PredictService/Predict"
STREAM = "/inferd.v1.PredictService/PredictStream"
MODELS = "/inferd.v1.ModelService/"
OIP = "/inference.GRPCInferenceService/"
INFER = f"{OIP}ModelInfer"
INFER_STREAM = f"{OIP}ModelStreamInfer"
TFS = "/tensorflow.serving.PredictionService/"
TFS_MODELS = "/tensorflow.serving.ModelService/"

OIP_NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "object": "BYTES",
}  # fmt: skip
TFS_NUMBERS = {
    "bool": 10, "uint8": 4, "uint16": 17, "uint32": 22, "uint64": 23, "int8": 6, "int16": 5, "int32": 3, "int64": 9,
    "float16": 19, "float32": 1, "float64": 2, "object": 7,
}  # fmt: skip


def rows(*firsts: float, width: int = 4) -> Array:
    """An FP32 array with one row for each of these values, which is the first element of the row."""
    x = np.arange(len(firsts) * width, dtype=np.float32).reshape(len(firsts), width) / 8
    x[:, 0] = firsts
    return x


def packed(array: Array) -> bytes:
    """The elements as raw bytes; each string is preceded by its length."""
    if array.dtype == object:
        return b"".join(len(each).to_bytes(4, "little") + each for each in array.ravel().tolist())
    return array.tobytes()


def native(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "",
    **more: Any,
) -> native_predict.PredictRequest:
    """A request of our own protocol. `more`: further fields."""
    spec = native_predict.ModelSpec(name=model, version=version, label=label, signature=signature)
    tensors = [
        native_tensor.Tensor(
            name=name,
            dtype=native_tensor.DataType.Value(f"DATA_TYPE_{OIP_NAMES[array.dtype.name].replace('BYTES', 'STRING')}"),
            shape=array.shape,
            data=packed(array),
        )
        for name, array in inputs.items()
    ]
    return native_predict.PredictRequest(model=spec, inputs=tensors, **more)


def oip(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: str = "",
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    raw: bool = True,
    **more: Any,
) -> oip_infer.ModelInferRequest:
    """A request of the Open Inference Protocol, its tensors raw or in typed fields."""
    request = oip_infer.ModelInferRequest(model_name=model, model_version=version, **more)
    for name, array in inputs.items():
        kind = OIP_NAMES[array.dtype.name]
        tensor = request.inputs.add(name=name, datatype=kind, shape=array.shape)
        if raw:
            request.raw_input_contents.append(packed(array))
        else:
            getattr(tensor.contents, contents(kind)).extend(array.ravel().tolist())
    for name in outputs:
        request.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        request.parameters[key].CopyFrom(parameter(value))
    return request


def parameter(value: Any) -> oip_infer.InferParameter:
    """A parameter whose field matches the type of the value."""
    for kind, name in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            return oip_infer.InferParameter(**{name: value})
    raise TypeError(value)


def contents(kind: str) -> str:
    """The name of the typed field for a datatype."""
    if kind in ("INT8", "INT16", "INT32"):
        return "int_contents"
    if kind in ("UINT8", "UINT16", "UINT32"):
        return "uint_contents"
    return f"{kind.lower()}_contents"


def tfs(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: int | None = None,
    label: str | None = None,
    signature: str = "",
    outputs: Sequence[str] = (),
    raw: bool = True,
) -> tfs_predict.PredictRequest:
    """A request of TensorFlow Serving, its tensors raw or in typed fields."""
    request = tfs_predict.PredictRequest(model_spec=tfs_spec(model, version, label, signature), output_filter=outputs)
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tfs_tensor_of(array, raw))
    return request


def tfs_spec(
    model: str, version: int | None = None, label: str | None = None, signature: str = ""
) -> tfs_predict.ModelSpec:
    """A ModelSpec."""
    spec = tfs_predict.ModelSpec(name=model, signature_name=signature, version_label=label)
    if version is not None:
        spec.version.value = version
    return spec


def tfs_tensor_of(array: Array, raw: bool) -> tfs_tensor.TensorProto:
    """A TensorProto."""
    tensor = tfs_tensor.TensorProto(dtype=TFS_NUMBERS[array.dtype.name])
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(array.ravel().tolist())
    elif raw:
        tensor.tensor_content = array.tobytes()
    else:
        field = {
            "float16": "half_val", "float32": "float_val", "float64": "double_val", "int64": "int64_val",
            "uint64": "uint64_val", "uint32": "uint32_val", "bool": "bool_val",
        }.get(array.dtype.name, "int_val")  # fmt: skip
        values = array.view(np.uint16) if array.dtype == np.float16 else array
        getattr(tensor, field).extend(values.ravel().tolist())
    return tensor


def oip_json(model_inputs: Mapping[str, Array], **more: Any) -> str:
    """The body of POST /v2/models/M/infer."""
    tensors = [
        {
            "name": name,
            "datatype": OIP_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data": [e.decode() for e in array.ravel()] if array.dtype == object else array.ravel().tolist(),
        }
        for name, array in model_inputs.items()
    ]
    return json.dumps({"inputs": tensors, **more})


def oip_binary(model_inputs: Mapping[str, Array], **more: Any) -> tuple[bytes, dict[str, str]]:
    """The same with raw tensors after the JSON, and the header with the length of the JSON."""
    tensors, data = [], b""
    for name, array in model_inputs.items():
        raw = packed(array)
        parameters = {"binary_data_size": len(raw)}
        kind = OIP_NAMES[array.dtype.name]
        tensors.append({"name": name, "datatype": kind, "shape": list(array.shape), "parameters": parameters})
        data += raw
    head = json.dumps({"inputs": tensors, **more}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}
