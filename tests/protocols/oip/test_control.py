"""Health, metadata, configuration, statistics and repository control with the real tritonclient."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from support.foreign_models import add, echo, serve, specs
from support.rpc import Served
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from inferd.backends.api import Signature, TensorSpec
from inferd.server.config.load import model_config
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Conflict
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.reconcile.model_state import UNREADABLE
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

Client = triton.InferenceServerClient


def refused(fn: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        fn(*args, **kwargs)
    return caught.value.status(), caught.value.message()


def test_liveness_and_readiness(client: Client, server: Served) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server.manager.set_ready(False)
    assert client.is_server_live()
    assert not client.is_server_ready()


def test_model_ready_is_false_for_unknown_models(client: Client, server: Served) -> None:
    server.manager.labels["digits"] = {"stable": 1}
    server.manager.change(VersionStatus(ServableId("digits", 3), State.LOADING))
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert client.is_model_ready("digits", "stable")
    assert not client.is_model_ready("digits", "3")
    assert not client.is_model_ready("digits", "canary")
    assert not client.is_model_ready("digits", "9" * 40)
    assert not client.is_model_ready("nope")


def test_server_metadata_lists_the_offered_extensions(client: Client) -> None:
    found = client.get_server_metadata()
    assert found.name == "inferd"
    assert found.version
    assert {"statistics", "model_repository(unload_dependents)"} <= set(found.extensions)
    assert not {"sequence", "trace", "logging", "cuda_shared_memory", "binary_tensor_data"} & set(found.extensions)


def test_model_metadata_has_versions_platform_inputs_and_outputs(client: Client, server: Served) -> None:
    server.manager.available("digits", 2)
    found = client.get_model_metadata("digits", as_json=True)
    assert found["versions"] == ["1", "2"]
    assert found["platform"] == "fake"
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "-1"]}]
    assert [output["name"] for output in found["outputs"]] == ["y", "z"]
    assert client.get_model_metadata("digits", "1", as_json=True)["versions"] == ["1"]
    every = client.get_model_metadata("echo", as_json=True)
    assert [tensor["datatype"] for tensor in every["inputs"]] == [dtype.oip_name for dtype in DType]
    status, text = refused(client.get_model_metadata, "nope")
    assert status == "StatusCode.NOT_FOUND"
    assert text.startswith("Request for unknown model: 'nope' is not found")


def test_model_config_omits_the_batch_axis(client: Client) -> None:
    config = client.get_model_config("digits").config
    assert (config.name, config.backend, config.max_batch_size) == ("digits", "fake", 32)
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("x", [-1])]
    # The proof decides, also when somebody loads the model with this configuration: dynamic_batching would declare it.
    assert not config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 2)]


@pytest.mark.parametrize(
    ("pbtxt", "most"),
    [
        ({"max_batch_size": 8}, 8),
        ({}, 0),
        ({"max_batch_size": 0}, 0),
    ],
    ids=str,
)
def test_a_batch_axis_that_config_pbtxt_declares_is_told_though_requests_share_no_batch(
    client: Client, server: Served, pbtxt: dict[str, Any], most: int
) -> None:
    servable = server.manager.available("declared", 1)
    servable.signatures = dict(server.manager.servables[ServableId("digits", 1)].signatures)
    servable.max_batch_size = 0
    servable.settings = model_config(ServerConfig(), "declared", None, pbtxt)[0]
    config = client.get_model_config("declared").config
    assert config.max_batch_size == most
    assert [list(tensor.dims) for tensor in config.input] == ([[-1]] if most else [[-1, -1]])
    assert not config.HasField("dynamic_batching")


def test_model_config_of_an_unbatched_model_has_complete_shapes(client: Client, server: Served) -> None:
    fixed = (TensorSpec("in_FP32", DType.FP32, ()), TensorSpec("in_INT64", DType.INT64, (-1, 3), optional=True))
    add(server.manager, "fixed", (Signature("s", fixed, specs("out", None)),), echo)
    config = client.get_model_config("fixed").config
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in config.input] == [[], [-1, 3]]
    assert [tensor.optional for tensor in config.input] == [False, True]
    assert not config.HasField("dynamic_batching")


def test_version_policies_in_the_model_config(client: Client, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    status = server.manager.status
    for words, field, expected in (
        ("all", "all", []),
        ("specific(3, 5)", "specific", [3, 5]),
    ):
        monkeypatch.setattr(server.manager, "status", lambda name, w=words: replace(status(name), version_policy=w))
        policy = client.get_model_config("digits").config.version_policy
        assert policy.WhichOneof("policy_choice") == field
        assert list(policy.specific.versions) == expected


def test_statistics_have_the_recorded_figures(client: Client, server: Served) -> None:
    figures = server.metrics.model("digits", 1)
    for rows in (4, 4, 1):
        figures.batch("serving_default", [object()] * rows, rows, 0.002)
    figures.request("grpc", "OK", 0.004, 0.001, 0.002)
    figures.request("oip", "INVALID_ARGUMENT", 0.5)
    (found,) = client.get_inference_statistics("digits").model_stats
    assert (found.name, found.version) == ("digits", "1")
    assert (found.inference_count, found.execution_count) == (9, 3)
    assert found.last_inference > 1.6e12
    stats = found.inference_stats
    assert (stats.success.count, stats.success.ns) == (1, 4_000_000)
    assert (stats.fail.count, stats.fail.ns) == (1, 500_000_000)
    assert (stats.queue.ns, stats.compute_infer.ns) == (1_000_000, 2_000_000)
    assert [(b.batch_size, b.compute_infer.count, b.compute_infer.ns) for b in found.batch_stats] == [
        (1, 1, 2_000_000),
        (4, 2, 4_000_000),
    ]


def test_statistics_of_all_models_and_of_one_version(client: Client, server: Served) -> None:
    server.manager.available("digits", 2)
    server.manager.change(VersionStatus(ServableId("digits", 3), State.LOADING))
    every = client.get_inference_statistics().model_stats
    assert [(s.name, s.version) for s in every] == [("digits", "1"), ("digits", "2"), ("echo", "1")]
    assert len(client.get_inference_statistics("digits").model_stats) == 2
    assert len(client.get_inference_statistics("digits", "1").model_stats) == 1
    status, text = refused(client.get_inference_statistics, "nope")
    assert status == "StatusCode.NOT_FOUND"
    assert text.startswith("Request for unknown model")


def test_the_index_has_states_and_reasons(client: Client, server: Served) -> None:
    manager = server.manager
    manager.change(VersionStatus(ServableId("digits", 2), State.LOADING))
    manager.change(VersionStatus(ServableId("digits", 3), State.FAILED, error="the graph is cut short"))
    manager.change(VersionStatus(ServableId("digits", 4), State.END))
    manager.change(VersionStatus(ServableId("digits", 5), State.UNLOADING))
    index = client.get_model_repository_index().models
    assert [(entry.name, entry.version, entry.state, entry.reason) for entry in index] == [
        ("digits", "1", "READY", ""),
        ("digits", "2", "LOADING", ""),
        ("digits", "3", "UNAVAILABLE", "the graph is cut short"),
        ("digits", "4", "UNAVAILABLE", "unloaded"),
        ("digits", "5", "UNLOADING", ""),
        ("echo", "1", "READY", ""),
    ]
    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel())
    ready = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models
    assert [(entry.name, entry.version) for entry in ready] == [("digits", "1"), ("echo", "1")]
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="other"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "'repository_name' specification is not supported"


def test_the_index_has_the_error_of_a_configuration(client: Client, server: Served) -> None:
    note = f"on disk, not served: {UNREADABLE}"
    server.manager.change(VersionStatus(ServableId("digits", 1), State.END, notes=(note,)))
    status = server.manager.status
    server.manager.status = lambda name: replace(status(name), error="config.pbtxt: max_batch_size: got -1")  # type: ignore[method-assign]
    (entry,) = [entry for entry in client.get_model_repository_index().models if entry.name == "digits"]
    assert (entry.state, entry.reason) == ("UNAVAILABLE", "config.pbtxt: max_batch_size: got -1")


def test_load_and_unload_reach_the_manager(client: Client, server: Served) -> None:
    client.load_model("digits")
    client.unload_model("digits", unload_dependents=True)
    client.unload_model("nope")
    assert server.manager.asked == [("load", "digits", None), ("unload", "digits", None), ("unload", "nope", None)]
    status, text = refused(client.load_model, "nope")
    assert status == "StatusCode.INTERNAL"
    assert text.startswith("failed to load 'nope', failed to poll from model repository")
    server.manager.hold_admin = Future()
    server.manager.hold_admin.set_exception(Conflict("version 2 of model 'digits' failed to load: no graph"))
    status, text = refused(client.load_model, "digits")
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert text.startswith("load failed for model 'digits': version 2 of model 'digits' failed to load")


def test_a_load_may_have_a_config_but_files_only_if_allowed(client: Client, server: Served) -> None:
    client.load_model("digits", config='{"max_batch_size": 4}')
    assert server.manager.asked == [("load", "digits", None, Replacement('{"max_batch_size": 4}'))]
    status, text = refused(client.load_model, "digits", config="{}", files={"file:1/model.onnx": b"x"})
    assert status == "StatusCode.PERMISSION_DENIED"
    assert "admin.allow_upload: false" in text
    assert len(server.manager.asked) == 1


def test_a_load_with_files_is_checked_and_reaches_the_manager(kind: str) -> None:
    served = serve(ServerConfig.model_validate({"admin": {"allow_upload": True}}), kind)
    try:
        with Client(served.address) as client:
            client.load_model("digits", config="{}", files={"file:1/model.onnx": b"x"})
            assert served.manager.asked == [("load", "digits", None, Replacement("{}", {"1/model.onnx": b"x"}))]
            files = {"file:1/model.onnx": b"x"}
            status, text = refused(
                client.load_model, "digits", config="{}", files=files, headers={"x-forwarded-for": "10.0.0.1"}
            )
            assert (status, "admin.allow:" in text) == ("StatusCode.PERMISSION_DENIED", True)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel())
        for parameters, words in (
            ({"file:1/model.onnx": {"bytes_param": b"x"}}, "'config' must come with the files"),
            ({"config": {"bytes_param": b"{}"}}, "'config': expected string_param"),
            ({"config": {"string_param": "{}"}, "file:1/m": {"string_param": "x"}}, "expected bytes_param"),
            ({"color": {"string_param": "red"}}, "unrecognized load parameter 'color'"),
        ):
            given = {key: service_pb2.ModelRepositoryParameter(**value) for key, value in parameters.items()}
            with pytest.raises(grpc.RpcError) as caught:
                stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="digits", parameters=given))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert words in caught.value.details()
        assert len(served.manager.asked) == 1
    finally:
        served.end()


def test_unknown_load_parameters_are_refused(server: Served) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(server.channel())
    request = service_pb2.RepositoryModelLoadRequest(model_name="digits")
    request.parameters["mine"].bool_param = True
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelLoad(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.manager.asked == []


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_load_and_unload_are_refused_to_remote_callers(client: Client, server: Served, method: str) -> None:
    status, text = refused(getattr(client, method), "digits", headers={"x-forwarded-for": "10.0.0.1"})
    assert status == "StatusCode.PERMISSION_DENIED"
    assert "admin.allow" in text
    assert server.manager.asked == []


def test_admin_allow_anyone_admits_remote_callers() -> None:
    served = serve(ServerConfig.model_validate({"admin": {"allow": "anyone"}}))
    try:
        with Client(served.address) as client:
            client.load_model("digits", headers={"x-forwarded-for": "10.0.0.1"})
        assert served.manager.asked == [("load", "digits", None)]
    finally:
        served.end()


def test_a_draining_server_is_live_and_not_ready(server: Served, client: Client) -> None:
    server.health.stop()
    assert client.is_server_live()
    assert not client.is_server_ready()


def test_malformed_messages_are_refused(server: Served) -> None:
    channel = server.channel()
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\x0a\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method
