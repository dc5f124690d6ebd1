"""Servers with authentication, and credentials of every sort for their callers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.rpc import FakeHandle, FakeManager
from support.security import AUDIENCE, ISSUER, OTHER_SECRET, Keys, entry, write_tokens

from inferd.server.config.schema import ServerConfig

STATIC = "canary-static-0123456789abcdef0123456789abcdef"
SCOPES = ("predict", "metadata", "admin")


class WatchedManager(FakeManager):
    """A manager that records the names of the models that were acquired or changed. It has "digits" and "secret"."""

    def __init__(self) -> None:
        self.touched: list[str] = []
        super().__init__()
        self.available("secret", 1)
        self.touched.clear()

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> FakeHandle:
        self.touched.append(name)
        return super().acquire(name, version, label)

    def _admin(self, name: str, *asked: Any) -> Any:
        self.touched.append(name)
        return super()._admin(name, *asked)


def settings(directory: Path, keys: Keys, **more: Any) -> dict[str, Any]:
    """Settings: authentication with a static token and with JWTs; admin calls from any address."""
    tokens = write_tokens(directory / "tokens.yaml", {"everything": entry(STATIC, SCOPES)})
    jwks = keys.write(directory / "jwks.json")
    jwt = {"jwks_file": str(jwks), "issuer": ISSUER, "audience": AUDIENCE}
    return {
        "auth": {"tokens_file": str(tokens), "jwt": jwt, "poll": 3600.0},
        "admin": {"allow": "authenticated"},
        **more,
    }


def guarded_config(directory: Path, keys: Keys, **more: Any) -> ServerConfig:
    return ServerConfig.model_validate(settings(directory, keys, **more))


def bad_credentials(keys: Keys) -> dict[str, str | None]:
    """Wrong values of the header `authorization`, by what is wrong with them. None: the header is missing."""
    everything = " ".join(SCOPES)
    now = int(time.time())
    return {
        "none": None,
        "bad signature": f"Bearer {keys.token('hs', key=OTHER_SECRET, scope=everything)}",
        "expired": f"Bearer {keys.token('es', scope=everything, exp=now - 3600)}",
        "wrong audience": f"Bearer {keys.token('rs', scope=everything, aud='another')}",
        "unknown token": "Bearer unknown",
        "another form": "Basic dXNlcjpwYXNz",
    }


def with_scopes(keys: Keys, scopes: Sequence[str], models: Sequence[str] = ("*",)) -> str:
    """A valid `authorization` header with these scopes, for these models."""
    return f"Bearer {keys.token('es', scope=list(scopes), models=list(models))}"


def header(authorization: str | None) -> list[tuple[str, str]]:
    """The header as gRPC metadata."""
    return [] if authorization is None else [("authorization", authorization)]


def headers(authorization: str | None) -> Mapping[str, str]:
    """The header as HTTP headers."""
    return {} if authorization is None else {"authorization": authorization}
