"""Signed tokens: what counts, and every way in which one does not."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from support.security import AUDIENCE, ISSUER, OTHER_SECRET, SECRET, Keys, bearer

from inferd.server.access.authority import Authority
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.grants import Scope
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import Auth
from inferd.server.errors import Unauthenticated


def make(file: Path, **more: Any) -> Authority:
    settings = {"jwks_file": str(file), "issuer": ISSUER, "audience": [AUDIENCE, "second"], "leeway": 30.0, **more}
    return Authority(Auth.model_validate({"jwt": settings}))


@pytest.fixture(scope="module")
def who(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make(keys.write(tmp_path_factory.mktemp("jwks") / "jwks.json"))


def refusal(who: Authority, token: str) -> str:
    with pytest.raises(Unauthenticated, match=r"^expected") as caught:
        who.identify(bearer(token))
    assert all(part not in str(caught.value) for part in token.split(".") if len(part) > 8)
    return str(caught.value)


@pytest.mark.parametrize("kid", ["hs", "rs", "es"])
def test_each_algorithm(who: Authority, keys: Keys, kid: str):
    found = who.identify(bearer(keys.token(kid, scope="openid predict admin", models=["fraud-*"])))
    assert found.name == "jwt:user-1"
    assert found.grants.scopes == {Scope.PREDICT, Scope.METADATA, Scope.ADMIN}
    assert found.grants.covers("fraud-1")
    assert not found.grants.covers("other")


def test_scopes_as_a_list_and_models_as_text(who: Authority, keys: Keys):
    found = who.identify(bearer(keys.token(scope=["metadata"], models="a", aud=["x", "second"])))
    assert found.grants.scopes == {Scope.METADATA}
    assert found.grants.models == ("a",)
    assert not who.identify(bearer(keys.token(scope=None))).grants.scopes


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": 1000}, "has not expired"),
        ({"exp": None}, "with the claim 'exp'"),
        ({"sub": None}, "with the claim 'sub'"),
        ({"aud": None}, "with the claim 'aud'"),
        ({"iss": None}, "with the claim 'iss'"),
        ({"aud": "someone-else"}, "for the audience inferd-test or second"),
        ({"iss": "https://evil.test"}, f"of the issuer {ISSUER}"),
        ({"nbf": 32503680000}, "counts already"),
        ({"iat": 32503680000}, "counts already"),
        ({"sub": ""}, "`sub` of 1 to 128"),
        ({"sub": "a\nb"}, "`sub` of 1 to 128"),
        ({"sub": "x" * 129}, "`sub` of 1 to 128"),
        ({"scope": 7}, "in the claim 'scope'"),
        ({"scope": [7]}, "in the claim 'scope'"),
        ({"models": {"a": 1}}, "in the claim 'models'"),
        ({"models": ["a"] * 65}, "in the claim 'models'"),
    ],
)
def test_claims_that_do_not_count(who: Authority, keys: Keys, claims: dict[str, Any], told: str):
    assert told in refusal(who, keys.token(**claims))


def test_clocks_may_differ_by_the_leeway(who: Authority, keys: Keys):
    now = int(time.time())
    assert who.identify(bearer(keys.token(exp=now - 10))).until == pytest.approx(now + 20)
    assert who.identify(bearer(keys.token(nbf=now + 10)))
    refusal(who, keys.token(exp=now - 60))
    refusal(who, keys.token(nbf=now + 60))


@pytest.mark.parametrize("kid", ["hs", "rs", "es"])
def test_another_signature(who: Authority, keys: Keys, kid: str):
    other = {
        "hs": OTHER_SECRET,
        "rs": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "es": ec.generate_private_key(ec.SECP256R1()),
    }
    assert "another signature" in refusal(who, keys.token(kid, key=other[kid]))
    head, body, signature = keys.token(kid).split(".")
    assert "another signature" in refusal(who, f"{head}.{keys.token(kid, scope='admin').split('.')[1]}.{signature}")
    refusal(who, f"{head}.{body}.")


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["HS256"]])
@pytest.mark.parametrize("kid", ["hs", None])
def test_unsigned_tokens(who: Authority, keys: Keys, alg: Any, kid: str | None):
    body = keys.token().split(".")[1]
    head = {"alg": alg, "typ": "JWT"} | ({"kid": kid} if kid else {})
    refusal(who, f"{encoded(head)}.{body}.")
    refusal(who, f"{encoded(head)}.{body}.{keys.token().split('.')[2]}")


@pytest.mark.parametrize("kid", ["rs", "es", None])
def test_a_public_key_is_no_secret(who: Authority, keys: Keys, kid: str | None):
    """The classic: sign with HS256 and the public key's text, and hope that the server takes it for a secret."""
    import hashlib
    import hmac

    private = keys.rsa if kid == "rs" else keys.ec
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "typ": "JWT"} | ({"kid": kid} if kid else {})
    signed = f"{encoded(head)}.{keys.token().split('.')[1]}"
    signature = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    refusal(who, f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}")


