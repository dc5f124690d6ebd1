"""Every RPC, route and page × every kind of caller, over both transports and HTTP: the right outcome, and nothing done
for a caller who may not. An RPC or route that is missing from the table fails the test."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from fastapi.routing import APIRoute
from support.access import STATIC, WatchedManager, bad_credentials, settings, with_scopes
from support.access_table import (
    OIP,
    OVER_HTTP,
    PAGES,
    ROUTES,
    RPCS,
    STREAM,
    UNARY,
    Entry,
    GrpcEdge,
    HttpEdge,
    Outcome,
    by_name,
)
from support.client import make_chain
from support.foreign_models import CountingMetrics
from support.rest import Rest
from support.rpc import TRANSPORTS, FakeManager, FakeMetrics, Served
from support.security import Keys

from inferd.server.access import method_rules
from inferd.server.access.grants import Scope
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.v1 import model_service_pb2 as native

EVERY = ("predict", "metadata", "admin")
Edge = GrpcEdge | HttpEdge


@dataclass(frozen=True)
class Caller:
    """A kind of caller. `scopes`: None for credentials that are not valid. `model`: whether "digits" is the caller's;
    `every`: whether every model is. `local`: whether `admin.allow: local_peer` lets it operate."""

    headers: Mapping[str, str]
    scopes: tuple[str, ...] | None
    anonymous: bool = False
    model: bool = True
    every: bool = False
    local: bool = True

    def expected(self, entry: Entry) -> str:
        """What the rules must say of a request for "digits"."""
        if entry.need == "nothing":
            return "admitted"
        if self.scopes is None:
            return "unauthenticated"
        if entry.need == "health":
            return "admitted"  # `auth.open` opens it unless it is set
        refused = "unauthenticated" if self.anonymous else "denied"
        scope = {"reflection": "metadata", "metrics": "metadata"}.get(entry.need, entry.need)
        if scope not in self.scopes and not (scope == "metadata" and "admin" in self.scopes):
            return refused
        if entry.model and not self.model:
            return refused
        if (entry.need == "metrics" or entry.every) and not self.every:
            return refused
        return refused if entry.need == "admin" and not self.local else "admitted"


@pytest.fixture(scope="module")
def callers(keys: Keys) -> dict[str, Caller]:
    """Kinds of callers of a server that needs credentials, by what they show."""

    def bearer(authorization: str | None, **more: str) -> dict[str, str]:
        return {} if authorization is None else {"authorization": authorization, **more}

    bad = {name: Caller(bearer(given), None) for name, given in bad_credentials(keys).items() if given is not None}
    found = {
        "no token": Caller({}, (), anonymous=True),
        **{f"bad: {name}": caller for name, caller in bad.items()},
        "no scope": Caller(bearer(with_scopes(keys, [])), (), every=True),
        "all scopes, another model": Caller(bearer(with_scopes(keys, EVERY, ["sec*"])), EVERY, model=False),
        "all scopes, this model": Caller(bearer(with_scopes(keys, EVERY, ["dig*"])), EVERY),
        "static token": Caller(bearer(f"Bearer {STATIC}"), EVERY, every=True),
        "behind a proxy": Caller(bearer(f"Bearer {STATIC}", via="proxy"), EVERY, every=True, local=False),
    }
    for scope in EVERY:
        found[f"only {scope}"] = Caller(bearer(with_scopes(keys, [scope])), (scope,), every=True)
    return found


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def serving(kind: str, config: Mapping[str, Any]) -> Iterator[Edge]:
    if kind == "http":
        with Rest(manager=WatchedManager(), **config) as rest:
            edge = HttpEdge(rest)
            yield edge
            edge.close()
        return
    served = Served(
        kind, manager=WatchedManager(), config=ServerConfig.model_validate(config), metrics=CountingMetrics()
    )
    yield GrpcEdge(served)
    served.end()


EDGES = (*sorted(TRANSPORTS), "http")


@pytest.fixture(scope="module")
def mutual(request, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Knows callers by their certificates, too; the caller "caller" may predict with "digits"."""
    chain = make_chain(tmp_path_factory.mktemp("chain"))
    tls = {
        "certificate": str(chain["server.pem"]), "key": str(chain["server.key"]), "client_ca": str(chain["ca.pem"]),
    }  # fmt: skip
    config = settings(tmp_path_factory.mktemp("access"), keys)
    config["auth"]["certificates"] = {"caller": {"scopes": ["predict"], "models": ["digits"]}}
    if request.param == "http":
        context = ssl.create_default_context(cafile=chain["ca.pem"])
        context.load_cert_chain(chain["client.pem"], chain["client.key"])
        with Rest(manager=WatchedManager(), http={"tls": tls}, **config) as rest:
            edge = HttpEdge(rest, context)
            yield edge
            edge.close()
        return
    config["server"] = {"tls": tls}
    served = Served(
        request.param, manager=WatchedManager(), config=ServerConfig.model_validate(config), metrics=CountingMetrics()
    )
    yield GrpcEdge(
        served, grpc.ssl_channel_credentials(*(chain[n].read_bytes() for n in ("ca.pem", "client.key", "client.pem")))
    )
    served.end()


