from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import grpc
import pytest
from support.access import guarded_config, header, with_scopes
from support.rpc import Served, eventually, refused
from support.security import Keys

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import Conflict
from inferd.server.lifecycle.state import ModelStatus, PublishedOverride, ServableId, State, VersionStatus
from inferd.server.protocols.native import watch
from inferd.v1 import model_service_pb2 as pb
from inferd.v1 import model_service_pb2_grpc
from inferd.wire.dtypes import DType


@pytest.fixture
def stub(server: Served) -> model_service_pb2_grpc.ModelServiceStub:
    return model_service_pb2_grpc.ModelServiceStub(server.channel())


def test_list_and_status_have_every_field(server: Served, stub):
    manager = server.manager
    failed = VersionStatus(
        ServableId("digits", 2), State.END, error="bad file", generation=3, backend="onnx", devices=("cpu", "cuda:0"),
        batching="unbatched: why", load_seconds=1.5, changed_at=12.3456, labels=("canary",), notes=("note",),
    )  # fmt: skip
    manager.change(failed)
    manager.change(VersionStatus(ServableId("alpha", 1), State.LOADING))
    manager.labels["digits"] = {"stable": 1}
    manager.overrides.append(PublishedOverride("pinned", "1", "me", 7.0, True))
    models = stub.ListModels(pb.ListModelsRequest(), timeout=30).models
    assert [model.name for model in models] == ["alpha", "digits"]
    model = stub.GetModelStatus(pb.GetModelStatusRequest(name="digits"), timeout=30).model
    assert model == models[1]
    assert [version.version for version in model.versions] == [2, 1]
    assert model.versions[0] == pb.VersionStatus(
        version=2, state="VERSION_STATE_END", error="bad file", generation=3, backend="onnx", devices=["cpu", "cuda:0"],
        batching="unbatched: why", load_seconds=1.5, changed_unix_ms=12346, labels=["canary"], notes=["note"],
    )  # fmt: skip
    assert dict(model.labels) == {"stable": 1}
    pinned = pb.Override(kind="pinned", value="1", by="me", since_unix_ms=7000, persistent=True)
    assert list(model.overrides) == [pinned]
    assert model.version_policy == "latest(1)"
    assert models[0].versions[0].state == pb.VERSION_STATE_LOADING


