"""Small parts without a socket: in-flight bounds, statuses, log lines, addresses; and the native services without a
transport."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import grpc_testing
import pytest
from support.rpc import FakeManager, FakeMetrics, check, request

from inferd.backends.api import BackendError, InvalidInput
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.schema import Inflight as InflightConfig
from inferd.server.config.schema import Server, ServerConfig
from inferd.server.errors import Code, ExecutionFailed, InvalidRequest, QueueTimeout
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import failure_of, refusal
from inferd.server.inference.inflight import InflightBounds
from inferd.server.observability.events import FIELDS
from inferd.server.transport import listen
from inferd.server.transport.grpc_aio.calls import STATUS
from inferd.v1 import model_service_pb2, predict_service_pb2
from inferd.wire.tensors import TensorError


class TestInflight:
    def test_calls_are_bounded(self):
        inflight = InflightBounds(InflightConfig(calls=2))
        assert [inflight.enter() for _ in range(3)] == [True, True, False]
        inflight.leave(0)
        assert inflight.enter()

    def test_bytes_are_bounded(self):
        inflight = InflightBounds(InflightConfig(bytes="100B"))
        assert inflight.enter()
        assert inflight.hold(60)
        assert inflight.enter()
        assert not inflight.hold(41)
        assert inflight.hold(40)
        assert not inflight.enter()  # full: the call is refused before its message is received
        inflight.leave(60)
        assert (inflight.calls, inflight.nbytes) == (1, 40)
        assert inflight.enter()

    def test_one_message_over_the_byte_bound_is_accepted_alone(self):
        inflight = InflightBounds(InflightConfig(bytes="100B"))
        assert inflight.enter()
        assert inflight.hold(1000)
        assert not inflight.enter()

    def test_many_threads_leave_the_counts_at_zero(self):
        inflight = InflightBounds(InflightConfig(calls=8, bytes="1KiB"))

        def work() -> None:
            rng = random.Random(threading.get_ident())
            for _ in range(500):
                if inflight.enter():
                    size = rng.randrange(300)
                    inflight.leave(size if inflight.hold(size) else 0)
                assert 0 <= inflight.calls <= 8

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (inflight.calls, inflight.nbytes) == (0, 0)


class TestStatus:
    @pytest.mark.parametrize(
        ("error", "code", "text", "accepted"),
        [
            (InvalidRequest("x"), Code.INVALID_ARGUMENT, "x", "0"),
            (QueueTimeout("late"), Code.DEADLINE_EXCEEDED, "late", "0"),
            (ExecutionFailed("boom"), Code.INTERNAL, "boom", "1"),
            (TensorError("bad"), Code.INVALID_ARGUMENT, "bad", "0"),
            (InvalidInput("guard"), Code.INVALID_ARGUMENT, "guard", "0"),
            (BackendError("cuda"), Code.INTERNAL, "cuda", "1"),
            (KeyError("secret"), Code.INTERNAL, "internal error (request id r)", "1"),
        ],
    )
    def test_errors_have_their_codes_and_texts(self, error: Exception, code: Code, text: str, accepted: str):
        failure = failure_of(error, "r")
        assert (failure.code, failure.text) == (code, text)
        assert ("inferd-accepted", accepted) in failure.trailing

    def test_every_code_has_a_grpc_status(self):
        assert {code: status.value[0] for code, status in STATUS.items()} == {code: code.value for code in Code}

    def test_long_texts_are_cut_and_encodable(self):
        assert len(refusal(Code.NOT_FOUND, "x" * 10_000).text) <= 1024
        refusal(Code.NOT_FOUND, "\ud800").text.encode()


def fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = record.__dict__[FIELDS]
    return found


class TestFailureLog:
    def test_lines_over_the_rate_are_counted_instead_of_written(self, caplog: pytest.LogCaptureFixture):
        now = [0.0]
        log = FailureLog(lines=2, window=10.0, clock=lambda: now[0])
        with caplog.at_level(logging.INFO, "inferd.rpc"):
            for _ in range(100):
                log.write("/m", refusal(Code.NOT_FOUND, "gone"), request_id="r")
            log.write("/m", refusal(Code.UNAVAILABLE, "other"))
            assert len(caplog.records) == 3
            now[0] = 10.0
            log.write("/m", refusal(Code.NOT_FOUND, "gone"))
        assert fields(caplog.records[-1])["left_out"] == 98
        assert fields(caplog.records[0]) == {
            "method": "/m", "code": "NOT_FOUND", "model": None, "request_id": "r", "peer": None, "left_out": None,
            "reason": "gone",
        }  # fmt: skip
        assert caplog.records[0].levelno == logging.INFO
        assert caplog.records[2].levelno == logging.WARNING

    def test_a_client_cannot_forge_or_inflate_log_lines(self, caplog: pytest.LogCaptureFixture):
        with caplog.at_level(logging.INFO, "inferd.rpc"):
            FailureLog().write("/m", refusal(Code.NOT_FOUND, "a\nb"), request_id="x\ny" + "z" * 1000, model="m\r")
        assert caplog.messages == ["request failed"]
        words = [str(value) for value in fields(caplog.records[0]).values()]
        assert all(len(word.splitlines()) <= 1 for word in words)
        assert sum(map(len, words)) < 500


class TestAddresses:
    def test_of_the_default_addresses_only_the_first_is_required(self):
        first, second = listen.addresses(Server())
        assert (first.text, first.required) == ("0.0.0.0:8001", True)
        assert (second.text, second.required) == ("0.0.0.0:8500", False)

    def test_all_configured_addresses_are_required(self):
        found = listen.addresses(Server(listen=("0.0.0.0:8001", "0.0.0.0:8500")))
        assert [address.required for address in found] == [True, True]

    def test_a_name_is_bound_at_all_its_addresses_or_at_none(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            place = f"localhost:{taken.getsockname()[1]}"
            with pytest.raises(OSError, match=f"cannot listen on {place}: address already in use"):
                listen.bind([listen.Address(place)], None, lambda *_: pytest.fail("the core was asked"))

    @pytest.mark.parametrize(
        ("name", "told"), [("s" * 108, "at most 107 bytes"), ("file", "no socket"), ("no/s", "there is no directory")]
    )
    def test_an_impossible_unix_socket_is_refused_with_the_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, told
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=f"cannot listen on unix:{name}: .*{told}"):
            listen.bind([listen.Address(f"unix:{name}")], None, lambda *_: pytest.fail("the core was asked"))

    def test_without_ipv6_the_wildcard_is_ipv4(self, monkeypatch: pytest.MonkeyPatch):
        assert listen.bindable("127.0.0.1:1") == "127.0.0.1:1"
        monkeypatch.setattr(listen, "has_ipv6", lambda: False)
        assert listen.bindable("[::]:8001") == "0.0.0.0:8001"
        assert listen.bindable("[::1]:8001") == "[::1]:8001"


class _Testing:
    """A UnaryCall over grpcio-testing's context, for services without a transport."""

    deadline = None
    peer = "ipv4:127.0.0.1:1"
    cancelled = False

    def __init__(self, method: str, request: bytes, metadata: Any) -> None:
        self.method = method
        self.request = request
        self._metadata = dict(metadata or ())
        self.outcome: Any = None

    def metadata(self, key: str) -> str | None:
        return self._metadata.get(key)

    def on_cancel(self, fn: Any) -> None:
        pass

    def reply(self, message: bytes) -> None:
        self.outcome = message

    def fail(self, code: Code, text: str, trailing: Any = ()) -> None:
        self.outcome = (STATUS[code], text)


