"""The rule book as a table: kinds of callers × what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.security import Call, entry, write_tokens

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Grants, Scope
from inferd.server.access.method_rules import PAGES, ROUTES, RULES, SERVER_NAMES, Rule, page_rule
from inferd.server.access.rules import ANYBODY, AccessRules, make_access_rules
from inferd.server.config.schema import Admin, ServerConfig
from inferd.server.errors import Forbidden, RateLimited, ServingError, Unauthenticated
from inferd.server.protocols.common.descriptor_names import real_names
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.tfs.v1 import prediction_service_pb2 as tfs
from inferd.v1 import model_service_pb2 as native

LOCAL, REMOTE, SOCKET = "ipv4:127.0.0.1:5", "ipv4:10.0.0.1:5", "unix:/run/inferd.sock"
PREDICT, METADATA, ADMIN = Scope.PREDICT, Scope.METADATA, Scope.ADMIN
TOKENS = {
    "predicts": entry("p" * 40, ["predict"], ["dig*"]),
    "looks": entry("m" * 40, ["metadata"], ["dig*"]),
    "operates": entry("a" * 40, ["admin"], ["dig*"]),
    "all": entry("w" * 40, ["predict", "metadata", "admin"], ["*"]),
    "nothing": entry("n" * 40, [], ["*"]),
    "expired": entry("e" * 40, ["predict"], ["*"], "2020-01-01T00:00:00Z"),
}
SENT = {
    "none": None,
    "unknown": "Bearer " + "u" * 40,
    "form": "Basic dXNlcjpwYXNz",
    "expired": "Bearer " + "e" * 40,
    **{name: "Bearer " + name_letter * 40 for name, name_letter in zip(TOKENS, "pmawn", strict=False)},
}


def rules(tmp_path: Path, *, allow: str = "authenticated", **settings: Any) -> AccessRules:
    tokens = write_tokens(tmp_path / "tokens.yaml", TOKENS)
    config = {"auth": {"tokens_file": str(tokens), "certificates": {"edge": {"scopes": ["predict"], "models": ["*"]}}}}
    config["auth"].update(settings.pop("auth", {}))
    return make_access_rules(ServerConfig.model_validate({**config, "admin": {"allow": allow}, **settings}))


def call(kind: str, peer: str = REMOTE, names: tuple[str, ...] = (), **headers: str) -> Call:
    made = Call(SENT[kind], names, peer)
    made.headers |= {key.replace("_", "-"): value for key, value in headers.items()}
    return made


def outcome(ask: Any) -> type[ServingError] | None:
    try:
        ask()
    except ServingError as error:
        return type(error)
    return None


NEVER = {"unknown", "form", "expired"}
MAY = {
    (PREDICT, "digits"): {"predicts", "all", "certificate"},
    (PREDICT, "secret"): {"all", "certificate"},
    (PREDICT, None): {"predicts", "all", "certificate"},
    (METADATA, "digits"): {"looks", "operates", "all"},
    (METADATA, "secret"): {"all"},
    (METADATA, None): {"looks", "operates", "all"},
    (ADMIN, "digits"): {"operates", "all"},
    (ADMIN, "secret"): {"all"},
    (ADMIN, None): {"operates", "all"},
    ("health", None): {"none", "predicts", "looks", "operates", "all", "nothing", "certificate"},
    ("reflection", None): {"looks", "operates", "all"},
    ("metrics", None): {"all"},
    ("nothing", None): {"none", "predicts", "looks", "operates", "all", "nothing", "certificate"},
}


@pytest.mark.parametrize("kind", [*SENT, "certificate"])
@pytest.mark.parametrize(("need", "model"), MAY)
def test_who_may_do_what(tmp_path: Path, kind: str, need: Any, model: str | None) -> None:
    book = rules(tmp_path)
    asked = call("none", names=("edge",)) if kind == "certificate" else call(kind)
    found = outcome(lambda: book.authorize(book.authenticate(asked, locate=need is ADMIN), need, model))
    if kind in MAY[need, model]:
        assert found is None
    else:
        assert found is (Unauthenticated if kind in {"none", *NEVER} else Forbidden)
    if model is None:  # the same decision, as the first step of a call
        assert outcome(lambda: book.admit(asked, Rule(need))) is found
    elif kind not in NEVER:
        assert book.allows(book.authenticate(asked, locate=True), need, model) is (found is None)


@pytest.mark.parametrize("allow", ["local_peer", "authenticated", "anyone"])
@pytest.mark.parametrize(
    ("peer", "header", "local"),
    [(LOCAL, None, True), (SOCKET, None, True), (REMOTE, None, False), (LOCAL, "x-forwarded-for", False)],
)
@pytest.mark.parametrize("kind", ["none", "predicts", "operates", "all", "open"])
def test_where_an_operator_may_be(
    tmp_path: Path, kind: str, peer: str, header: str | None, local: bool, allow: str
) -> None:
    """`admin.allow` beside the scope: both must hold. "open": a server that needs no credentials."""
    if kind == "open":
        book = AccessRules(Admin(allow=allow))  # type: ignore[arg-type]
        asked = call("none", peer)
    else:
        book = rules(tmp_path, allow=allow)
        asked = call(kind, peer)
    if header is not None:
        asked.headers[header] = "10.0.0.9"
    found = outcome(lambda: book.admit(asked, Rule(ADMIN)))
    if kind in {"none", "predicts"}:
        assert found is (Unauthenticated if kind == "none" else Forbidden)
    else:
        assert found is (None if local or allow != "local_peer" else Forbidden)


def test_an_operator_who_was_not_located_is_refused(tmp_path: Path) -> None:
    book = rules(tmp_path, allow="local_peer")
    caller = book.authenticate(call("all", LOCAL))
    with pytest.raises(Forbidden, match=r"admin\.allow: local_peer"):
        book.authorize(caller, ADMIN, "digits")
    assert book.authenticate(call("all", LOCAL), locate=True).operator == "all"


def test_anonymous_operators_need_a_name(tmp_path: Path) -> None:
    anonymous = {"anonymous": {"scopes": ["admin"], "models": ["*"]}}
    for allow, found in (("authenticated", Unauthenticated), ("anyone", None)):
        book = rules(tmp_path, allow=allow, auth=anonymous)
        assert outcome(lambda book=book: book.admit(call("none"), Rule(ADMIN))) is found
    caller, _ = book.admit(call("none", "ipv6:%5B::2%5D:9"), Rule(ADMIN))
    assert caller.operator == "ipv6:[::2]:9"


def test_without_credentials_to_check_everybody_may_do_everything() -> None:
    book = AccessRules(Admin(allow="anyone"))
    for need, model in MAY:
        for kind in SENT:
            caller, lease = book.admit(call(kind), Rule(need))
            book.authorize(caller, need, model)
            assert lease is None
    assert book.authenticate(call("unknown")) is ANYBODY
    assert book.allows_all(ANYBODY, METADATA)


@pytest.mark.parametrize("opened", ["health", "reflection", "metrics"])
def test_what_is_opened_needs_nothing(tmp_path: Path, opened: str) -> None:
    anonymous = {"open": [opened]}
    book = rules(tmp_path, auth=anonymous)
    for need in ("health", "reflection", "metrics"):
        found = outcome(lambda need=need: book.admit(call("none"), Rule(need)))
        assert found is (None if need == opened else Unauthenticated)
        assert outcome(lambda need=need: book.admit(call("unknown"), Rule(need))) is Unauthenticated


def test_two_tokens_in_turn_are_two_callers(tmp_path: Path) -> None:
    book = rules(tmp_path)
    for _ in range(3):
        for kind, may in (("predicts", False), ("all", True), ("none", False)):
            caller = book.authenticate(call(kind))
            assert book.allows(caller, PREDICT, "secret") is may
            assert caller is book.authenticate(call(kind))


def test_a_refusal_is_the_same_whether_or_not_there_is_such_a_model(tmp_path: Path) -> None:
    book = rules(tmp_path)
    caller = book.authenticate(call("predicts"))
    with pytest.raises(
        Forbidden, match=r"^expected credentials with the scope 'predict' for model 'secret', got others"
    ):
        book.authorize(caller, PREDICT, "secret")
    with pytest.raises(Forbidden, match=r"^expected credentials with the scope 'admin', got others"):
        book.authorize(caller, ADMIN)


def test_a_stream_is_checked_again(tmp_path: Path) -> None:
    book = rules(tmp_path)
    asked = call("predicts")
    caller = book.authenticate(asked)
    book.check_again(caller, asked)
    with pytest.raises(Unauthenticated, match="have changed since the stream began"):
        book.check_again(Caller("predicts", Grants(["predict"], ["dig*"])), asked)
    with pytest.raises(Unauthenticated):
        book.check_again(caller, call("unknown"))


@pytest.mark.parametrize("kind", ["unknown", "nothing", "predicts"])
def test_limits_are_charged_before_the_answer_is_known(tmp_path: Path, kind: str) -> None:
    """Refused calls count, too; what a refusal held is given back."""
    book = rules(tmp_path, limits={"clients": {"rate": 0.01, "burst": 2, "concurrency": 2}})
    found = {"unknown": Unauthenticated, "nothing": Forbidden, "predicts": None}[kind]
    assert outcome(lambda: book.admit(call(kind), Rule(PREDICT))) is found
    assert outcome(lambda: book.admit(call(kind), Rule(PREDICT))) is found
    with pytest.raises(RateLimited, match=r"limits\.clients\.rate"):
        book.admit(call(kind), Rule(PREDICT))
    book.admit(call("all"), Rule(PREDICT))  # another client
    if kind == "predicts":
        book.admit(call(kind), Rule("health", charged=False))


def test_a_lease_is_held_until_it_is_released(tmp_path: Path) -> None:
    book = rules(tmp_path, limits={"clients": {"concurrency": 1}})
    for _ in range(3):
        _, lease = book.admit(call("predicts"), Rule(PREDICT))
        assert lease is not None
        assert outcome(lambda: book.admit(call("predicts"), Rule(PREDICT))) is RateLimited
        assert outcome(lambda: book.admit(call("all"), Rule(ADMIN, charged=False))) is None
        lease.release()
    for _ in range(3):  # a refusal holds nothing
        assert outcome(lambda: book.admit(call("nothing"), Rule(PREDICT))) is Forbidden


def test_messages_of_a_stream_count_for_the_rate(tmp_path: Path) -> None:
    book = rules(tmp_path, limits={"clients": {"rate": 0.01, "burst": 2}})
    caller, lease = book.admit(call("predicts"), Rule(PREDICT))
    assert lease is None  # nothing bounds how many may run
    book.charge_message(caller, call("predicts"))
    with pytest.raises(RateLimited):
        book.charge_message(caller, call("predicts"))


def test_clients_are_told_apart_by_name_else_by_address(tmp_path: Path) -> None:
    book = rules(tmp_path)
    assert book.client(call("predicts")) == "predicts"
    for kind in ("none", "unknown"):
        assert book.client(call(kind)) == "address 10.0.0.1"
    assert book.client(call("none", names=("edge",))) == "certificate:edge"


def test_every_rule_finds_the_model_in_its_message() -> None:
    """The fields that the table names are there, and hold text."""
    assert {path.split("/")[1] for path, rule in RULES.items() if rule.need != "reflection"} == SERVER_NAMES - {""}
    pool = real_names()
    for path, rule in RULES.items():
        service, _, method = path[1:].partition("/")
        if not rule.model:
            continue
        message = pool.FindServiceByName(service).methods_by_name[method].input_type
        for name in rule.model.split("."):
            field = message.fields_by_name[name]
            message = field.message_type
        assert field.type == field.TYPE_STRING, path
        assert message is None


@pytest.mark.parametrize(
    ("method", "request_", "models"),
    [
        ("/inferd.v1.ModelService/LoadModel", native.LoadModelRequest(name="a"), ["a"]),
        ("/inferd.v1.ModelService/LoadModel", native.LoadModelRequest(), []),
        ("/inferd.v1.ModelService/WatchModels", native.WatchModelsRequest(name="a"), []),
        (
            "/tensorflow.serving.PredictionService/MultiInference",
            tfs.MultiInferenceRequest(
                tasks=[{"model_spec": {"name": "a"}}, {"model_spec": {"name": "b"}}, {"method_name": "m"}]
            ),
            ["a", "b"],
        ),
        (
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
            tfs_models.ReloadConfigRequest(
                config={"model_config_list": {"config": [{"name": "a"}, {"name": "b", "base_path": "/b"}]}}
            ),
            ["a", "b"],
        ),
        ("/tensorflow.serving.ModelService/HandleReloadConfigRequest", tfs_models.ReloadConfigRequest(), []),
    ],
)
def test_the_models_that_a_request_names(method: str, request_: Any, models: list[str]) -> None:
    before = request_.SerializeToString()
    assert list(RULES[method].models(request_)) == models
    assert request_.SerializeToString() == before


def test_all_models_that_are_named_must_be_the_callers(tmp_path: Path) -> None:
    book = rules(tmp_path)
    rule = RULES["/tensorflow.serving.PredictionService/MultiInference"]
    caller = book.authenticate(call("predicts"))
    asked = tfs.MultiInferenceRequest(tasks=[{"model_spec": {"name": "digits"}}])
    book.authorize_named(caller, rule, asked)
    asked.tasks.add(model_spec={"name": "secret"})
    with pytest.raises(Forbidden, match="'predict' for model 'secret'"):
        book.authorize_named(caller, rule, asked)


def test_health_of_a_model_needs_more_than_health_of_the_server(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2

    book, rule = rules(tmp_path), RULES["/grpc.health.v1.Health/Check"]
    caller = book.authenticate(call("predicts"))
    for service in ("", "inferd.v1.PredictService", "tensorflow.serving.ModelService"):
        book.authorize_named(caller, rule, health_pb2.HealthCheckRequest(service=service))
    with pytest.raises(Forbidden, match="'metadata' for model 'digits'"):
        book.authorize_named(caller, rule, health_pb2.HealthCheckRequest(service="digits"))


def test_routes_and_pages_have_the_rule_of_their_method() -> None:
    infer = ROUTES["POST /v2/models/{model}/infer"]
    assert (infer.need, infer.model, infer.scope, infer.charged) == (PREDICT, "model", PREDICT, True)
    assert ROUTES["POST /v2/repository/models/{model}/load"].audited
    assert not ROUTES["GET /v2/models/{model}/ready"].charged
    assert ROUTES["GET /v2/models/stats"].model == ""
    assert page_rule("/docs/oauth2-redirect") is PAGES["/docs"]
    assert page_rule("/v2") is None