def test_metadata_has_every_field_and_the_default_signature_first(server: Served, stub):
    odd = Signature("odd", (TensorSpec("a:0", DType.BF16, None, optional=True),), (), "tensorflow/serving/predict")
    servable = server.manager.servables[ServableId("digits", 1)]
    servable.signatures = {"odd": odd, **servable.signatures}
    servable.stateful = True
    found = stub.GetModelMetadata(pb.GetModelMetadataRequest(name="digits", version=1), timeout=30)
    assert (found.name, found.version, found.backend, found.max_batch_size) == ("digits", 1, "fake", 32)
    assert found.stateful
    assert [signature.name for signature in found.signatures] == ["serving_default", "odd"]  # the default one first
    assert found.signatures[0].inputs[0].shape == [-1, -1]
    (spec,) = found.signatures[1].inputs
    assert (spec.name, spec.dtype, list(spec.shape)) == ("a:0", DType.BF16, [])
    assert spec.unknown_rank
    assert spec.optional
    assert found.signatures[1].method_name == "tensorflow/serving/predict"
    assert servable.handles == 0
    server.manager.labels["digits"] = {"stable": 1}
    assert stub.GetModelMetadata(pb.GetModelMetadataRequest(name="digits", label="stable"), timeout=30).version == 1


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("GetModelStatus", pb.GetModelStatusRequest(name="no"), grpc.StatusCode.NOT_FOUND),
        ("GetModelStatus", pb.GetModelStatusRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("GetModelMetadata", pb.GetModelMetadataRequest(name="digits", version=8), grpc.StatusCode.NOT_FOUND),
        ("GetModelMetadata", pb.GetModelMetadataRequest(name="digits", label="x"), grpc.StatusCode.NOT_FOUND),
        ("LoadModel", pb.LoadModelRequest(name="no"), grpc.StatusCode.NOT_FOUND),
        ("LoadModel", pb.LoadModelRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("SetLabel", pb.SetLabelRequest(name="digits"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_wrong_requests_are_refused_with_their_codes(stub, method: str, message, code: grpc.StatusCode):
    assert refused(lambda: getattr(stub, method)(message, timeout=30)).code() is code


def test_admin_operations_reach_the_manager(server: Served, stub):
    server.manager.persistent = True
    assert stub.LoadModel(pb.LoadModelRequest(name="digits"), timeout=30).persistent
    stub.LoadModel(pb.LoadModelRequest(name="digits", version=0), timeout=30)
    stub.UnloadModel(pb.UnloadModelRequest(name="digits", version=1), timeout=30)
    stub.SetLabel(pb.SetLabelRequest(name="digits", label="stable", version=1), timeout=30)
    stub.SetLabel(pb.SetLabelRequest(name="digits", label="stable"), timeout=30)
    stub.Rollback(pb.RollbackRequest(name="digits"), timeout=30)
    answer = stub.Rollback(pb.RollbackRequest(name="digits", to_version=1), timeout=30)
    assert answer.model.name == "digits"
    assert server.manager.asked == [
        ("load", "digits", None),
        ("load", "digits", 0),
        ("unload", "digits", 1),
        ("label", "digits", "stable", 1),
        ("label", "digits", "stable", None),
        ("rollback", "digits", None),
        ("rollback", "digits", 1),
    ]


def test_a_load_is_answered_when_it_is_done(server: Served, stub):
    server.manager.hold_admin = Future()
    load = stub.LoadModel.future(pb.LoadModelRequest(name="digits"), timeout=60)
    eventually(lambda: len(server.manager.asked) == 1)
    assert not load.done()
    assert stub.ListModels(pb.ListModelsRequest(), timeout=30).models  # other calls are answered meanwhile
    server.manager.hold_admin.set_result(ModelStatus("digits"))
    assert load.result().model.name == "digits"


def test_a_failed_load_is_answered_with_the_reason(server: Served, stub):
    server.manager.hold_admin = Future()
    server.manager.hold_admin.set_exception(Conflict("digits:1 failed to load: the file is cut short"))
    error = refused(lambda: stub.LoadModel(pb.LoadModelRequest(name="digits"), timeout=30))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "digits:1 failed to load: the file is cut short"


def changes(stream: object, count: int) -> list[tuple[str, int, str, bool]]:
    return [
        (m.name, m.version.version, pb.VersionState.Name(m.version.state).removeprefix("VERSION_STATE_"), m.initial)
        for m in (next(stream) for _ in range(count))
    ]


def test_watch_sends_the_present_states_then_every_change(server: Served, stub):
    server.manager.available("other", 5)
    everything = stub.WatchModels(pb.WatchModelsRequest(), timeout=60)
    one = stub.WatchModels(pb.WatchModelsRequest(name="digits"), timeout=60)
    assert changes(everything, 2) == [("digits", 1, "AVAILABLE", True), ("other", 5, "AVAILABLE", True)]
    assert changes(one, 1) == [("digits", 1, "AVAILABLE", True)]
    server.manager.change(VersionStatus(ServableId("other", 6), State.LOADING))
    server.manager.change(VersionStatus(ServableId("digits", 1), State.UNLOADING))
    server.manager.change(VersionStatus(ServableId("digits", 1), State.END))
    assert changes(one, 2) == [("digits", 1, "UNLOADING", False), ("digits", 1, "END", False)]
    assert changes(everything, 3)[0] == ("other", 6, "LOADING", False)


def test_a_watch_of_an_unknown_model_waits_for_it(server: Served, stub):
    stream = stub.WatchModels(pb.WatchModelsRequest(name="later"), timeout=60)
    eventually(lambda: len(server.manager.subscribers) == 2)  # health's own and this one
    server.manager.available("later", 1)
    assert changes(stream, 1) == [("later", 1, "AVAILABLE", False)]


def test_a_change_during_the_present_states_is_sent_once(server: Served, stub):
    models = server.manager.models

    def models_that_change():
        found = models()
        server.manager.models = models
        server.manager.change(VersionStatus(ServableId("digits", 1), State.UNLOADING))
        server.manager.change(found[0].versions[0])  # the same status that is sent as a present state
        return found

    server.manager.models = models_that_change
    stream = stub.WatchModels(pb.WatchModelsRequest(), timeout=60)
    assert changes(stream, 2) == [("digits", 1, "AVAILABLE", True), ("digits", 1, "UNLOADING", False)]


def test_a_cancelled_watch_is_unsubscribed(server: Served, stub):
    stream = stub.WatchModels(pb.WatchModelsRequest(), timeout=60)
    next(stream)
    assert len(server.manager.subscribers) == 2
    stream.cancel()
    eventually(lambda: len(server.manager.subscribers) == 1)


def test_a_watch_that_is_not_read_is_cut_off(server: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "MAX_UNSENT", 8)
    stub = model_service_pb2_grpc.ModelServiceStub(server.channel(**{"http2.lookahead_bytes": 1024}))
    stream = stub.WatchModels(pb.WatchModelsRequest(), timeout=60)
    next(stream)
    big = VersionStatus(ServableId("digits", 1), State.END, error="x" * 100_000)
    for _ in range(10_000):  # far more than the flow control windows hold
        server.manager.change(big)
        if len(server.manager.subscribers) == 1:
            break
    assert len(server.manager.subscribers) == 1
    error = refused(lambda: list(stream))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "8 changes behind" in error.details()


def test_listing_models_of_an_unreadable_repository_is_an_error(server: Served, stub) -> None:
    server.manager.states.clear()
    assert not stub.ListModels(pb.ListModelsRequest(), timeout=30).models
    server.manager.errors = ("/models cannot be read: Permission denied",)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListModels(pb.ListModelsRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "no models: /models cannot be read: Permission denied"


def test_repository_errors_are_shown_only_to_callers_who_may_see_every_model(serve, tmp_path: Path) -> None:
    keys = Keys()
    server = serve(config=guarded_config(tmp_path, keys))
    server.manager.states.clear()
    server.manager.errors = ("/models cannot be read: Permission denied",)
    list_models = server.channel().unary_unary("/inferd.v1.ModelService/ListModels")
    assert list_models(b"", metadata=header(with_scopes(keys, ["metadata"], ["digits"])), timeout=30) == b""
    error = refused(lambda: list_models(b"", metadata=header(with_scopes(keys, ["metadata"], ["*"])), timeout=30))
    assert error.details() == "no models: /models cannot be read: Permission denied"
