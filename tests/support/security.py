"""Makes tokens, keys and their files for tests. None of them is a real secret."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.test"
AUDIENCE = "inferd-test"
SECRET = b"a secret of this test alone, thirty-two bytes and more"
OTHER_SECRET = b"another secret of this test, thirty-two bytes and more"


def entry(token: str, scopes: Sequence[str], models: Sequence[str] = ("*",), expires: str = "") -> dict[str, Any]:
    """One entry of a tokens file."""
    found: dict[str, Any] = {"sha256": hashlib.sha256(token.encode()).hexdigest(), "scopes": list(scopes)}
    return found | {"models": list(models)} | ({"expires": expires} if expires else {})


def write_tokens(file: Path, entries: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes a tokens file, and puts it in place by renaming, as operators should."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(entries))  # JSON is YAML
    new.replace(file)
    return file


class Keys:
    """One key for each family of algorithms, by its `kid`: "hs", "rs", "es"."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.signing: dict[str, tuple[Any, str]] = {
            "hs": (SECRET, "HS256"), "rs": (self.rsa, "RS256"), "es": (self.ec, "ES256"),
        }  # fmt: skip
        self.public: dict[str, dict[str, Any]] = {
            "hs": {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")},
            "rs": RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True),
            "es": ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True),
        }

    def write(self, file: Path, *kids: str) -> Path:
        """Writes a JWKS file with these keys (all keys by default), and puts it in place by renaming."""
        new = file.with_name(f"{file.name}.new")
        new.write_text(json.dumps({"keys": [{**self.public[kid], "kid": kid} for kid in kids or self.public]}))
        new.replace(file)
        return file

    def token(self, kid: str = "hs", *, key: Any = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A JWT that is valid unless the arguments make it invalid. Claims that are None are left out."""
        signing, algorithm = self.signing[kid]
        now = int(time.time())
        every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": now + 600, "scope": "predict", **claims}
        kept = {name: value for name, value in every.items() if value is not None}
        return jwt.encode(kept, key or signing, algorithm, headers={"kid": kid, **(header or {})})


class Call:
    """The part of a call that the authority reads."""

    def __init__(
        self, authorization: str | None = None, names: Sequence[str] = (), peer: str = "ipv4:10.0.0.1:5"
    ) -> None:
        self.headers = {} if authorization is None else {"authorization": authorization}
        self.names = tuple(names)
        self.peer = peer

    def metadata(self, key: str) -> str | None:
        return self.headers.get(key)

    def certificate(self) -> Sequence[str]:
        return self.names


def bearer(token: str) -> Call:
    """A call with a token."""
    return Call(f"Bearer {token}")
