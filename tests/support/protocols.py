"""One request to a running server on every protocol, with its outcome in one form."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from support.server import Served

from inferd.oip.v1 import infer_pb2 as oip
from inferd.tfs.v1 import prediction_service_pb2 as tfs
from inferd.wire import native
from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.tensors import decode, raw
from inferd.wire.tfs.dtypes import NUMBER
from inferd.wire.tfs.tensor import array_of
from inferd.wire.values import DecodedResponse

Array = np.ndarray[Any, Any]
PROTOCOLS = ("native", "native stream", "oip", "oip stream", "tfs", "rest v2", "rest v1")
_HTTP = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 500: "INTERNAL", 503: "UNAVAILABLE"}
_OIP = "/inference.GRPCInferenceService/"
TIMEOUT = 60.0


@dataclass
class Outcome:
    """How a request ended. `code`: name of a gRPC status; "ERROR" for a failure in an OIP stream, which has none."""

    code: str
    text: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether the caller is told that the request is wrong, as far as the protocol tells."""
        return self.code in ("INVALID_ARGUMENT", "ERROR")

    @property
    def failed(self) -> bool:
        """Whether the caller is told that the server failed, as far as the protocol tells."""
        return self.code in ("INTERNAL", "ERROR")


class Callers:
    """A client of each protocol. Use it as a context manager."""

    def __init__(self, served: Served) -> None:
        self._http = served.http
        self.channel = grpc.insecure_channel(served.address)

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def send(
        self, protocol: str, model: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), signature: str = ""
    ) -> Outcome:
        """Sends one request. OIP has no signatures: it always asks for the default one."""
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        if protocol.startswith("native"):
            message = native.encode_request(model, arrays, signature=signature, outputs=tuple(outputs))
            return self.native(message, stream=protocol.endswith("stream"))
        if protocol.startswith("oip"):
            return self.oip(_oip(model, arrays, outputs), stream=protocol.endswith("stream"))
        if protocol == "tfs":
            return self.tfs(_tfs(model, arrays, outputs, signature))
        if protocol == "rest v2":
            return self.rest_v2(model, [_json(name, array) for name, array in arrays.items()], outputs)
        body = {"inputs": {name: _texts(array) for name, array in arrays.items()}}
        return self.rest_v1(model, body | ({"signature_name": signature} if signature else {}))

    def native(self, message: bytes, *, stream: bool = False) -> Outcome:
        """Sends an encoded PredictRequest of the native API."""
        service = "/inferd.v1.PredictService/"
        try:
            if not stream:
                answer = self.channel.unary_unary(service + "Predict")(message, timeout=TIMEOUT)
                return Outcome("OK", "", dict(native.decode_response(answer).outputs))
            answers = self.channel.stream_stream(service + "PredictStream")(iter([message]), timeout=TIMEOUT)
            (result,) = [native.decode_stream_response(answer)[1] for answer in answers]
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details())
        if isinstance(result, DecodedResponse):
            return Outcome("OK", "", dict(result.outputs))
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        return Outcome(names[result.code], result.message)

    def oip(self, request: oip.ModelInferRequest, *, stream: bool = False) -> Outcome:
        """Sends a ModelInferRequest."""
        message = request.SerializeToString()
        try:
            if not stream:
                answer = self.channel.unary_unary(_OIP + "ModelInfer")(message, timeout=TIMEOUT)
                return _answered(oip.ModelInferResponse.FromString(answer))
            answers = self.channel.stream_stream(_OIP + "ModelStreamInfer")(iter([message]), timeout=TIMEOUT)
            (found,) = map(oip.ModelStreamInferResponse.FromString, answers)
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details())
        return Outcome("ERROR", found.error_message) if found.error_message else _answered(found.infer_response)

    def tfs(self, request: tfs.PredictRequest) -> Outcome:
        """Sends a PredictRequest of TensorFlow Serving."""
        call = self.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            answer = tfs.PredictResponse.FromString(call(request.SerializeToString(), timeout=TIMEOUT))
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details())
        return Outcome("OK", "", {name: array_of(name, tensor) for name, tensor in answer.outputs.items()})

    def rest_v2(self, model: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[str] = ()) -> Outcome:
        """Sends an inference request of the Open Inference Protocol over REST."""
        body: dict[str, Any] = {"inputs": list(inputs)}
        if outputs:
            body["outputs"] = [{"name": name} for name in outputs]
        code, answer = self._post(f"/v2/models/{model}/infer", body)
        if code != "OK":
            return Outcome(code, answer["error"])
        return Outcome("OK", "", {o["name"]: _from_json(o) for o in answer["outputs"]})

    def rest_v1(self, model: str, body: Mapping[str, Any]) -> Outcome:
        """Sends a predict request of TensorFlow Serving's REST API. A single output has the name ""."""
        code, answer = self._post(f"/v1/models/{model}:predict", body)
        if code != "OK":
            return Outcome(code, answer["error"])
        found = answer["outputs"] if "outputs" in answer else answer["predictions"]
        return Outcome("OK", "", found if isinstance(found, dict) else {"": found})

    def _post(self, path: str, body: Any) -> tuple[str, Any]:
        request = urllib.request.Request(f"http://{self._http}{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return "OK", json.load(answer)
        except urllib.error.HTTPError as error:
            return _HTTP.get(error.code, str(error.code)), json.load(error)


def _oip(model: str, arrays: Mapping[str, Array], outputs: Sequence[str]) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        dtype = dtype_of(array)
        request.inputs.add(name=name, datatype=dtype.oip_name, shape=array.shape)
        request.raw_input_contents.append(bytes(raw(name, array, dtype)))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def _answered(response: oip.ModelInferResponse) -> Outcome:
    found = {}
    for output, data in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = next(d for d in DType if d.oip_name == output.datatype)
        found[output.name] = decode(output.name, dtype, tuple(output.shape), data)
    return Outcome("OK", "", found)


def _tfs(model: str, arrays: Mapping[str, Array], outputs: Sequence[str], signature: str) -> tfs.PredictRequest:
    request = tfs.PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, array in arrays.items():
        dtype = dtype_of(array)
        tensor = request.inputs[name]
        tensor.dtype = NUMBER[dtype]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if dtype is DType.STRING:
            tensor.string_val.extend(array.reshape(-1).tolist())
        else:
            tensor.tensor_content = array.tobytes()
    return request


def _json(name: str, array: Array) -> dict[str, Any]:
    dtype = dtype_of(array)
    return {"name": name, "datatype": dtype.oip_name, "shape": list(array.shape), "data": _texts(array.reshape(-1))}


def _from_json(output: Mapping[str, Any]) -> Array:
    dtype = next(d for d in DType if d.oip_name == output["datatype"])
    data = [item.encode() for item in output["data"]] if dtype is DType.STRING else output["data"]
    return np.array(data, dtype.numpy).reshape(output["shape"])


def _texts(array: Array) -> Any:
    if array.dtype != object:
        return array.tolist()
    return np.array([item.decode() for item in array.reshape(-1).tolist()], object).reshape(array.shape).tolist()
