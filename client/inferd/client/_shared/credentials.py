"""Tokens: where they come from, and where they must not go."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inferd.client._shared.channel import ChannelPlan
from inferd.client._shared.core import Metadata, authorization
from inferd.client._shared.errors import InvalidInput

Token = str | Callable[[], str] | None

_PAUSE = 1.0  # seconds between two looks at a file
_LOCAL = ("unix:", "unix-abstract:")


class TokenFile:
    """Gives the token in a file, which is read again when it changes; a look costs a call nothing but once a second.
    Thread-safe."""

    def __init__(self, file: str | os.PathLike[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidInput for a file that cannot be read or is empty."""
        self._file = Path(file)
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._seen: tuple[int, ...] | None = self._stat()
        self._token = self._read()

    def __call__(self) -> str:
        if self._clock() - self._looked >= _PAUSE and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._token

    def _look(self) -> None:
        self._looked = self._clock()
        now = self._stat()
        if now is None or now == self._seen:
            return
        try:
            self._token = self._read()
        except InvalidInput:
            return  # it is being replaced: the old token until the next look
        self._seen = now

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> str:
        try:
            token = self._file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InvalidInput(f"token_file: cannot read {os.fspath(self._file)!r}: {reason}") from None
        # What does not fit into a header would fail every call, with the token in the message.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidInput(f"token_file: expected one token in {os.fspath(self._file)!r}, got something else")
        return token


def token_source(
    token: Token,
    token_file: str | os.PathLike[str] | None,
    plan: ChannelPlan,
    metadata: Metadata,
    *,
    allow_plaintext: bool,
) -> Token:
    """Where a client's token comes from. Raises InvalidInput for two sources, for a file that cannot be used, and for a
    token that would travel in clear over a network."""
    if token is not None and token_file is not None:
        raise InvalidInput("token and token_file are both given; one of them gives the token")
    shown = token is not None or token_file is not None or any(key.lower() == "authorization" for key, _ in metadata)
    if shown and plan.credentials is None and not allow_plaintext and not is_local(plan.target):
        raise InvalidInput(
            f"the token would travel in clear to {plan.target!r}: use TLS (tls=Tls(...), --tls), or allow that "
            "(allow_plaintext_token=True, --allow-plaintext-token)"
        )
    if token_file is not None:
        return TokenFile(token_file)
    if not callable(token):
        authorization(token)
    return token


def is_local(target: str) -> bool:
    """Whether a gRPC target is this machine for sure: unix sockets, loopback addresses, localhost."""
    if target.startswith(_LOCAL):
        return True
    kind, _, rest = target.partition(":")
    hosts = [_host(endpoint) for endpoint in rest.rpartition("/")[2].split(",")]
    if kind not in ("dns", "ipv4", "ipv6"):
        hosts = [_host(target)]
    return all(_is_loopback(host) for host in hosts)


def _host(endpoint: str) -> str:
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint if endpoint.count(":") > 1 else endpoint.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
