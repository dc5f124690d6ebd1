"""Tokens: where a client gets them, and to which servers it must not send them."""

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

_PAUSE = 1.0  # seconds between two checks of a file
_LOCAL = ("unix:", "unix-abstract:")


class TokenFile:
    """Calling it returns the token in a file. At most once a second, a call checks whether the file has changed, and
    then reads it again. Thread-safe."""

    def __init__(self, file: str | os.PathLike[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidInput for a file that cannot be read or is empty."""
        self._file = Path(file)
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at = clock()
        self._version: tuple[int, ...] | None = self._stat()  # of the file that was read
        self._token = self._read()

    def __call__(self) -> str:
        if self._clock() - self._checked_at >= _PAUSE and self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._token

    def _refresh(self) -> None:
        self._checked_at = self._clock()
        version = self._stat()
        if version is None or version == self._version:
            return
        try:
            self._token = self._read()
        except InvalidInput:
            return  # the file is being replaced: keep the old token until the next check
        self._version = version

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
        # A token that does not fit into a header would fail every call, with the token in the error message.
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
    """A client's token, or the function that returns it. Raises InvalidInput if two sources are given, if the file
    cannot be used, and if the token would be sent over a network without encryption."""
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
    """Whether a gRPC target is certainly this machine: a unix socket, a loopback address or localhost."""
    if target.startswith(_LOCAL):
        return True
    scheme, _, rest = target.partition(":")
    hosts = [_host(endpoint) for endpoint in rest.rpartition("/")[2].split(",")]
    if scheme not in ("dns", "ipv4", "ipv6"):
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
