"""The response class of each gRPC method, for requests that are sent as recorded bytes."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inferd.oip.v1 import grpc_inference_service_pb2
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.tfs.v1 import prediction_service_pb2 as tfs_predict
from inferd.v1 import model_service_pb2, predict_service_pb2

_SERVICES = {
    "inferd.v1.PredictService": predict_service_pb2,
    "inferd.v1.ModelService": model_service_pb2,
    "inference.GRPCInferenceService": grpc_inference_service_pb2,
    "tensorflow.serving.PredictionService": tfs_predict,
    "tensorflow.serving.ModelService": tfs_models,
    "grpc.health.v1.Health": health_pb2,
    "grpc.reflection.v1alpha.ServerReflection": reflection_pb2,
}
STREAMS = frozenset({"PredictStream", "ModelStreamInfer", "WatchModels", "Watch", "ServerReflectionInfo"})


def answer_of(method: str) -> type[Message]:
    """The class of a method's responses. `method` is the full path."""
    service, name = method.strip("/").split("/")
    found = _SERVICES[service].DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
    kind: type[Message] = GetMessageClass(found.methods_by_name[name].output_type)
    return kind