class _Servicer:
    """A servicer whose unary methods are those of the method table."""

    def __init__(self, service: Any, manager: FakeManager) -> None:
        config = ServerConfig()
        table = build_method_table(
            manager, FakeMetrics(), config, inflight=InflightBounds(config.inflight), check=check
        )
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            if path in table.unary:
                setattr(self, method.name, self._method(path, table.unary[path], method.output_type._concrete_class))

    def _method(self, path: str, handler: Any, answer: Any) -> Any:
        def serve(message: Any, context: grpc.ServicerContext) -> Any:
            call = _Testing(path, message.SerializeToString(), context.invocation_metadata())
            handler((call,), time.monotonic())
            if isinstance(call.outcome, bytes):
                return answer.FromString(call.outcome)
            code, text = call.outcome
            context.set_code(code)
            context.set_details(text)
            return answer()

        return serve


@pytest.fixture
def isolated() -> Any:
    predict = predict_service_pb2.DESCRIPTOR.services_by_name["PredictService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    manager = FakeManager()
    servicers = {service: _Servicer(service, manager) for service in (predict, models)}
    server = grpc_testing.server_from_dictionary(servicers, grpc_testing.strict_real_time())

    def invoke(service: str, method: str, message: Any, metadata: Any = ()) -> tuple[Any, Any, str]:
        descriptor = {"predict": predict, "models": models}[service].methods_by_name[method]
        call = server.invoke_unary_unary(descriptor, metadata, message, None)
        response, _, code, details = call.termination()
        return response, code, details

    return invoke


def test_predict_without_a_transport(isolated):
    response, code, _ = isolated("predict", "Predict", predict_service_pb2.PredictRequest.FromString(request()))
    assert code is grpc.StatusCode.OK
    assert response.outputs[0].name == "y"
    _, code, details = isolated("predict", "Predict", predict_service_pb2.PredictRequest(model={"name": "no"}))
    assert (code, details) == (grpc.StatusCode.NOT_FOUND, "model 'no' version None is not served")


def test_models_without_a_transport(isolated):
    response, code, _ = isolated("models", "ListModels", model_service_pb2.ListModelsRequest())
    assert code is grpc.StatusCode.OK
    assert [model.name for model in response.models] == ["digits"]
    load = model_service_pb2.LoadModelRequest(name="digits")
    assert isolated("models", "LoadModel", load)[1] is grpc.StatusCode.OK
    assert isolated("models", "LoadModel", load, (("via", "x"),))[1] is grpc.StatusCode.PERMISSION_DENIED


def test_exempt_methods_are_in_the_table():
    config = ServerConfig()
    table = build_method_table(
        FakeManager(), FakeMetrics(), config, inflight=InflightBounds(config.inflight), check=check
    )
    assert table.exempt
    assert table.exempt <= {*table.unary, *table.stream}