def test_the_key_says_which_algorithm(who: Authority, keys: Keys):
    for algorithm in ("HS384", "HS512"):
        token = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 2**33}, SECRET * 2, algorithm,
                           headers={"kid": "hs"})  # fmt: skip
        assert "key and algorithm" in refusal(who, token)
    assert "key and algorithm" in refusal(who, keys.token("rs", header={"kid": "es"}))


def test_a_token_without_kid_needs_one_key_of_its_kind(who: Authority, keys: Keys, tmp_path: Path):
    def without(kid: str) -> str:
        key, algorithm = keys.signing[kid]
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 60}
        return jwt.encode(claims, key, algorithm)

    assert who.identify(bearer(without("rs"))).name == "jwt:x"
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    two = [{**keys.public["rs"], "kid": "1"}, {**RSAAlgorithm.to_jwk(other.public_key(), as_dict=True), "kid": "2"}]
    (tmp_path / "two.json").write_text(json.dumps({"keys": two}))
    assert "names its key (kid)" in refusal(make(tmp_path / "two.json"), without("rs"))


def test_critical_headers_are_refused(who: Authority, keys: Keys):
    refusal(who, keys.token(header={"crit": ["b64"], "b64": False}))
    refusal(who, keys.token(header={"crit": ["unheard-of"], "unheard-of": 1}))


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.text("ab.c=-_0", max_size=60))
def test_junk_is_refused_and_nothing_else_happens(who: Authority, keys: Keys, junk: str, more: str):
    head, body, signature = keys.token().split(".")
    for token in (
        f"{junk}.{body}.{signature}",
        f"{head}.{junk}.{more}",
        f"{head}.{body}.{junk}",
        f"{more}.{more}.{junk}",
    ):
        if token.strip() and token.strip() != keys.token():
            refusal_or_same(who, token)


def refusal_or_same(who: Authority, token: str) -> None:
    try:
        who.identify(bearer(token))
    except Unauthenticated:
        return
    raise AssertionError(f"{token!r} was taken")


def test_keys_are_rotated_without_a_restart(keys: Keys, tmp_path: Path):
    file = keys.write(tmp_path / "jwks.json", "hs")
    who, files = make(file), FileWatch(3600)
    who.watch(files)
    old, new = keys.token("hs"), keys.token("es")
    assert who.identify(bearer(old))
    refusal(who, new)
    keys.write(file, "es")
    files.look()
    assert who.identify(bearer(new))
    refusal(who, old)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "expected a key set"),
        ("[]", "expected a key set"),
        ('{"keys": {}}', "expected a key set"),
        ('{"keys": [1]}', "expected a key set"),
        ("[" * 100_000, "expected a key set"),
        ('{"keys": []}', "at least one key"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "canary-key"}]}', "at least one key"),
        ('{"keys": [{"kty": "oct", "k": "Y2FuYXJ5LWtleQ"}]}', "at least 256 bits in a key for HS256, got 80"),
        ('{"keys": [{"kty": "RSA", "n": "canary-key", "e": "AQAB"}]}', "keys[0]"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "x": "canary-key", "y": "AQAB"}]}', "keys[0]"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "d": "canary-key"}]}', "a private key in keys[0]"),
        ('{"keys": [{"kty": ["oct"]}]}', "at least one key"),
    ],
)  # fmt: skip
def test_a_wrong_key_set_is_told_without_its_keys(tmp_path: Path, content: str, told: str):
    (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        make(tmp_path / "jwks.json")
    assert told in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "Y2FuYXJ5" not in str(caught.value)


def test_two_keys_of_one_name(keys: Keys, tmp_path: Path):
    both = [{**keys.public[kid], "kid": "same"} for kid in ("hs", "rs")]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": both}))
    with pytest.raises(ConfigError, match="of its own for every key"):
        make(tmp_path / "jwks.json")
