"""tensorflow.serving.PredictionService: GetModelMetadata, for models of all frameworks."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.backends.api import Signature, TensorSpec
from inferd.server.access.caller import Caller
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.tfs.error_messages import acquire
from inferd.server.transport.calls import UnaryCall
from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.tfs.v1 import signature_pb2, tensor_pb2
from inferd.wire.tfs.dtypes import NUMBER
from inferd.wire.tfs.fallback import spec_of

_FIELD = "signature_def"
_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_PREDICT = "tensorflow/serving/predict"


class Metadata:
    """Answers from the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike) -> None:
        self._manager = manager

    def __call__(self, call: UnaryCall, request: pb.GetModelMetadataRequest, _caller: Caller) -> None:
        """Handles one call."""
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        if not request.metadata_field:
            raise InvalidRequest(f"GetModelMetadataRequest must specify at least one metadata_field; known: {_FIELD}")
        for field in request.metadata_field:
            if field != _FIELD:
                raise InvalidRequest(f"Metadata field {field[:100]} is not supported; expected {_FIELD}")
        name, version, label, _ = spec_of(request.model_spec)
        handle = acquire(self._manager, name, version, label)
        try:
            servable = handle.servable
            answer = pb.GetModelMetadataResponse(model_spec=pb.ModelSpec(name=servable.id.name))
            answer.model_spec.version.value = servable.id.version
            signatures = signature_map(servable.signatures)
        finally:
            handle.release()
        field_value = answer.metadata[_FIELD]
        # TensorFlow Serving's real type name, so that clients can unpack the value into their own class.
        field_value.type_url = _TYPE_URL
        field_value.value = signatures.SerializeToString()
        call.reply(answer.SerializeToString())


def signature_map(signatures: Mapping[str, Signature]) -> pb.SignatureDefMap:
    """The signatures as a SignatureDefMap."""
    return pb.SignatureDefMap(
        signature_def={
            signature.name: signature_pb2.SignatureDef(
                inputs={spec.name: _tensor_info(spec) for spec in signature.inputs},
                outputs={spec.name: _tensor_info(spec) for spec in signature.outputs},
                method_name=signature.method_name or _PREDICT,
            )
            for signature in signatures.values()
        }
    )


def _tensor_info(spec: TensorSpec) -> signature_pb2.TensorInfo:
    # In TensorFlow, `name` is a tensor of the graph. Other frameworks have no such name, so it is made from the key.
    shape = tensor_pb2.TensorShapeProto(unknown_rank=spec.shape is None)
    for size in spec.shape or ():
        shape.dim.add(size=size)
    number = tensor_pb2.DataType.Name(NUMBER[spec.dtype])
    return signature_pb2.TensorInfo(name=f"{spec.name}:0", dtype=number, tensor_shape=shape)
