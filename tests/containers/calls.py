"""One row to a model over every protocol; all answers must be the same."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.http
from containers.tools import ROOT, expect

from inferd.client import Client
from inferd.tfs.v1 import prediction_service_pb2, tensor_pb2

DIGIT = np.asarray(json.loads((ROOT / "examples" / "digit.json").read_text()), np.float32).reshape(1, -1)
_TFS_FLOAT = 1
_LIMIT = 60.0


def native(address: str, model: str) -> Any:
    """inferd's own protocol, by its Python client."""
    with Client(address, timeout=_LIMIT) as client:
        return client.predict(model, {"image": DIGIT})["probabilities"]


def grpc_v2(address: str, model: str) -> Any:
    """The Open Inference Protocol over gRPC, by tritonclient."""
    tensor = tritonclient.grpc.InferInput("image", list(DIGIT.shape), "FP32")
    tensor.set_data_from_numpy(DIGIT)
    with tritonclient.grpc.InferenceServerClient(address) as client:
        return client.infer(model, [tensor], client_timeout=_LIMIT).as_numpy("probabilities")


def grpc_v1(address: str, model: str) -> Any:
    """TensorFlow Serving's gRPC."""
    request = prediction_service_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = tensor_pb2.TensorProto(dtype=_TFS_FLOAT, tensor_content=DIGIT.tobytes())
    for size in DIGIT.shape:
        tensor.tensor_shape.dim.add(size=size)
    request.inputs["image"].CopyFrom(tensor)
    with grpc.insecure_channel(address) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=prediction_service_pb2.PredictRequest.SerializeToString,
            response_deserializer=prediction_service_pb2.PredictResponse.FromString,
        )
        answer = predict(request, timeout=_LIMIT).outputs["probabilities"]
    found = np.frombuffer(answer.tensor_content, np.float32) if answer.tensor_content else np.asarray(answer.float_val)
    return found.reshape(1, -1)


def rest_v2(address: str, model: str) -> Any:
    """The Open Inference Protocol over HTTP, by tritonclient."""
    tensor = tritonclient.http.InferInput("image", list(DIGIT.shape), "FP32")
    tensor.set_data_from_numpy(DIGIT)
    with tritonclient.http.InferenceServerClient(address, network_timeout=_LIMIT) as client:
        return client.infer(model, [tensor]).as_numpy("probabilities")


def rest_v1(address: str, model: str) -> Any:
    """TensorFlow Serving's REST."""
    body = json.dumps({"instances": [{"image": DIGIT[0].tolist()}]}).encode()
    with urllib.request.urlopen(f"http://{address}/v1/models/{model}:predict", body, timeout=_LIMIT) as answer:
        return np.asarray([json.load(answer)["predictions"][0]["probabilities"]])


GRPC: dict[str, Callable[[str, str], Any]] = {"native": native, "grpc-v2": grpc_v2, "grpc-v1": grpc_v1}
HTTP: dict[str, Callable[[str, str], Any]] = {"v2": rest_v2, "v1": rest_v1}


def call_everything(host: str, model: str, *, grpc_port: int = 8001, http_port: int = 8000) -> list[str]:
    """Calls the model over all five protocols. Returns their names. Raises Failure if two answers differ or are not
    the digit that was shown, and the clients' errors."""
    answers = {name: call(f"{host}:{grpc_port}", model) for name, call in GRPC.items()}
    answers |= {name: call(f"{host}:{http_port}", model) for name, call in HTTP.items()}
    first = np.asarray(answers["native"])
    for name, answer in answers.items():
        expect(np.asarray(answer).shape == (1, 10), f"{model} over {name}: shape {np.asarray(answer).shape}")
        expect(np.allclose(answer, first, atol=1e-5), f"{model}: {name} answers {answer}, native {first}")
    expect(int(first.argmax()) == 0, f"{model} takes the digit 0 for {int(first.argmax())}")
    return list(answers)
