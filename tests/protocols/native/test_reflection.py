from __future__ import annotations

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.rpc import Served

from inferd.server.protocols.common.reflection import METHODS


def test_a_reflection_client_finds_services_and_messages(server: Served):
    database = ProtoReflectionDescriptorDatabase(server.channel())
    services = database.get_services()
    assert {"inferd.v1.PredictService", "inferd.v1.ModelService", "grpc.health.v1.Health"} <= set(services)
    assert {f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")} <= set(services)
    pool = DescriptorPool(database)
    method = pool.FindServiceByName("inferd.v1.PredictService").FindMethodByName("Predict")
    assert method.input_type.full_name == "inferd.v1.PredictRequest"
    assert [field.name for field in method.input_type.fields][:2] == ["model", "inputs"]
    assert pool.FindServiceByName("grpc.health.v1.Health")
    for service in services:
        assert pool.FindServiceByName(service).methods
    with pytest.raises(KeyError):
        pool.FindMessageTypeByName("inferd.v1.Nope")


@pytest.mark.parametrize("method", METHODS)
def test_v1_and_v1alpha_answer_every_kind_of_request(server: Served, method: str):
    requests = [
        pb.ServerReflectionRequest(list_services="*"),
        pb.ServerReflectionRequest(file_by_filename="inferd/v1/tensor.proto"),
        pb.ServerReflectionRequest(file_by_filename="nope.proto"),
        pb.ServerReflectionRequest(file_containing_symbol="inferd.v1.ModelStatus"),
        pb.ServerReflectionRequest(all_extension_numbers_of_type="inferd.v1.Tensor"),
        pb.ServerReflectionRequest(),
    ]
    stream = server.channel().stream_stream(method)
    answers = stream((r.SerializeToString() for r in requests), timeout=30)
    kinds = [pb.ServerReflectionResponse.FromString(answer) for answer in answers]
    assert [kind.WhichOneof("message_response") for kind in kinds] == [
        "list_services_response",
        "file_descriptor_response",
        "error_response",
        "file_descriptor_response",
        "all_extension_numbers_response",
        "error_response",
    ]
    assert kinds[2].error_response.error_code == 5
    assert [kind.original_request for kind in kinds] == requests
