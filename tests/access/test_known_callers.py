"""The short cuts where callers say who they are: for those who are known and may predict, as without credentials; for
everybody else the usual way, which refuses whom it must."""

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
    """A server whose callers need tokens; `MAY` is known already, and so is what is asked."""

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
def test_known_callers_are_answered_together_and_alone(guarded, make: Callable[[float], FakeCall]):
    server = guarded(make(0)).server
    calls = [by(MAY, make(n)) for n in range(3)]
    assert server.burst(*calls) == []
    assert server.lone(by(MAY, make(3)))
    assert server.model.batches == [3, 1]


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, Code.UNAUTHENTICATED),
        ("nobody-knows-this-one", Code.UNAUTHENTICATED),
        (OTHER, Code.PERMISSION_DENIED),
        (LOOKS, Code.PERMISSION_DENIED),
    ],
    ids=["none", "unknown", "another's model", "another scope"],
)
def test_who_may_not_is_refused_and_his_neighbours_are_answered(
    guarded, monkeypatch: pytest.MonkeyPatch, token: str | None, code: Code
):
    server = guarded().server
    looks: list[str] = []
    for _ in range(2):  # the second time he is known, too
        intruder = by(token, ask(2))
        calls = [by(MAY, ask(1)), intruder, by(MAY, ask(3))]
        assert server.burst(*calls) == calls
        assert intruder.wait().failed[0] is code
        assert (calls[0].y, calls[2].y) == ([2], [6])
        alone = by(token, ask(2))
        with monkeypatch.context() as watched:
            watched.setattr(server.table.lone[alone.method], "_serving", lambda name, *_: looks.append(name))
            assert not server.lone(alone)
        assert not looks  # whether there is such a model
        server.table.unary[alone.method](alone)
        assert alone.wait().failed[0] is code
    assert server.servable.handles == 0


def test_who_comes_for_the_first_time_is_looked_at_alone(guarded):
    server = guarded(certificates={"worker.test": {"scopes": ["predict"]}}).server
    calls = [ask(1), ask(2)]
    for call in calls:
        call.names = ("worker.test",)
    assert server.burst(*calls) == calls
    assert [call.y for call in calls] == [[2], [4]]
    again = [ask(1), ask(2)]
    for call in again:
        call.names = ("worker.test",)
    assert server.burst(*again) == []
    stranger = ask(1)
    stranger.names = ("stranger.test",)
    assert server.burst(stranger) == [stranger]
    assert stranger.wait().failed[0] is Code.UNAUTHENTICATED


def test_without_credentials_where_anybody_may(guarded):
    server = guarded(anonymous={"scopes": ["predict"]}).server
    calls = [ask(1), by(MAY, ask(2))]
    assert server.burst(*calls) == []
    assert server.lone(ask(3))
    unknown = by("nobody-knows-this-one", ask(4))
    assert not server.lone(unknown)


def test_a_token_that_was_taken_back_counts_no_more(guarded):
    made = guarded()
    server = made.server
    assert server.lone(by(MAY, ask(1)))
    write_tokens(made.file, {"other": entry(OTHER, ["predict"], ["other"])})
    server.gate.authority._reload()
    call = by(MAY, ask(1))
    assert not server.lone(call)
    assert server.burst(call) == [call]
    assert call.wait().failed[0] is Code.UNAUTHENTICATED


def test_a_token_that_has_expired_counts_no_more(guarded, monkeypatch: pytest.MonkeyPatch):
    made = guarded()
    write_tokens(made.file, {"may": entry(MAY, ["predict"], expires="2199-01-01T00:00:00Z")})
    made.server.gate.authority._reload()
    first = by(MAY, ask(1))
    assert made.server.burst(first) == [first]
    assert made.server.burst(by(MAY, ask(1))) == []
    monkeypatch.setattr(authority_module, "time", lambda: 2**33)
    late = by(MAY, ask(1))
    assert made.server.burst(late) == [late]
    assert late.wait().failed[0] is Code.UNAUTHENTICATED


def test_several_authorization_headers_are_none(guarded):
    server = guarded().server
    call = FakeCall(ask(1).request, authorization=f"Bearer {MAY}, Bearer {MAY}")
    assert not server.lone(call)
    assert server.burst(call) == [call]
    assert call.wait().failed[0] is Code.UNAUTHENTICATED