@pytest.fixture(scope="module")
def guarded(request, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Needs credentials; operators may be anywhere."""
    yield from serving(request.param, settings(tmp_path_factory.mktemp("access"), keys))


@pytest.fixture(scope="module")
def guarded_local(request, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Needs credentials; operators must be on this machine."""
    local = {"admin": {"allow": "local_peer"}}
    yield from serving(request.param, settings(tmp_path_factory.mktemp("access"), keys, **local))


@pytest.fixture(scope="module")
def open_local(request) -> Iterator[Edge]:
    """Needs no credentials; operators must be on this machine."""
    yield from serving(request.param, {"admin": {"allow": "local_peer"}})


def wrong(edge: Edge, entry: Entry, kinds: Mapping[str, Caller]) -> dict[str, Outcome]:
    """Outcomes that the table does not expect, by kind of caller."""
    found = {}
    for name, caller in kinds.items():
        before = len(edge.manager.touched)
        outcome = edge.ask(entry, caller.headers)
        expected = caller.expected(entry)
        right = outcome.access == expected
        if expected == "admitted":
            right = right and outcome.code in entry.good
        else:
            right = right and len(edge.manager.touched) == before
            right = right and outcome.text.startswith(("expected ", "this call is open to callers on"))
            right = right and not any(
                token in outcome.text for token in caller.headers.get("authorization", "").split()[1:]
            )
        if not right:
            found[name] = outcome
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `entry` and a server runs for every entry of every edge."""
    for server in ("guarded", "guarded_local", "open_local", "mutual"):
        if server not in metafunc.fixturenames:
            continue
        if "entry" in metafunc.fixturenames:
            pairs = [(kind, entry) for kind in EDGES for entry in (OVER_HTTP if kind == "http" else RPCS)]
            ids = [f"{kind}-{entry.name}" for kind, entry in pairs]
            metafunc.parametrize((server, "entry"), pairs, indirect=[server], ids=ids)
        else:
            metafunc.parametrize(server, EDGES, indirect=True)


def test_the_table_leaves_no_method_and_no_route_out() -> None:
    config = ServerConfig()
    table = build_method_table(FakeManager(), FakeMetrics(), config, inflight=InflightBounds(config.inflight))
    assert {entry.name for entry in UNARY} == set(table.unary) == set(table.admitted)
    assert {entry.name for entry in STREAM} == set(table.stream)
    rest = Rest()
    try:
        assert {entry.name for entry in ROUTES} == _routes(rest.rest.app().router.routes)
    finally:
        rest.rest.close()


def _routes(routes: Any, prefix: str = "") -> set[str]:
    found = set()
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            found |= _routes(inner, prefix)
        elif isinstance(route, APIRoute):
            found |= {f"{method} {prefix}{route.path}" for method in route.methods - {"HEAD"}}
        else:
            assert route.path.startswith(("/docs", "/openapi"))
    return found


def test_the_rules_are_those_of_the_table() -> None:
    entries = by_name((*RPCS, *ROUTES))
    rules = {**method_rules.RULES, **method_rules.ROUTES}
    pages = {f"GET {path}": rule for path, rule in method_rules.PAGES.items()}
    for name, rule in rules.items():
        need = rule.need.value if isinstance(rule.need, Scope) else rule.need
        assert need == entries[name].need
        assert entries[name].model is bool(rule.model) or need == "health"
        assert rule.audited is (need == "admin")
    assert set(rules) == set(entries)
    assert {name: rule.need for name, rule in pages.items()} == {entry.name: entry.need for entry in PAGES}


def test_with_credentials(guarded: Edge, callers: dict[str, Caller], entry: Entry) -> None:
    anywhere = {**callers, "behind a proxy": callers["static token"]}
    assert wrong(guarded, entry, anywhere) == {}


def test_with_credentials_and_local_operators(guarded_local: Edge, callers: dict[str, Caller], entry: Entry) -> None:
    kinds = {name: caller for name, caller in callers.items() if not name.startswith("bad")}
    assert wrong(guarded_local, entry, kinds) == {}


def test_without_credentials_and_with_local_operators(open_local: Edge, entry: Entry) -> None:
    here = Caller({}, EVERY, every=True)
    proxied = Caller({"x-forwarded-for": "10.0.0.9"}, EVERY, every=True, local=False)
    for caller in (here, proxied):
        outcome = open_local.ask(entry, caller.headers)
        assert outcome.access == caller.expected(entry), outcome
        assert outcome.access == "admitted" or "(admin.allow: local_peer)" in outcome.text


def test_by_certificate(mutual: Edge, entry: Entry) -> None:
    """The name in the client's certificate is an identity: it may predict with "digits"."""
    identity = Caller({}, ("predict",))
    assert wrong(mutual, entry, {"certificate": identity}) == {}
    if entry.model and entry.need == "predict":
        assert mutual.ask(entry, {}, "secret").access == "denied"


def test_two_tokens_in_one_turn(guarded: Edge, callers: dict[str, Caller], entry: Entry) -> None:
    """Each call has its own outcome, whatever came with it."""
    names = ("static token", "all scopes, another model", "no token", "bad: unknown token")
    chosen = [callers[name] for name in names * 2]
    waiting = [guarded.begin(entry, caller.headers) for caller in chosen]
    assert [wait().access for wait in waiting] == [caller.expected(entry) for caller in chosen]


def test_another_model(guarded: Edge, callers: dict[str, Caller], entry: Entry) -> None:
    """The refusal is the same whether or not there is such a model."""
    if not entry.model:
        return
    mine = callers["all scopes, this model"].headers
    before = len(guarded.manager.touched)
    found = {model: guarded.ask(entry, mine, model) for model in ("secret", "nosuch")}
    assert {outcome.access for outcome in found.values()} == {"denied"}
    assert ("for model '*'" if entry.every else "for model 'secret'") in found["secret"].text
    assert found["secret"].text.replace("secret", "nosuch") == found["nosuch"].text
    assert len(guarded.manager.touched) == before


def test_a_caller_is_refused_before_the_message_is_judged(
    guarded: Edge, callers: dict[str, Caller], entry: Entry
) -> None:
    if entry.need in {"health", "nothing"}:
        return
    assert guarded.ask(entry, callers["no scope"].headers, body=b"\xff\xff").access == "denied"
    assert guarded.ask(entry, {}, body=b"\xff\xff").access == "unauthenticated"


def listed(edge: Edge, keys: Keys, pattern: str) -> dict[str, str]:
    """What the lists of an edge show to a caller of some models, by entry."""
    names = (
        ("POST /v2/repository/index", "GET /v2/models/stats")
        if isinstance(edge, HttpEdge)
        else ("/inferd.v1.ModelService/ListModels", f"{OIP}RepositoryIndex", f"{OIP}ModelStatistics")
    )
    headers = {"authorization": with_scopes(keys, ["metadata"], [pattern])}
    entries = by_name(edge.entries)
    return {
        name: edge.ask(entries[name], headers, body=b"{}" if name.startswith("POST") else b"").text for name in names
    }


@pytest.mark.parametrize(("pattern", "shown", "hidden"), [("dig*", "digits", "secret"), ("sec*", "secret", "digits")])
def test_lists_show_the_models_of_the_caller(guarded: Edge, keys: Keys, pattern: str, shown: str, hidden: str) -> None:
    for name, text in listed(guarded, keys, pattern).items():
        assert shown in text, name
        assert hidden not in text, name


@pytest.mark.parametrize(("pattern", "shown", "hidden"), [("dig*", "digits", "secret"), ("sec*", "secret", "digits")])
def test_a_watch_shows_the_models_of_the_caller(
    guarded: Edge, keys: Keys, pattern: str, shown: str, hidden: str
) -> None:
    if isinstance(guarded, HttpEdge):
        return
    headers = {"authorization": with_scopes(keys, ["metadata"], [pattern])}
    watch = by_name(STREAM)["/inferd.v1.ModelService/WatchModels"]
    text = guarded.ask(watch, headers, body=native.WatchModelsRequest()).text
    assert shown in text
    assert hidden not in text


def test_metrics_name_every_model_and_so_need_every_model(guarded: Edge, keys: Keys) -> None:
    if isinstance(guarded, HttpEdge):
        some = {"authorization": with_scopes(keys, ["metadata"], ["dig*"])}
        assert guarded.ask(by_name(PAGES)["GET /metrics"], some).access == "denied"


@pytest.mark.parametrize("path", ["models/digits/infer", "repository/models/digits/load", "repository/index"])
def test_a_caller_is_refused_before_the_body_is_read(guarded: Edge, path: str) -> None:
    if isinstance(guarded, HttpEdge):
        sock = guarded.rest.raw()
        sock.sendall(f"POST /v2/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("kind", EDGES)
def test_what_is_opened_needs_nothing(kind: str, keys: Keys, tmp_path: Path) -> None:
    config = settings(tmp_path, keys)
    config["auth"]["open"] = ["metrics", "reflection"]
    for edge in serving(kind, config):
        opened = {entry.need for entry in edge.entries if edge.ask(entry, {}).access == "admitted"}
        assert opened == ({"metrics", "reflection", "nothing"} if kind == "http" else {"reflection"})
        health = next(entry for entry in edge.entries if entry.need == "health")
        assert edge.ask(health, {"authorization": with_scopes(keys, [])}).access == "admitted"
