from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.rpc import Served, eventually, refused

from inferd.server.lifecycle.state import ServableId, State, VersionStatus

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def stub(server: Served) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(server.channel())


def asked(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "inferd.v1.PredictService", "grpc.health.v1.Health"])
def test_service_names_have_the_servers_readiness(server: Served, stub, service: str):
    assert stub.Check(asked(service), timeout=30).status == SERVING
    server.manager.set_ready(False)
    assert stub.Check(asked(service), timeout=30).status == NOT_SERVING


def test_a_model_is_serving_while_a_version_is_available(server: Served, stub):
    assert stub.Check(asked("digits"), timeout=30).status == SERVING
    server.manager.change(VersionStatus(ServableId("digits", 2), State.LOADING))
    assert stub.Check(asked("digits"), timeout=30).status == SERVING
    server.manager.change(VersionStatus(ServableId("digits", 1), State.END))
    assert stub.Check(asked("digits"), timeout=30).status == NOT_SERVING


def test_an_unknown_service_is_not_found(stub):
    error = refused(lambda: stub.Check(asked("nope"), timeout=30))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "'nope'" in error.details()


def test_watch_sends_every_change_once(server: Served, stub):
    watch = stub.Watch(asked("later"), timeout=60)
    assert next(watch).status == UNKNOWN
    server.manager.change(VersionStatus(ServableId("later", 1), State.LOADING))
    assert next(watch).status == NOT_SERVING
    server.manager.change(VersionStatus(ServableId("later", 1), State.LOADING, error="again"))
    server.manager.change(VersionStatus(ServableId("other", 1), State.AVAILABLE))
    server.manager.available("later", 1)
    assert next(watch).status == SERVING
    server.manager.change(VersionStatus(ServableId("later", 1), State.UNLOADING))
    assert next(watch).status == NOT_SERVING


def test_watch_of_the_server_follows_readiness_and_stop(server: Served, stub):
    server.manager.set_ready(False)
    watch = stub.Watch(asked(""), timeout=60)
    assert next(watch).status == NOT_SERVING
    server.manager.set_ready(True)
    assert next(watch).status == SERVING
    server.health.stop()
    assert next(watch).status == NOT_SERVING
    server.manager.set_ready(True)  # a stopping server stays NOT_SERVING
    assert stub.Check(asked(""), timeout=30).status == NOT_SERVING
    assert stub.Check(asked("digits"), timeout=30).status == NOT_SERVING


def test_a_cancelled_watch_is_removed(server: Served, stub):
    watch = stub.Watch(asked(""), timeout=60)
    next(watch)
    assert len(server.health._watchers) == 1
    watch.cancel()
    eventually(lambda: not server.health._watchers)


@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Watch", "/inferd.v1.ModelService/WatchModels"])
def test_a_watch_of_an_overlong_name_is_refused(server: Served, path: str):
    watch = server.channel().unary_stream(path)(asked("x" * 100_000).SerializeToString(), timeout=30)
    error = refused(lambda: next(watch))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 1024 characters, got 100000" in error.details()


def test_a_malformed_watch_request_is_refused(server: Served):
    error = refused(lambda: next(server.channel().unary_stream("/grpc.health.v1.Health/Watch")(b"\xff", timeout=30)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
