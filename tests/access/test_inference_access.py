"""Access of inference calls that arrive in one turn: allowed calls share a batch, whatever is refused beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hot_calls import INFER, TFS_PREDICT, FakeCall, Server, ask, classic, infer
from support.security import entry, write_tokens

from inferd.server.access import authority as authority_module
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code

MAY = "token-that-may-0123456789abcdef"
OTHER = "token-of-others-0123456789abcdef"
LOOKS = "token-that-looks-0123456789abcdef"
REQUESTS: dict[str, Callable[[float], FakeCall]] = {"inferd": ask, INFER: infer, TFS_PREDICT: classic}


def by(token: str | None, call: FakeCall) -> FakeCall:
    """The call with these credentials."""
    return FakeCall(call.request, call.method, **({} if token is None else {"authorization": f"Bearer {token}"}))


class Guarded:
    """A server whose callers need tokens. It has seen the token `MAY` and the form of the request before."""

    def __init__(self, serve_hot: Callable[..., Server], directory: Path, first: FakeCall, **auth: Any) -> None:
        self.file = write_tokens(
            directory / "tokens.yaml",
            {"may": entry(MAY, ["predict"], ["dig*"]), "other": entry(OTHER, ["predict"], ["other"]),
             "looks": entry(LOOKS, ["metadata"])},
        )  # fmt: skip
        config = ServerConfig.model_validate({"auth": {"tokens_file": str(self.file), "poll": 3600.0, **auth}})
        self.server = serve_hot(config=config)
        self.server.trust(first.method, first.request, authorization=f"Bearer {MAY}")


@pytest.fixture
def guarded(serve_hot, tmp_path: Path):
    return lambda first=None, **auth: Guarded(serve_hot, tmp_path, first or ask(0), **auth)


@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
def test_calls_of_known_callers_share_a_batch(guarded, make: Callable[[float], FakeCall]):
    server = guarded(make(0)).server
    calls = [by(MAY, make(n)) for n in range(3)]
    assert server.hand_over(*calls) == []
    assert server.alone(by(MAY, make(3)))
    assert server.model.batches == [3, 1]


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, Code.UNAUTHENTICATED),
        ("unknown-token", Code.UNAUTHENTICATED),
        (OTHER, Code.PERMISSION_DENIED),
        (LOOKS, Code.PERMISSION_DENIED),
    ],
    ids=["none", "unknown", "another's model", "another scope"],
)
@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
def test_a_refused_call_does_not_affect_its_group(
    guarded, monkeypatch: pytest.MonkeyPatch, token: str | None, code: Code, make: Callable[[float], FakeCall]
):
    server = guarded(make(0)).server
    server.model.forget()
    for _ in range(2):  # the second time the token of the refused call is known, too
        refused = by(token, make(2))
        calls = [by(MAY, make(1)), refused, by(MAY, make(3))]
        assert server.hand_over(*calls) == []
        assert refused.failed[0] is code
        assert (calls[0].message is not None, calls[2].message is not None) == (True, True)
    assert server.model.batches == [2, 2]
    acquired: list[str] = []
    acquire = server.manager.acquire
    monkeypatch.setattr(server.manager, "acquire", lambda name, *rest: (acquired.append(name), acquire(name, *rest))[1])
    alone = by(token, make(2))
    assert server.alone(alone)
    assert alone.failed[0] is code
    assert not acquired  # nothing was looked up for the refused call
    assert server.servable.handles == 0


def test_nothing_of_a_refused_call_is_decoded(guarded):
    server = guarded().server
    call = FakeCall(b"no message at all")
    assert server.alone(call)
    assert call.failed[0] is Code.UNAUTHENTICATED


def test_calls_with_certificates_share_a_batch(guarded):
    server = guarded(certificates={"worker.test": {"scopes": ["predict"]}}).server
    for _ in range(2):
        calls = [ask(1), ask(2)]
        for call in calls:
            call.names = ("worker.test",)
        assert server.hand_over(*calls) == []
        assert [call.y for call in calls] == [[2], [4]]
    stranger = ask(1)
    stranger.names = ("stranger.test",)
    server.hand_over(stranger)
    assert stranger.wait().failed[0] is Code.UNAUTHENTICATED


def test_anonymous_calls_and_calls_with_tokens_share_a_batch(guarded):
    server = guarded(anonymous={"scopes": ["predict"]}).server
    calls = [ask(1), by(MAY, ask(2))]
    assert server.hand_over(*calls) == []
    assert [call.y for call in calls] == [[2], [4]]
    assert server.alone(third := ask(3))
    assert third.y == [6]
    unknown = by("unknown-token", ask(4))
    assert server.alone(unknown)
    assert unknown.failed[0] is Code.UNAUTHENTICATED


def test_a_revoked_token_is_refused(guarded):
    made = guarded()
    server = made.server
    assert server.alone(first := by(MAY, ask(1)))
    assert first.y == [2]
    write_tokens(made.file, {"other": entry(OTHER, ["predict"], ["other"])})
    server.rules.authority._reload()
    call = by(MAY, ask(1))
    server.hand_over(call)
    assert call.wait().failed[0] is Code.UNAUTHENTICATED


def test_an_expired_token_is_refused(guarded, monkeypatch: pytest.MonkeyPatch):
    made = guarded()
    write_tokens(made.file, {"may": entry(MAY, ["predict"], expires="2199-01-01T00:00:00Z")})
    made.server.rules.authority._reload()
    for _ in range(2):
        made.server.hand_over(call := by(MAY, ask(1)))
        assert call.y == [2]
    monkeypatch.setattr(authority_module, "time", lambda: 2**33)
    late = by(MAY, ask(1))
    made.server.hand_over(late)
    assert late.wait().failed[0] is Code.UNAUTHENTICATED


def test_several_authorization_headers_are_refused(guarded):
    server = guarded().server
    call = FakeCall(ask(1).request, authorization=f"Bearer {MAY}, Bearer {MAY}")
    server.hand_over(call)
    assert call.wait().failed[0] is Code.UNAUTHENTICATED


def test_limits_of_clients_are_charged_call_by_call_within_a_batch(serve_hot):
    """Calls within the limits share a batch."""
    config = ServerConfig.model_validate({"limits": {"clients": {"rate": 0.001, "burst": 21, "concurrency": 3}}})
    server = serve_hot(config=config)
    server.trust()  # seventeen calls
    calls = [ask(n) for n in range(4)]
    server.hand_over(*calls)
    assert server.model.batches == [3]  # the concurrency
    assert [call.message is not None for call in calls] == [True, True, True, False]
    assert calls[3].failed[0] is Code.RESOURCE_EXHAUSTED
    again = ask(5)
    server.hand_over(again)  # the leases are released, but the rate is used up
    assert again.failed is not None
    assert "limits.clients.rate" in again.failed[1]
    assert server.servable.handles == 0
