"""Tokens of a file: which callers they give, which are refused; and no error shows a token."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from support.security import Call, bearer, entry, write_tokens

from inferd.server.access.authority import Authority
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.grants import Grants, Scope
from inferd.server.access.recent import Recent
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import Auth
from inferd.server.errors import Unauthenticated

TOKEN = "canary-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


def make_authority(file: Path, **more: object) -> Authority:
    return Authority(Auth.model_validate({"tokens_file": str(file), **more}))


def test_a_token_gives_the_caller_of_its_entry(file: Path):
    write_tokens(file, {"alice": entry(TOKEN, ["predict"], ["fraud-*"]), "bob": entry("bobs", ["admin"])})
    authority = make_authority(file)
    alice = authority.identify(bearer(TOKEN))
    assert alice.name == "alice"
    assert alice.grants.allows(Scope.PREDICT, "fraud-eu")
    assert not alice.grants.allows(Scope.PREDICT, "credit")
    assert not alice.grants.allows(Scope.METADATA, "fraud-eu")
    bob = authority.identify(Call("bearer   bobs"))
    assert bob.name == "bob"
    assert bob.grants.scopes == {Scope.ADMIN, Scope.METADATA}
    assert authority.identify(Call()).name == ""
    assert not authority.identify(Call()).grants.scopes


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer ", "", f"Bearer {TOKEN} more",
     "Bearer " + "x" * 100_000, "Bearer \xff\xfe", "Bearer a.b.c"],
)  # fmt: skip
def test_credentials_without_an_entry_are_refused(file: Path, header: str):
    write_tokens(file, {"alice": entry(TOKEN, ["predict"])})
    with pytest.raises(Unauthenticated, match=r"^expected") as caught:
        make_authority(file).identify(Call(header))
    assert TOKEN not in str(caught.value)


def test_a_token_expires_with_its_entry(file: Path):
    past, future = "2020-01-01", "2999-01-01T00:00:00+02:00"
    write_tokens(
        file, {"old": entry("old", ["predict"], expires=past), "new": entry("new", ["predict"], expires=future)}
    )
    authority = make_authority(file)
    assert authority.identify(bearer("new")).name == "new"
    with pytest.raises(Unauthenticated, match="has not expired"):
        authority.identify(bearer("old"))


def test_a_remembered_token_expires_too(file: Path, monkeypatch: pytest.MonkeyPatch):
    write_tokens(file, {"a": entry(TOKEN, ["predict"], expires="2999-01-01")})
    authority = make_authority(file)
    authority.identify(bearer(TOKEN))
    later = time.time() + 1000 * 365 * 86400
    monkeypatch.setattr("inferd.server.access.authority.time", lambda: later)
    with pytest.raises(Unauthenticated, match="has not expired"):
        authority.identify(bearer(TOKEN))


def test_tokens_are_rotated_without_a_restart(file: Path):
    write_tokens(file, {"a": entry("one", ["predict"])})
    authority, files = make_authority(file), FileWatch(3600)
    authority.watch(files)
    assert authority.identify(bearer("one")).name == "a"
    write_tokens(file, {"a": entry("two", ["predict"])})
    files.look()
    assert authority.identify(bearer("two")).name == "a"
    with pytest.raises(Unauthenticated):
        authority.identify(bearer("one"))  # although the token was remembered


def test_an_empty_file_revokes_every_token(file: Path):
    write_tokens(file, {"a": entry(TOKEN, ["predict"])})
    authority, files = make_authority(file), FileWatch(3600)
    authority.watch(files)
    assert authority.identify(bearer(TOKEN)).name == "a"
    file.write_text("")
    files.look()
    with pytest.raises(Unauthenticated):
        authority.identify(bearer(TOKEN))


def test_a_broken_file_leaves_the_tokens_in_force(file: Path, caplog: pytest.LogCaptureFixture):
    write_tokens(file, {"a": entry(TOKEN, ["predict"])})
    authority, files = make_authority(file), FileWatch(3600)
    authority.watch(files)
    file.write_text(f"a: {{sha256: {TOKEN}, scopes: [predict]}}\n")
    files.look()
    files.look()
    assert authority.identify(bearer(TOKEN)).name == "a"
    file.unlink()
    files.look()
    assert authority.identify(bearer(TOKEN)).name == "a"
    assert caplog.messages == ["changed files are not taken over"] * 2
    assert TOKEN not in caplog.text
    assert all(TOKEN not in str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a: {{sha256: {TOKEN}}}", "a.sha256: expected the SHA-256 of the token, 64 hexadecimal digits, got <hidden>"),
        (f"a: {TOKEN}", "a: expected sha256, scopes and models, got no mapping"),
        ("a: {scopes: [predict]}", "a.sha256: expected a value, got none"),
        (f"a: {{token: {TOKEN}}}", "a.token: expected"),
        ("a: {sha256: " + "a" * 64 + ", scopes: [prdict]}", "did you mean predict"),
        ("a: {sha256: " + "a" * 64 + "}\nb: {sha256: " + "a" * 64 + "}", "b: expected a token of its own"),
        ("a: {sha256: " + "a" * 64 + ", expires: soon}", "expected a date"),
        (f"a b{TOKEN}: {{}}", "expected a name of letters"),
        (f"a: [{TOKEN}", "expected YAML"),
    ],
)  # fmt: skip
def test_an_error_in_a_tokens_file_shows_no_secret(file: Path, text: str, message: str):
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_authority(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_all_errors_of_a_file_are_reported_at_once(file: Path, tmp_path: Path):
    jwks = {"jwks_file": str(tmp_path / "none.json"), "issuer": "i", "audience": "a"}
    with pytest.raises(ConfigError) as caught:
        make_authority(file, jwt=jwks)
    assert "tokens.yaml" in str(caught.value)
    assert "none.json" in str(caught.value)


def test_a_certificate_gives_a_caller(file: Path):
    write_tokens(file, {"alice": entry(TOKEN, ["metadata"])})
    authority = make_authority(
        file, certificates={"caller": {"scopes": "predict"}, "spiffe://x/y": {"scopes": ["admin"]}}
    )
    assert authority.identify(Call(names=("caller",))).name == "certificate:caller"
    assert authority.identify(Call(names=("other", "spiffe://x/y"))).name == "certificate:spiffe://x/y"
    assert authority.identify(Call(names=("stranger",))) is authority.anonymous
    assert authority.identify(Call(f"Bearer {TOKEN}", names=("caller",))).name == "alice"
    with pytest.raises(Unauthenticated):  # a valid certificate does not make up for a bad token
        authority.identify(Call("Bearer wrong", names=("caller",)))


def test_equal_grants_are_one_object(file: Path):
    write_tokens(file, {name: entry(name, ["predict"], ["a", "b"]) for name in ("x", "y")})
    authority = make_authority(file)
    assert authority.identify(bearer("x")).grants is authority.identify(bearer("y")).grants


def test_the_hash_in_the_file_is_that_of_sha256sum(file: Path):
    assert entry("abc", [])["sha256"] == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("pattern", "model", "covered"),
    [("*", "a/b", True), ("fraud-*", "fraud-", True), ("fraud-*", "Fraud-x", False), ("d?g", "dog", True),
     ("[ab]x", "bx", True), ("digits", "digits2", False), ("digits", "", False), ("*", "", True)],
)  # fmt: skip
def test_model_patterns(pattern: str, model: str, covered: bool):
    assert Grants(["predict"], [pattern]).covers(model) is covered


def test_memory_of_model_names_is_bounded():
    recent = Recent[int, int](10)
    for number in range(1000):
        recent.put(number, number)
        assert recent.get(0 if number < 5 else number) is not None
        assert len(recent) <= 20
    grants = Grants(["predict"], ["*"])
    assert all(grants.covers(str(number)) for number in range(10_000))
    assert len(grants._known) <= 2048


def test_overlong_model_names_are_not_remembered():
    grants = Grants(["predict"], ["x*"])
    assert grants.covers("x" * 100_000)
    assert not grants.covers("y" * 100_000)
    assert len(grants._known) == 0


def test_recently_used_entries_stay_in_the_cache():
    recent = Recent[int, int](10)
    recent.put(-1, 1)
    for number in range(1000):
        recent.put(number, number)
        assert recent.get(-1) == 1
