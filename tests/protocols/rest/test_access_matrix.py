"""Every REST route and every page, for every kind of caller: the status is right, and a refused caller causes no work.
A route that is not in this table fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute
from support.access import STATIC, WatchedManager, bad_credentials, headers, settings, with_scopes
from support.rest import Rest, tensor
from support.security import Keys

MODEL, VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
TFS = ("/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}")
SHM = "/v2/{kind}sharedmemory"
INFER = {"inputs": [tensor("x", [[1.0]])]}
PREDICT = {"instances": [[1.0]]}
EXAMPLES = {"examples": [{"x": 1.0}]}


@dataclass(frozen=True)
class Asked:
    """The scope that a route needs, a good body, and the statuses that a caller with the scope gets."""

    need: str
    body: Any = None
    good: frozenset[int] = frozenset({200})


FOUND_OR_NOT = frozenset({200, 400, 404})  # some of the versions and labels do not exist
NOT_OFFERED = frozenset({400, 501})
ROUTES: dict[tuple[str, str], Asked] = {
    ("GET", "/v2/health/live"): Asked("health"),
    ("GET", "/v2/health/ready"): Asked("health"),
    ("GET", "/v2"): Asked("metadata"),
    ("GET", "/v2/models/stats"): Asked("metadata"),
    ("POST", "/v2/repository/index"): Asked("metadata", {}),
    ("POST", "/v2/repository/models/{model}/load"): Asked("admin", {}),
    ("POST", "/v2/repository/models/{model}/unload"): Asked("admin", {}),
    ("GET", f"{MODEL}/trace/setting"): Asked("metadata"),
    ("POST", f"{MODEL}/trace/setting"): Asked("metadata", {}),
    ("GET", "/v2/trace/setting"): Asked("metadata"),
    ("POST", "/v2/trace/setting"): Asked("metadata", {}),
    ("GET", "/v2/logging"): Asked("metadata"),
    ("POST", "/v2/logging"): Asked("metadata", {}),
    ("GET", f"{SHM}/status"): Asked("predict", None, NOT_OFFERED),
    ("POST", f"{SHM}/unregister"): Asked("predict", None, NOT_OFFERED),
    ("GET", f"{SHM}/region/{{region}}/status"): Asked("predict", None, NOT_OFFERED),
    ("POST", f"{SHM}/region/{{region}}/unregister"): Asked("predict", None, NOT_OFFERED),
    ("POST", f"{SHM}/region/{{region}}/register"): Asked("predict", {"key": "/k", "byte_size": 1}, NOT_OFFERED),
}
for _model in (MODEL, VERSION):
    ROUTES |= {
        ("POST", f"{_model}/infer"): Asked("predict", INFER),
        ("POST", f"{_model}/generate"): Asked("predict", {}, NOT_OFFERED),
        ("POST", f"{_model}/generate_stream"): Asked("predict", {}, NOT_OFFERED),
        ("GET", _model): Asked("metadata"),
        ("GET", f"{_model}/ready"): Asked("metadata"),
        ("GET", f"{_model}/config"): Asked("metadata"),
        ("GET", f"{_model}/stats"): Asked("metadata"),
    }
for _model in TFS:
    ROUTES |= {
        ("POST", f"{_model}:predict"): Asked("predict", PREDICT, FOUND_OR_NOT),
        ("POST", f"{_model}:classify"): Asked("predict", EXAMPLES, FOUND_OR_NOT),
        ("POST", f"{_model}:regress"): Asked("predict", EXAMPLES, FOUND_OR_NOT),
        ("GET", f"{_model}/metadata"): Asked("metadata", None, FOUND_OR_NOT),
        ("GET", _model): Asked("metadata", None, FOUND_OR_NOT),
    }
PAGES = {
    ("GET", "/healthz"): Asked("health"),
    ("GET", "/readyz"): Asked("health"),
    ("GET", "/metrics"): Asked("metadata"),
    ("GET", "/docs"): Asked("metadata"),
    ("GET", "/openapi.json"): Asked("metadata"),
}
NOWHERE = ("GET", "/v1/models")  # no route: every caller gets the same error about the path
EVERYTHING = {**ROUTES, **PAGES}
NAMING = [where for where in ROUTES if "{model}" in where[1]]


def path(template: str, model: str = "digits") -> str:
    return template.format(model=model, version="1", label="stable", kind="system", region="r")


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def guarded(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    manager = WatchedManager()
    with Rest(manager=manager, **settings(tmp_path_factory.mktemp("access"), keys)) as rest:
        yield rest


def ask(rest: Rest, where: tuple[str, str], authorization: str | None, model: str = "digits") -> tuple[int, Any]:
    asked = EVERYTHING[where]
    answer = rest.ask(where[0], path(where[1], model), asked.body, **headers(authorization))
    if answer.status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    return answer.status, answer


def ids(where: Any) -> str:
    return " ".join(where) if isinstance(where, tuple) else str(where)


def test_the_table_has_every_route(guarded: Rest):
    app = guarded.rest.app()
    found = _routes(app.router.routes)
    assert found - {("GET", "/openapi.json"), ("GET", "/docs"), NOWHERE} == set(ROUTES)


def test_a_path_without_a_model_reveals_nothing(guarded: Rest):
    before = len(guarded.manager.touched)
    answer = guarded.ask(*NOWHERE)
    assert (answer.status, answer.json) == (400, {"error": "Missing model name in request."})
    assert len(guarded.manager.touched) == before


def _routes(routes: Any, prefix: str = "") -> set[tuple[str, str]]:
    found = set()
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            found |= _routes(inner, prefix)
        else:
            found |= {(method, prefix + route.path) for method in route.methods - {"HEAD"}}
            assert isinstance(route, APIRoute) or route.path.startswith(("/docs", "/openapi"))
    return found


BAD = ("none", "bad signature", "expired", "wrong audience", "unknown token", "another form")


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.parametrize("where", EVERYTHING, ids=ids)
def test_bad_credentials_get_401(guarded: Rest, keys: Keys, where: tuple[str, str], wrong: str):
    before = len(guarded.manager.touched)
    authorization = bad_credentials(keys)[wrong]
    status, answer = ask(guarded, where, authorization)
    if EVERYTHING[where].need == "health" and wrong == "none":
        assert status == 200
        return
    assert status == 401
    assert answer.error.startswith("expected ")
    assert authorization is None or authorization.split()[1] not in answer.error
    assert len(guarded.manager.touched) == before


@pytest.mark.parametrize("where", [where for where in EVERYTHING if EVERYTHING[where].need != "health"], ids=ids)
def test_the_wrong_scope_gets_403(guarded: Rest, keys: Keys, where: tuple[str, str]):
    others = {"predict": ["metadata", "admin"], "metadata": ["predict"], "admin": ["predict", "metadata"]}
    need = EVERYTHING[where].need
    before = len(guarded.manager.touched)
    status, answer = ask(guarded, where, with_scopes(keys, others[need]))
    assert status == 403
    assert f"expected credentials with the scope '{need}'" in answer.error
    assert len(guarded.manager.touched) == before


@pytest.mark.parametrize("where", NAMING, ids=ids)
def test_another_model_gets_the_same_403_whether_it_exists_or_not(guarded: Rest, keys: Keys, where: tuple[str, str]):
    """The refusal does not reveal whether the model exists."""
    mine = with_scopes(keys, ["predict", "metadata", "admin"], ["dig*"])
    before = len(guarded.manager.touched)
    found = {model: ask(guarded, where, mine, model) for model in ("secret", "nosuch")}
    assert {status for status, _ in found.values()} == {403}
    assert found["secret"][1].error.replace("secret", "nosuch") == found["nosuch"][1].error
    assert len(guarded.manager.touched) == before


@pytest.mark.parametrize("kind", ["static", "jwt"])
@pytest.mark.parametrize("where", EVERYTHING, ids=ids)
def test_good_credentials_are_served(guarded: Rest, keys: Keys, where: tuple[str, str], kind: str):
    need = EVERYTHING[where].need
    scope = "predict" if need == "health" else need
    models = ["*"] if where[1] == "/metrics" else ["digits"]
    good = f"Bearer {STATIC}" if kind == "static" else with_scopes(keys, [scope], models)
    status, answer = ask(guarded, where, good)
    assert status in EVERYTHING[where].good, answer.body


def test_metrics_need_access_to_every_model(guarded: Rest, keys: Keys):
    assert guarded.get("/metrics", authorization=with_scopes(keys, ["metadata"], ["dig*"])).status == 403


def test_lists_show_only_the_callers_models(guarded: Rest, keys: Keys):
    mine = headers(with_scopes(keys, ["metadata"], ["dig*"]))
    assert {entry["name"] for entry in guarded.post("/v2/repository/index", {}, **mine).json} == {"digits"}
    assert {entry["name"] for entry in guarded.get("/v2/models/stats", **mine).json["model_stats"]} == {"digits"}


@pytest.mark.parametrize("path", ["models/digits/infer", "repository/models/digits/load"])
def test_a_caller_without_credentials_is_refused_before_the_body_is_read(guarded: Rest, path: str):
    sock = guarded.raw()
    sock.sendall(f"POST /v2/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n".encode())
    assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_pages_in_auth_open_need_no_credentials(keys: Keys, tmp_path):
    config = settings(tmp_path, keys)
    config["auth"]["open"] = ["metrics", "reflection"]
    with Rest(**config) as rest:
        opened = {where: ask(rest, where, None)[0] for where in PAGES}
        assert {where[1] for where, status in opened.items() if status == 200} == {
            "/metrics", "/docs", "/openapi.json",
        }  # fmt: skip
        assert rest.get("/v2/health/live").status == 401
        assert rest.get("/healthz", **headers(with_scopes(keys, []))).status == 200
