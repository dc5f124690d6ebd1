"""Signed bearer tokens (JWT), verified with a key set in a file (JWKS).

The key decides about the algorithm, never the token: a secret (oct) is used for HS256, an RSA key for RS256, a key on
P-256 for ES256. So a token with the algorithm "none" is refused, and a public key is never used as a secret.
"""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Final

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.access.static_tokens import GrantsOf
from inferd.server.config.access_schema import Jwt
from inferd.server.config.errors import ConfigError, Problem
from inferd.server.errors import Unauthenticated
from inferd.server.observability.events import event, get

_log = get("security")

_ALGORITHMS: Final = {"oct": "HS256", "RSA": "RS256", "EC": "ES256"}
_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 256
_SHORTEST: Final = {"oct": 256, "RSA": 2048}  # bits of a key
_LONGEST_NAME: Final = 128
_MOST_PATTERNS: Final = 64
_REQUIRED: Final = ("exp", "iss", "aud", "sub")
_SCOPES: Final = frozenset(scope.value for scope in Scope)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of the set, and the only algorithm that it is used for."""

    id: str
    algorithm: str
    key: Any


class JwtTokens:
    """Verifies tokens with the key set as it was when this object was made. Thread-safe."""

    def __init__(self, config: Jwt, grants: GrantsOf) -> None:
        """Reads the key set. Raises ConfigError for an unusable file; the error shows none of its content."""
        try:
            import jwt
        except ImportError:
            wanted = "PyJWT and cryptography to be installed: pip install 'inferd[jwt]'"
            raise ConfigError([Problem("auth.jwt", "", wanted)]) from None
        self._jwt: Final = jwt
        self._config: Final = config
        self._grants: Final = grants
        self._wrong: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
        self._keys: Final = _read(Path(config.jwks_file), jwt)

    def look(self, token: str) -> SigningKey:
        """The key that the token names. Raises Unauthenticated for a token that would be refused even with a good
        signature. Cheap: the signature is not verified, so nothing in the token is to be trusted yet."""
        try:
            head, body, _ = token.split(".")
            key = self._key(_object(head))
            self._plausible(_object(body))
            return key
        except self._wrong as error:
            raise Unauthenticated(self._message(error)) from None

    def verify(self, token: str, key: SigningKey) -> Caller:
        """The caller that the token was issued to; signature and claims are verified. Raises Unauthenticated, whose
        text shows nothing of the token."""
        config = self._config
        try:
            claims = self._jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway,
                options={"require": list(_REQUIRED)},
            )
            return self._caller(claims)
        except self._wrong as error:
            raise Unauthenticated(self._message(error)) from None

    def _plausible(self, claims: Mapping[str, Any]) -> None:
        jwt, config, now = self._jwt, self._config, time()
        for claim in _REQUIRED:
            if claims.get(claim) is None:
                raise jwt.MissingRequiredClaimError(claim)
        if any(int(claims[claim]) > now + config.leeway for claim in ("iat", "nbf") if claim in claims):
            raise jwt.ImmatureSignatureError
        if int(claims["exp"]) <= now - config.leeway:
            raise jwt.ExpiredSignatureError
        if claims["iss"] != config.issuer:
            raise jwt.InvalidIssuerError
        audience = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        if not (isinstance(audience, list) and any(each in audience for each in config.audience)):
            raise jwt.InvalidAudienceError

    def _message(self, error: Exception) -> str:
        jwt, config = self._jwt, self._config
        match error:
            case jwt.InvalidSignatureError():
                return "expected a token signed with a key of auth.jwt.jwks_file, got another signature"
            case jwt.ExpiredSignatureError():
                return "expected a token that has not expired, got one that has"
            case jwt.ImmatureSignatureError():
                return "expected a token that counts already, got one for later"
            case jwt.InvalidAudienceError():
                return f"expected a token for the audience {' or '.join(config.audience)}, got one for another"
            case jwt.InvalidIssuerError():
                return f"expected a token of the issuer {config.issuer}, got one of another"
            case jwt.MissingRequiredClaimError():
                return f"expected a token with the claim {error.claim!r}, got one without"
        return "expected a JSON web token, got something else"

    def _key(self, header: Mapping[str, Any]) -> SigningKey:
        algorithm, wanted = header.get("alg"), header.get("kid")
        fitting = [key for key in self._keys if key.algorithm == algorithm and wanted in (None, key.id)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise Unauthenticated("expected a token whose header names its key (kid), as there are several")
        raise Unauthenticated("expected a token signed with a key and algorithm of auth.jwt.jwks_file, got another")

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        config = self._config
        scopes = _words(claims.get(config.scopes_claim, ()), config.scopes_claim, split=True)
        models = _words(claims.get(config.models_claim, ("*",)), config.models_claim, split=False)
        subject = claims["sub"]
        if not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST_NAME and subject.isprintable()):
            raise Unauthenticated(f"expected a token with a `sub` of 1 to {_LONGEST_NAME} printable characters")
        known = sorted(_SCOPES.intersection(scopes))
        return Caller(f"jwt:{subject}", self._grants(known, models), float(claims["exp"]) + config.leeway)


def _object(part: str) -> Mapping[str, Any]:
    found = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _words(value: Any, claim: str, *, split: bool) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split()) if split else (value,)
    if (
        isinstance(value, list | tuple)
        and len(value) <= _MOST_PATTERNS
        and all(isinstance(item, str) for item in value)
    ):
        return tuple(value)
    raise Unauthenticated(f"expected text or a list of at most {_MOST_PATTERNS} texts in the claim {claim!r}")


def _read(file: Path, jwt: Any) -> tuple[SigningKey, ...]:
    """The keys of a file. Keys for encryption, and keys of other kinds, are skipped."""

    def problem(expected: str, got: str = "") -> ConfigError:
        return ConfigError([Problem(str(file), "", expected, got)])

    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise problem("a readable file", error.strerror or str(error)) from None
    try:
        document = json.loads(data) if len(data) <= _MOST_BYTES else None
        given = document["keys"] if isinstance(document, dict) else None
    except (ValueError, KeyError, RecursionError):
        given = None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given) or len(given) > _MOST_KEYS:
        raise problem(f'a key set: {{"keys": [...]}} with at most {_MOST_KEYS} keys', "something else")
    keys: list[SigningKey] = []
    skipped = 0
    for number, each in enumerate(given):
        kind = each.get("kty")
        algorithm = _ALGORITHMS.get(kind) if isinstance(kind, str) else None
        if (
            algorithm is None
            or each.get("use", "sig") != "sig"
            or each.get("alg", algorithm) != algorithm
            or (kind == "EC" and each.get("crv") != "P-256")
        ):
            skipped += 1
            continue
        if kind != "oct" and "d" in each:
            raise problem("public keys and shared secrets only", f"a private key in keys[{number}]")
        name = each.get("kid", "")
        if not isinstance(name, str) or (name and any(key.id == name for key in keys)):
            raise problem("a `kid` of its own for every key", f"another in keys[{number}]")
        try:
            # The error of the library is not passed on: its text may show the key.
            found = jwt.PyJWK(each, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            raise problem(f"a JSON web key for {algorithm}", f"something else in keys[{number}]") from None
        least = _SHORTEST.get(kind, 0)
        bits = len(found.key) * 8 if kind == "oct" else found.key.key_size
        if bits < least:
            raise problem(f"at least {least} bits in a key for {algorithm}", f"{bits} in keys[{number}]")
        keys.append(SigningKey(name, algorithm, found))
    if not keys:
        raise problem("at least one key for HS256, RS256 or ES256", "none")
    if skipped:
        event(_log, logging.INFO, "keys skipped", file=str(file), count=skipped)
    return tuple(keys)
