"""Access beyond the table of all methods: operators, health of models, streams that outlive their token, the audit
log."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from support.access import STATIC, WatchedManager, guarded_config, header, settings, with_scopes
from support.client import make_chain
from support.rest import Rest
from support.rpc import PREDICT, PREDICT_STREAM, FakeMetrics, Served, refused, request
from support.security import OTHER_SECRET, Call, Keys, entry, write_tokens

from inferd.oip.v1 import control_pb2 as oip
from inferd.server.access import audit
from inferd.server.access.attempts import BURST
from inferd.server.access.authority import Authority
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.rules import AccessRules, make_access_rules
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Unauthenticated
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.service import InferenceService
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.server.observability.events import FIELDS
from inferd.server.observability.rate_limit import RateLimit
from inferd.tfs.v1 import model_service_pb2 as tfs
from inferd.v1 import model_service_pb2 as pb

LOAD = "/inferd.v1.ModelService/LoadModel"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
WATCH_MODELS = "/inferd.v1.ModelService/WatchModels"
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    return refused(call).code()


def load(server: Served, authorization: str | None, **more: str) -> Callable[[], object]:
    metadata = [*header(authorization), *more.items()]
    call = server.channel().unary_unary(LOAD)
    return lambda: call(pb.LoadModelRequest(name="digits").SerializeToString(), metadata=metadata, timeout=20)


class TestAdmin:
    def test_local_operators_need_the_scope_too(self, serve, keys: Keys, tmp_path: Path):
        server = serve(config=guarded_config(tmp_path, keys, admin={"allow": "local_peer"}))
        assert code_of(load(server, None)) is UNAUTHENTICATED
        assert code_of(load(server, with_scopes(keys, ["predict", "metadata"]))) is DENIED
        assert load(server, f"Bearer {STATIC}")()
        error = refused(load(server, f"Bearer {STATIC}", via="proxy"))
        assert error.code() is DENIED
        assert "admin.allow: local_peer" in error.details()

    def test_authenticated_operators_may_be_anywhere(self, serve, keys: Keys, tmp_path: Path):
        server = serve(config=guarded_config(tmp_path, keys))
        assert load(server, f"Bearer {STATIC}", via="proxy")()

    def test_anonymous_operators_are_refused_unless_anyone_is_allowed(self, serve, keys: Keys, tmp_path: Path):
        config = settings(tmp_path, keys)
        config["auth"]["anonymous"] = {"scopes": ["admin"]}
        assert code_of(load(serve(config=ServerConfig.model_validate(config)), None)) is UNAUTHENTICATED
        config["admin"] = {"allow": "anyone"}
        assert load(serve(config=ServerConfig.model_validate(config)), None)()

    def test_authenticated_operators_need_a_setting_for_credentials(self):
        with pytest.raises(ValueError, match=r"with admin\.allow: authenticated, got none"):
            ServerConfig.model_validate({"admin": {"allow": "authenticated"}})

    def test_only_an_operator_of_all_models_replaces_them(self, serve, keys: Keys, tmp_path: Path):
        config = guarded_config(tmp_path, keys, repository={"roots": [str(tmp_path)]})
        server = serve(config=config, manager=WatchedManager())
        call = server.channel().unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")

        def reload(authorization: str, *models: str) -> None:
            asked = tfs.ReloadConfigRequest()
            for model in models:
                (tmp_path / model / "1").mkdir(parents=True, exist_ok=True)
                asked.config.model_config_list.config.add(name=model, base_path=str(tmp_path / model))
            call(asked.SerializeToString(), metadata=header(authorization), timeout=20)

        reload(f"Bearer {STATIC}", "mine-1", "theirs")
        limited = with_scopes(keys, ["admin"], ["mine-*"])
        for models in (("mine-2",), ("mine-2", "theirs"), ()):
            assert code_of(lambda models=models: reload(limited, *models)) is DENIED
        assert set(server.manager.configured_models) == {"mine-1", "theirs"}

    @pytest.mark.parametrize("place", ["/etc", "/nowhere/m", "models", "models/../outside", "models/link"])
    def test_a_base_path_lies_where_the_configuration_has_models(self, serve, keys: Keys, tmp_path: Path, place: str):
        (tmp_path / "models").mkdir()
        (tmp_path / "outside" / "1").mkdir(parents=True)
        (tmp_path / "models" / "link").symlink_to(tmp_path / "outside")
        config = guarded_config(tmp_path, keys, repository={"roots": [str(tmp_path / "models")]})
        server = serve(config=config, manager=WatchedManager())
        asked = tfs.ReloadConfigRequest()
        asked.config.model_config_list.config.add(name="new", base_path=str(tmp_path / place))
        call = server.channel().unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        ask = lambda: call(asked.SerializeToString(), metadata=header(f"Bearer {STATIC}"), timeout=20)  # noqa: E731
        assert code_of(ask) is DENIED
        assert server.manager.configured_models == {}

    def test_nobody_operates_where_admin_is_off(self, serve, keys: Keys, tmp_path: Path):
        config = guarded_config(tmp_path, keys, admin={"allow": "none"})
        server = serve(config=config, manager=WatchedManager())
        call = server.channel().unary_unary("/inferd.v1.ModelService/LoadModel")
        message = pb.LoadModelRequest(name="digits").SerializeToString()
        assert code_of(lambda: call(message, metadata=header(f"Bearer {STATIC}"), timeout=20)) is DENIED
        assert server.manager.touched == []


class TestAnonymous:
    def test_anonymous_callers_have_the_grants_of_auth_anonymous(self, serve, keys: Keys, tmp_path: Path):
        config = settings(tmp_path, keys)
        config["auth"]["anonymous"] = {"scopes": ["predict"], "models": ["dig*"]}
        server = serve(config=ServerConfig.model_validate(config), manager=WatchedManager())
        call = server.channel().unary_unary(PREDICT)
        assert call(request(), timeout=20)
        assert code_of(lambda: call(request(name="secret"), timeout=20)) is UNAUTHENTICATED
        assert code_of(lambda: call(request(), metadata=header("Bearer wrong"), timeout=20)) is UNAUTHENTICATED
        assert call(request(name="secret"), metadata=header(f"Bearer {STATIC}"), timeout=20)

    def test_auth_open_decides_about_health_and_reflection(self, serve, keys: Keys, tmp_path: Path):
        config = settings(tmp_path, keys)
        config["auth"]["open"] = ["reflection"]
        channel = serve(config=ServerConfig.model_validate(config)).channel()
        assert code_of(lambda: channel.unary_unary(CHECK)(b"", timeout=20)) is UNAUTHENTICATED
        assert channel.unary_unary(CHECK)(b"", metadata=header(with_scopes(keys, [])), timeout=20)
        reflection = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert list(reflection(iter([b"\x3a\x00"]), timeout=20))


class TestHealthOfModels:
    @pytest.mark.parametrize("model", ["secret", "nosuch"])
    def test_health_of_a_model_reveals_nothing_to_others(self, serve, keys: Keys, tmp_path: Path, model: str):
        server = serve(config=guarded_config(tmp_path, keys), manager=WatchedManager())
        asked = health_pb2.HealthCheckRequest(service=model).SerializeToString()
        channel = server.channel()
        check, watch = channel.unary_unary(CHECK), channel.stream_stream("/grpc.health.v1.Health/Watch")
        mine = header(with_scopes(keys, ["metadata"], ["dig*"]))
        for metadata, code in (([], UNAUTHENTICATED), (mine, DENIED)):
            assert code_of(lambda m=metadata: check(asked, metadata=m, timeout=20)) is code
            assert code_of(lambda m=metadata: next(watch(iter([asked]), metadata=m, timeout=20))) is code

    def test_health_of_a_model_is_shown_to_its_callers(self, serve, keys: Keys, tmp_path: Path):
        server = serve(config=guarded_config(tmp_path, keys))
        asked = health_pb2.HealthCheckRequest(service="digits").SerializeToString()
        mine = header(with_scopes(keys, ["metadata"], ["dig*"]))
        answer = server.channel().unary_unary(CHECK)(asked, metadata=mine, timeout=20)
        assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


def open_stream(server: Served, authorization: str) -> tuple[queue.Queue[bytes | None], Iterator[bytes]]:
    messages: queue.Queue[bytes | None] = queue.Queue()
    answers = server.channel().stream_stream(PREDICT_STREAM)(
        iter(messages.get, None), metadata=header(authorization), timeout=30
    )
    return messages, answers


class TestStreams:
    def test_each_message_of_a_stream_is_authorized(self, serve, keys: Keys, tmp_path: Path):
        server = serve(config=guarded_config(tmp_path, keys), manager=WatchedManager())
        messages, answers = open_stream(server, with_scopes(keys, ["predict"], ["dig*"]))
        for model, allowed in (("digits", True), ("secret", False), ("nosuch", False), ("digits", True)):
            messages.put(request(name=model))
            assert (b"expected credentials with the scope" not in next(answers)) is allowed
        messages.put(None)
        assert list(answers) == []
        assert server.manager.touched == ["digits", "digits"]

    def test_a_revoked_token_ends_its_streams(self, serve, keys: Keys, tmp_path: Path):
        config = guarded_config(tmp_path, keys)
        rules, files = make_access_rules(config), FileWatch(3600)
        rules.authority.watch(files)
        manager = WatchedManager()
        table = build_method_table(
            manager, FakeMetrics(), config, inflight=InflightBounds(config.inflight), rules=rules
        )
        server = serve(config=config, manager=manager, table=table)
        messages, answers = open_stream(server, f"Bearer {STATIC}")
        messages.put(request())
        assert next(answers)
        write_tokens(tmp_path / "tokens.yaml", {"everything": entry("another", ["predict"])})
        files.look()
        messages.put(request())
        assert code_of(lambda: next(answers)) is UNAUTHENTICATED
        assert manager.touched == ["digits"]

    @pytest.mark.parametrize("method", [WATCH, WATCH_MODELS])
    def test_a_revoked_token_gets_no_further_changes(self, serve, keys: Keys, tmp_path: Path, method: str):
        config = guarded_config(tmp_path, keys)
        rules, files, manager = make_access_rules(config), FileWatch(3600), WatchedManager()
        rules.authority.watch(files)
        table = build_method_table(
            manager, FakeMetrics(), config, inflight=InflightBounds(config.inflight), rules=rules
        )
        server = serve(config=config, manager=manager, table=table)
        before = len(manager.subscribers)
        asked = {
            WATCH: health_pb2.HealthCheckRequest(service="digits"),
            WATCH_MODELS: pb.WatchModelsRequest(name="digits"),
        }[method].SerializeToString()
        changes = server.channel().unary_stream(method)(asked, metadata=header(f"Bearer {STATIC}"), timeout=30)
        assert next(changes)
        write_tokens(tmp_path / "tokens.yaml", {"everything": entry("another", ["metadata"])})
        files.look()
        manager.change(VersionStatus(ServableId("digits", 1), State.UNLOADING))
        assert code_of(lambda: list(changes)) is UNAUTHENTICATED
        assert len(manager.subscribers) == before, "the watch has ended its subscription"

    def test_an_expired_token_ends_its_streams(self, serve, keys: Keys, tmp_path: Path, monkeypatch):
        server = serve(config=guarded_config(tmp_path, keys))
        messages, answers = open_stream(server, with_scopes(keys, ["predict"]))
        messages.put(request())
        assert next(answers)
        later = time.time() + 7200
        monkeypatch.setattr("inferd.server.access.authority.time", lambda: later)
        monkeypatch.setattr("jwt.api_jwt.datetime", _later(later))
        messages.put(request())
        assert code_of(lambda: next(answers)) is UNAUTHENTICATED


def _later(moment: float) -> type:
    from datetime import datetime, tzinfo

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(moment, tz)

    return Later


class TestCertificates:
    def test_the_name_in_a_certificate_is_a_caller(self, serve, keys: Keys, tmp_path: Path):
        chain = make_chain(tmp_path)
        config = settings(tmp_path, keys)
        config["auth"]["certificates"] = {"caller": {"scopes": ["predict"], "models": ["digits"]}}
        config["server"] = {
            "tls": {"certificate": str(chain["server.pem"]), "key": str(chain["server.key"]),
                    "client_ca": str(chain["ca.pem"])}
        }  # fmt: skip
        server = serve(config=ServerConfig.model_validate(config), manager=WatchedManager())
        trusted = grpc.ssl_channel_credentials(*(chain[n].read_bytes() for n in ("ca.pem", "client.key", "client.pem")))
        channel = server.channel(trusted)
        assert channel.unary_unary(PREDICT)(request(), timeout=20)
        assert code_of(lambda: channel.unary_unary(PREDICT)(request(name="secret"), timeout=20)) is DENIED
        assert code_of(lambda: channel.unary_unary("/inferd.v1.ModelService/ListModels")(b"", timeout=20)) is DENIED
        # The server's own certificate is of the same authority, but its name is no caller.
        others = grpc.ssl_channel_credentials(*(chain[n].read_bytes() for n in ("ca.pem", "server.key", "server.pem")))
        assert code_of(lambda: server.channel(others).unary_unary(PREDICT)(request(), timeout=20)) is UNAUTHENTICATED
        by_token = server.channel(others).unary_unary(PREDICT)
        assert by_token(request(name="secret"), metadata=header(f"Bearer {STATIC}"), timeout=20)


class TestAudit:
    @pytest.fixture
    def lines(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, object]]]:
        caplog.set_level(logging.INFO, "inferd.audit")

        def found() -> list[dict[str, object]]:
            return [
                {k: v for k, v in record.__dict__[FIELDS].items() if v is not None}
                for record in caplog.records
                if record.name == "inferd.audit"
            ]

        return found

    def test_every_admin_action_is_in_the_audit_log(self, serve, keys: Keys, tmp_path: Path, lines):
        server = serve(config=guarded_config(tmp_path, keys))
        channel = server.channel()
        metadata = [*header(f"Bearer {STATIC}"), ("x-request-id", "r-1")]
        asked = {
            LOAD: pb.LoadModelRequest(name="digits", version=3),
            "/inferd.v1.ModelService/UnloadModel": pb.UnloadModelRequest(name="digits"),
            "/inferd.v1.ModelService/SetLabel": pb.SetLabelRequest(name="digits", label="stable", version=1),
            "/inferd.v1.ModelService/Rollback": pb.RollbackRequest(name="digits", to_version=2),
            "/inference.GRPCInferenceService/RepositoryModelLoad": oip.RepositoryModelLoadRequest(model_name="digits"),
            "/inference.GRPCInferenceService/RepositoryModelUnload": oip.RepositoryModelUnloadRequest(model_name="x"),
        }
        for method, message in asked.items():
            channel.unary_unary(method)(message.SerializeToString(), metadata=metadata, timeout=20)
        told = [
            {"model": "digits", "version": 3},
            {"model": "digits"},
            {"model": "digits", "version": 1, "label": "stable"},
            {"model": "digits", "version": 2},
            {"model": "digits"},
            {"model": "x"},
        ]
        for line, method, what in zip(lines(), asked, told, strict=True):
            assert str(line.pop("peer")).startswith(("ipv4:127.0.0.1:", "ipv6:"))
            assert line == {"method": method, "who": "everything", "request_id": "r-1", "outcome": "OK", **what}

    def test_failed_and_refused_actions_are_in_the_audit_log(self, serve, keys: Keys, tmp_path: Path, lines):
        server = serve(config=guarded_config(tmp_path, keys))
        call = server.channel().unary_unary(LOAD)
        for name, authorization in (
            ("nosuch\nadmin forged", f"Bearer {STATIC}"),
            ("digits", with_scopes(keys, ["predict"])),
            ("digits", "Bearer wrong"),
        ):
            refused(
                lambda n=name, a=authorization: call(
                    pb.LoadModelRequest(name=n).SerializeToString(), metadata=header(a), timeout=20
                )
            )
        outcomes = [(line.get("who"), line["outcome"], line["model"]) for line in lines()]
        assert outcomes == [
            ("everything", "NOT_FOUND", "nosuch\\nadmin forged"),
            ("jwt:user-1", "PERMISSION_DENIED", "digits"),
            (None, "UNAUTHENTICATED", "digits"),
        ]
        assert STATIC not in str(lines())

    def test_an_upload_is_logged_with_the_names_of_its_files_only(self, serve, keys: Keys, tmp_path: Path, lines):
        server = serve(config=guarded_config(tmp_path, keys))
        asked = oip.RepositoryModelLoadRequest(model_name="digits")
        asked.parameters["config"].string_param = "{}"
        asked.parameters["file:1/model.onnx"].bytes_param = b"canary content"
        call = server.channel().unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
        refused(lambda: call(asked.SerializeToString(), metadata=header(f"Bearer {STATIC}"), timeout=20))
        (line,) = lines()
        assert (line["who"], line["model"], line["outcome"]) == ("everything", "digits", "PERMISSION_DENIED")
        assert set(str(line["parameters"]).split(", ")) == {"config", "file:1/model.onnx"}
        assert "canary" not in str(line)

    def test_actions_over_rest_are_logged_once_under_the_name_of_their_method(self, keys: Keys, tmp_path: Path, lines):
        with Rest(manager=WatchedManager(), **settings(tmp_path, keys)) as rest:
            for model, authorization in (
                ("digits", f"Bearer {STATIC}"),
                ("nosuch", f"Bearer {STATIC}"),
                ("digits", with_scopes(keys, ["metadata"])),
                ("secret", with_scopes(keys, ["admin"], ["dig*"])),
                ("digits", "Bearer wrong"),
            ):
                path = f"/v2/repository/models/{model}/load"
                rest.ask("POST", path, {}, authorization=authorization, x_request_id="r-1")
        found = [(line.get("who"), line["outcome"], line["model"]) for line in lines()]
        assert found == [
            ("everything", "OK", "digits"),
            ("everything", "INTERNAL", "nosuch"),
            ("jwt:user-1", "PERMISSION_DENIED", "digits"),
            ("jwt:user-1", "PERMISSION_DENIED", "secret"),
            (None, "UNAUTHENTICATED", "digits"),
        ]
        assert {line["method"] for line in lines()} == {"/inference.GRPCInferenceService/RepositoryModelLoad"}
        assert {line["request_id"] for line in lines()} == {"r-1"}

    def test_refusals_over_a_rate_are_counted_instead_of_logged(
        self, serve, keys: Keys, tmp_path: Path, lines, monkeypatch
    ):
        # The clock stands still, so that a slow machine does not let more lines through.
        monkeypatch.setattr(audit, "RateLimit", partial(RateLimit, clock=lambda: 0.0))
        server = serve(config=guarded_config(tmp_path, keys))
        call = server.channel().unary_unary(LOAD)
        for _ in range(100):
            refused(lambda: call(b"", timeout=20))
        assert len(lines()) == 50

    def test_without_credentials_the_audit_log_has_the_peer(self, serve, lines):
        server = serve()
        load(server, None)()
        refused(load(server, None, via="proxy"))
        done, turned_away = lines()
        assert (done["outcome"], done["model"], "who" in done) == ("OK", "digits", False)
        assert turned_away["outcome"] == "PERMISSION_DENIED"


@pytest.mark.parametrize("others", ["Bearer another", f"Bearer {STATIC}"])
def test_several_credentials_are_refused(serve, keys: Keys, tmp_path: Path, others: str):
    """A proxy that adds one and the server that reads one could each choose another."""
    server = serve(config=guarded_config(tmp_path, keys))
    call = server.channel().unary_unary(PREDICT)
    for both in ((f"Bearer {STATIC}", others), (others, f"Bearer {STATIC}")):
        metadata = [("authorization", value) for value in both]
        assert code_of(lambda m=metadata: call(request(), metadata=m, timeout=20)) is UNAUTHENTICATED


def test_an_unusable_tokens_file_is_an_error_at_start(serve):
    with pytest.raises(ConfigError, match=r"gone\.yaml: expected a readable file"):
        serve(config=ServerConfig.model_validate({"auth": {"tokens_file": "gone.yaml"}}))


def test_no_setting_puts_another_handler_before_a_prediction(keys: Keys, tmp_path: Path):
    """With and without credentials and bounds, all inference methods have the same handler, which takes lists."""
    limited = ServerConfig.model_validate({"limits": {"clients": {"rate": 5.0}}})
    for config in (ServerConfig(), limited, guarded_config(tmp_path, keys)):
        table = build_method_table(WatchedManager(), FakeMetrics(), config, inflight=InflightBounds(config.inflight))
        (handler,) = {table.unary[path] for path in table.gathered}
        assert handler.__func__ is InferenceService.handle  # type: ignore[attr-defined]
        assert PREDICT in table.gathered


def test_over_the_bound_on_failures_of_an_address_no_new_token_is_verified(serve, keys: Keys, tmp_path: Path):
    config = guarded_config(tmp_path, keys)
    authority = Authority(config.auth, lambda: 0.0)
    manager = WatchedManager()
    rules = AccessRules(config.admin, authority)
    table = build_method_table(manager, FakeMetrics(), config, inflight=InflightBounds(config.inflight), rules=rules)
    server = serve(config=config, manager=manager, table=table)
    call = server.channel().unary_unary(PREDICT)
    good = header(with_scopes(keys, ["predict"]))
    assert call(request(), metadata=good, timeout=20)
    for number in range(BURST):
        bad = Call(f"Bearer {keys.token(key=OTHER_SECRET, sub=str(number))}", peer="ipv4:127.0.0.1:1")
        with pytest.raises(Unauthenticated):
            authority.identify(bad)
    new = header(f"Bearer {keys.token(sub='new')}")
    error = refused(lambda: call(request(), metadata=new, timeout=20))
    assert error.code() is UNAUTHENTICATED
    assert "too many came" in error.details()
    assert call(request(), metadata=good, timeout=20)
