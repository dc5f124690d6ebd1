"""What an operator sees of a running server: its log, its metrics, and why it is not ready."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.marked import prepare_model, publish
from support.security import entry, write_tokens
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, FailedPrecondition, NotFound
from inferd.server.access.method_rules import SERVICES
from inferd.server.app import App
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.trace import trace_of
from inferd.server.observability.events import FIELDS

ONE = {"x": np.ones((1, 4), np.float32)}


def page(http: str, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{http}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "m"), 1, marker=1)
    return root


def test_queue_depth_is_in_the_metrics_while_the_version_is_served(models: Path) -> None:
    with Served(models) as server, Client(server.address) as client:
        shown = 'inferd_queue_requests{model="m",version="1"} 0.0'
        assert shown in page(server.http, "/metrics")
        assert 'inferd_queue_bytes{model="m",version="1"} 0.0' in page(server.http, "/metrics")
        client.unload("m")
        assert shown not in page(server.http, "/metrics")


def test_a_failed_request_is_logged_as_one_json_object(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    sets = (*FAST, f"log={{file: {log}, format: json}}")
    with (
        Served(models, sets=sets) as server,
        Client(server.address, retry=NO_RETRIES) as client,
        pytest.raises(NotFound),
    ):
        client.predict("nobody", ONE, request_id="r-17")
    [line] = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request failed"]
    assert (line["model"], line["code"], line["request_id"]) == ("nobody", "NOT_FOUND", "r-17")
    assert line["reason"].startswith("unknown model 'nobody'")


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


def test_failed_requests_are_logged_with_their_trace_on_every_protocol(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    with Served(models, sets=(*FAST, f"log={{file: {log}, format: json}}")) as server:
        with Client(server.address, retry=NO_RETRIES, metadata=PARENT) as client:
            with pytest.raises(NotFound):
                client.predict("nobody", ONE)
            with client.stream() as stream, pytest.raises(NotFound):
                stream.submit("nobody", ONE).result(timeout=30)
        for path in ("/v2/models/nobody/infer", "/v1/models/nobody:predict"):
            asked = urllib.request.Request(f"http://{server.http}{path}", b'{"inputs": []}', PARENT)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=10)
            refused.value.close()
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request failed"]
    assert len(lines) == 4
    assert {(line.get("trace_id"), line.get("span_id")) for line in lines} == {(TRACE, SPAN)}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-{'x' * 128}",
    ],
)
def test_an_invalid_traceparent_is_ignored(text: str | None) -> None:
    assert trace_of(text) is None


def test_a_later_version_of_traceparent_may_have_more_fields() -> None:
    assert trace_of(f"01-{TRACE}-{SPAN}-01-more") == (TRACE, SPAN)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("ghost", "bad"), ("ghost: not in the repository", "bad: model.onnx is text ('no model'), no ONNX model")),
        ("strict", ("bad:1 (model.onnx is text ('no model'), no ONNX model",)),
    ],
)
def test_readiness_names_the_models_that_are_waited_for_and_why(
    models: Path, rule: object, words: tuple[str, ...]
) -> None:
    (models / "bad/1").mkdir(parents=True)
    (models / "bad/1/model.onnx").write_bytes(b"no model")
    failed = threading.Event()
    with running(models, rule) as app:
        app.manager.subscribe(lambda change: failed.set() if change.status.error else None)
        app.start()
        assert failed.wait(60)
        found = app.readiness()
    assert not found.ready
    assert [word for word in words if word not in found.reason] == [], found.reason


def test_readiness_names_no_models_when_credentials_are_required(models: Path, tmp_path: Path) -> None:
    """/readyz is open to every caller, even if the server requires credentials."""
    (models / "bad/1").mkdir(parents=True)
    (models / "bad/1/model.onnx").write_bytes(b"no model")
    tokens = write_tokens(tmp_path / "tokens.yaml", {"app": entry("app", ["predict"])})
    failed = threading.Event()
    with running(models, "strict", auth={"tokens_file": str(tokens)}) as app:
        app.manager.subscribe(lambda change: failed.set() if change.status.error else None)
        app.start()
        assert failed.wait(60)
        found = app.readiness()
    assert not found.ready
    assert found.reason.startswith("waiting for ")
    assert "bad" not in found.reason


def test_a_setting_for_an_unknown_model_is_logged(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    ready, stop = threading.Event(), threading.Event()
    stop.set()
    repository = {"mode": "explicit", "load": ("m", "ghost")}
    with running(models, "settled", repository=repository, models={"n": {"stateful": True}}) as app:
        app.start()
        app.wait(stop, ready.set)
        assert ready.wait(60)
    found = [record.__dict__[FIELDS] for record in caplog.records if "is not there" in record.message]
    assert found == [{"setting": "repository.load", "model": "ghost"}, {"setting": "models", "model": "n"}]


def test_a_failed_transport_ends_the_wait(models: Path) -> None:
    stop = threading.Event()
    with running(models, "settled") as app:
        app.start()
        app.wait(stop, app._fail)  # once it is ready
        assert stop.is_set()
        assert not app.stop()


def test_a_model_that_cannot_be_read_is_in_the_metrics(models: Path) -> None:
    """Even a model that never loads, and so has no version in the metrics."""
    publish("onnx", prepare_model("onnx", models, "new", "version_polcy: all\n"), 1, marker=1)
    settings = models / "m/model.yaml"

    def wrong(app: App) -> set[str]:
        return set(
            re.findall(r'^inferd_model_error\{model="(\w+)"\} 1.0$', app.metrics.render().decode(), re.MULTILINE)
        )

    with running(models, "settled") as app:
        app.start()
        assert app.manager.wait_ready(60)
        assert wrong(app) == {"new"}
        settings.write_text("batching: 3\n")
        eventually(lambda: wrong(app) == {"m", "new"}, "it is noticed", app.manager.models)
        assert 'inferd_servable_state{model="m",state="available",version="1"} 1.0' in app.metrics.render().decode()
        settings.unlink()
        eventually(lambda: wrong(app) == {"new"}, "it is mended", app.manager.models)


def test_an_unreadable_root_is_the_reason_for_not_being_ready(tmp_path: Path) -> None:
    with running(tmp_path / "unmounted", "settled") as app:
        address = app.start().grpc[0]
        eventually(app.manager.repository_errors, "the repository is looked at")
        assert "unmounted cannot be read" in app.readiness().reason
        with Client(address) as client, pytest.raises(FailedPrecondition, match=r"no models: .*unmounted cannot be"):
            client.list_models()


def test_every_service_name_has_a_health_status(tmp_path: Path) -> None:
    with running(tmp_path, "settled") as app:
        address = app.start().grpc[0]
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def status(service: str) -> int:
                return int(health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)

            eventually(lambda: status("") == health_pb2.HealthCheckResponse.SERVING, "the server is ready")
            for service in SERVICES:
                assert status(service) == health_pb2.HealthCheckResponse.SERVING, service
            with pytest.raises(grpc.RpcError) as caught:
                status("inferd.v1.NoService")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_is_not_served_is_in_the_ready_line_and_on_the_ready_page(models: Path, tmp_path: Path) -> None:
    (models / "bad/1").mkdir(parents=True)
    (models / "bad/1/model.onnx").write_bytes(b"no model")
    (models / "flat").mkdir()
    (models / "flat/model.onnx").write_bytes((models / "m/1/model.onnx").read_bytes())
    with running(models, "settled") as app:
        app.start()
        assert app.manager.wait_ready(60)
        summary, found = app.summary(), app.readiness()
    assert summary.startswith(
        "3 models, 1 versions available, 2 with errors (inferd models): bad:1 (model.onnx is text"
    )
    assert "flat (" in summary
    assert "\n" not in summary
    assert found.ready
    assert list(found.details["not_served"]) == ["bad:1", "flat"]
    assert "flat/model.onnx lies directly in the model's directory" in found.details["not_served"]["flat"]
    tokens = write_tokens(tmp_path / "tokens.yaml", {"app": entry("app", ["predict"])})
    with running(models, "settled", auth={"tokens_file": str(tokens)}) as app:
        app.start()
        assert app.manager.wait_ready(60)
        assert app.readiness().details == {"not_served": 2}, "no names: the caller may have no right to know of them"


@pytest.mark.parametrize("inside", ["m", "m/1"], ids=["versions", "file"])
def test_a_root_that_is_itself_one_model_is_served(models: Path, inside: str) -> None:
    with running(models / inside, "nonempty", {"model_name": "only"}) as app:
        address = app.start().grpc[0]
        assert app.manager.wait_ready(60)
        with Client(address) as client:
            assert client.predict("only", ONE).version == 1
            assert [status.name for status in client.list_models()] == ["only"]


@contextmanager
def running(
    root: Path, readiness: object, repository: dict[str, object] | None = None, models: object = None, **more: object
) -> Iterator[App]:
    config = ServerConfig.model_validate(
        {
            "server": {"listen": ("127.0.0.1:0",), "http": (), "readiness": readiness},
            "repository": {"roots": (str(root),), "poll": 0.05, "settle": 0.1, **(repository or {})},
            "models": models or {},
            **more,
        }
    )
    app = App(config)
    try:
        yield app
    finally:
        app.stop()
