"""Signed tokens: which are valid, and every way in which one is not."""

from __future__ import annotations

import base64
import itertools
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
    # An hour passes between any two tokens: each is looked at, however many bad ones came before.
    return Authority(Auth.model_validate({"jwt": settings}), clock=itertools.count(0.0, 3600.0).__next__)


@pytest.fixture(scope="module")
def authority(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make(keys.write(tmp_path_factory.mktemp("jwks") / "jwks.json"))


def refusal(authority: Authority, token: str) -> str:
    with pytest.raises(Unauthenticated, match=r"^expected") as caught:
        authority.identify(bearer(token))
    assert all(part not in str(caught.value) for part in token.split(".") if len(part) > 8)
    return str(caught.value)


@pytest.mark.parametrize("kid", ["hs", "rs", "es"])
def test_each_algorithm_is_verified(authority: Authority, keys: Keys, kid: str):
    found = authority.identify(bearer(keys.token(kid, scope="openid predict admin", models=["fraud-*"])))
    assert found.name == "jwt:user-1"
    assert found.grants.scopes == {Scope.PREDICT, Scope.METADATA, Scope.ADMIN}
    assert found.grants.covers("fraud-1")
    assert not found.grants.covers("other")


def test_scopes_as_a_list_and_models_as_text(authority: Authority, keys: Keys):
    found = authority.identify(bearer(keys.token(scope=["metadata"], models="a", aud=["x", "second"])))
    assert found.grants.scopes == {Scope.METADATA}
    assert found.grants.models == ("a",)
    assert not authority.identify(bearer(keys.token(scope=None))).grants.scopes


@pytest.mark.parametrize(
    ("claims", "message"),
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
def test_wrong_claims_are_refused(authority: Authority, keys: Keys, claims: dict[str, Any], message: str):
    assert message in refusal(authority, keys.token(**claims))


def test_clocks_may_differ_by_the_leeway(authority: Authority, keys: Keys):
    now = int(time.time())
    assert authority.identify(bearer(keys.token(exp=now - 10))).until == pytest.approx(now + 20)
    assert authority.identify(bearer(keys.token(nbf=now + 10)))
    refusal(authority, keys.token(exp=now - 60))
    refusal(authority, keys.token(nbf=now + 60))


@pytest.mark.parametrize("kid", ["hs", "rs", "es"])
def test_a_wrong_signature_is_refused(authority: Authority, keys: Keys, kid: str):
    other = {
        "hs": OTHER_SECRET,
        "rs": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "es": ec.generate_private_key(ec.SECP256R1()),
    }
    assert "another signature" in refusal(authority, keys.token(kid, key=other[kid]))
    head, body, signature = keys.token(kid).split(".")
    assert "another signature" in refusal(
        authority, f"{head}.{keys.token(kid, scope='admin').split('.')[1]}.{signature}"
    )
    refusal(authority, f"{head}.{body}.")


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["HS256"]])
@pytest.mark.parametrize("kid", ["hs", None])
def test_unsigned_tokens_are_refused(authority: Authority, keys: Keys, alg: Any, kid: str | None):
    body = keys.token().split(".")[1]
    head = {"alg": alg, "typ": "JWT"} | ({"kid": kid} if kid else {})
    refusal(authority, f"{encoded(head)}.{body}.")
    refusal(authority, f"{encoded(head)}.{body}.{keys.token().split('.')[2]}")


@pytest.mark.parametrize("kid", ["rs", "es", None])
def test_a_public_key_is_not_accepted_as_a_secret(authority: Authority, keys: Keys, kid: str | None):
    """A known attack: the token is signed with HS256 and the text of the public key as the secret."""
    import hashlib
    import hmac

    private = keys.rsa if kid == "rs" else keys.ec
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "typ": "JWT"} | ({"kid": kid} if kid else {})
    signed = f"{encoded(head)}.{keys.token().split('.')[1]}"
    signature = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    refusal(authority, f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}")


def test_the_key_decides_the_algorithm(authority: Authority, keys: Keys):
    for algorithm in ("HS384", "HS512"):
        token = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 2**33}, SECRET * 2, algorithm,
                           headers={"kid": "hs"})  # fmt: skip
        assert "key and algorithm" in refusal(authority, token)
    assert "key and algorithm" in refusal(authority, keys.token("rs", header={"kid": "es"}))


def test_a_token_without_kid_needs_one_key_of_its_kind(authority: Authority, keys: Keys, tmp_path: Path):
    def without(kid: str) -> str:
        key, algorithm = keys.signing[kid]
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 60}
        return jwt.encode(claims, key, algorithm)

    assert authority.identify(bearer(without("rs"))).name == "jwt:x"
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    two = [{**keys.public["rs"], "kid": "1"}, {**RSAAlgorithm.to_jwk(other.public_key(), as_dict=True), "kid": "2"}]
    (tmp_path / "two.json").write_text(json.dumps({"keys": two}))
    assert "names its key (kid)" in refusal(make(tmp_path / "two.json"), without("rs"))


def test_critical_headers_are_refused(authority: Authority, keys: Keys):
    refusal(authority, keys.token(header={"crit": ["b64"], "b64": False}))
    refusal(authority, keys.token(header={"crit": ["unheard-of"], "unheard-of": 1}))


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.text("ab.c=-_0", max_size=60))
def test_junk_is_refused_as_unauthenticated(authority: Authority, keys: Keys, junk: str, more: str):
    head, body, signature = keys.token().split(".")
    for token in (
        f"{junk}.{body}.{signature}",
        f"{head}.{junk}.{more}",
        f"{head}.{body}.{junk}",
        f"{more}.{more}.{junk}",
    ):
        if token.strip() and token.strip() != keys.token():
            looked_at_and_refused(authority, token)


def looked_at_and_refused(authority: Authority, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        authority.identify(bearer(token))
    assert "too many came" not in str(refused.value)


def test_keys_are_rotated_without_a_restart(keys: Keys, tmp_path: Path):
    file = keys.write(tmp_path / "jwks.json", "hs")
    authority, files = make(file), FileWatch(3600)
    authority.watch(files)
    old, new = keys.token("hs"), keys.token("es")
    assert authority.identify(bearer(old))
    refusal(authority, new)
    keys.write(file, "es")
    files.look()
    assert authority.identify(bearer(new))
    refusal(authority, old)


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_an_error_in_a_key_set_shows_no_key(tmp_path: Path, content: str, message: str):
    (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        make(tmp_path / "jwks.json")
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "Y2FuYXJ5" not in str(caught.value)


def test_two_keys_with_one_kid_are_an_error(keys: Keys, tmp_path: Path):
    both = [{**keys.public[kid], "kid": "same"} for kid in ("hs", "rs")]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": both}))
    with pytest.raises(ConfigError, match="of its own for every key"):
        make(tmp_path / "jwks.json")
