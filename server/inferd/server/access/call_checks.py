"""Plain checks that every call passes, whatever the transport: who calls, what they may do, its request id."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING
from urllib.parse import unquote

from inferd.server.access.client_limits import Limiter, address_of
from inferd.server.access.grants import Scope
from inferd.server.access.identity import Credentials
from inferd.server.access.recent import Recent
from inferd.server.config.schema import Admin, ServerConfig
from inferd.server.errors import Forbidden, Unauthenticated

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority

# A proxy on this machine makes every caller look local; proxies say so with one of these. So does a browser, which any
# page can make call: it tells its origin.
_FORWARDED = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-client-cert", "x-real-ip",
    "via", "x-envoy-external-address", "x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms", "cf-connecting-ip",
    "true-client-ip", "origin", "sec-fetch-site",
)  # fmt: skip

_PEERS = 4096  # whose addresses are remembered


def local_address(peer: str) -> bool:
    """Whether a peer in gRPC's form ("ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "unix:...") is on this machine."""
    kind, _, address = peer.partition(":")
    if kind in {"unix", "unix-abstract"}:
        return True
    host = unquote(address).rpartition(":")[0].strip("[]").partition("%")[0]
    if kind == "ipv6":
        host = host.removeprefix("::ffff:")
        if host == "::1":
            return True
    return kind in {"ipv4", "ipv6"} and host.startswith("127.") and host.count(".") == 3


def readable(peer: str) -> str:
    """A peer for people: gRPC writes the brackets of an IPv6 address as %5B and %5D."""
    return peer.replace("%5B", "[").replace("%5D", "]")


class CallChecks:
    """The checks. Thread-safe. `authority` tells callers apart, None where nobody needs credentials; `limiter` bounds
    what one client may ask for, None where nothing is bounded."""

    def __init__(self, admin: Admin, authority: Authority | None = None, limiter: Limiter | None = None) -> None:
        self._admin = admin.allow
        self._uploads = admin.allow_upload
        self.authority = authority
        self.limiter = limiter
        # Unique across servers without asking the system for randomness on every request.
        self._prefix = secrets.token_hex(4)
        self._addresses: Recent[str, str] = Recent(_PEERS)
        self._count = itertools.count(1)

    def local(self, call: Credentials) -> bool:
        """Whether the caller is on this machine and not behind a proxy, as far as it can be told."""
        return local_address(call.peer) and not any(call.metadata(key) is not None for key in _FORWARDED)

    def admit_admin(self, call: Credentials) -> str:
        """Gives who asks, for the record. Raises Forbidden, which names the key that would allow it, and
        Unauthenticated. Which models are the caller's to operate is another question: see `core.view`."""
        if self._admin == "local_peer" and not self.local(call):
            raise Forbidden(
                f"this call is open to callers on the server's own machine, without a proxy; got {readable(call.peer)}"
                " (admin.allow: local_peer)"
            )
        if self.authority is None:
            return readable(call.peer)
        caller = self.authority.identify(call)
        if Scope.ADMIN not in caller.grants.scopes or (self._admin == "authenticated" and not caller.name):
            raise caller.grants.refusal(Scope.ADMIN)
        return caller.name or readable(call.peer)

    def who(self, call: Credentials) -> str | None:
        """The name of the caller's identity, for the record; None where there is none."""
        try:
            return None if self.authority is None else self.authority.identify(call).name or None
        except Unauthenticated:
            return None

    def client(self, call: Credentials) -> str:
        """What clients are told apart by, for their bounds and their shares: the identity, else the address."""
        name = self.who(call)
        if name is not None:
            return name
        peer = call.peer
        found = self._addresses.get(peer)
        if found is None:
            found = f"address {address_of(peer)}"
            self._addresses.put(peer, found)
        return found

    def admit_upload(self) -> None:
        """For a caller who was admitted as an admin. Raises Forbidden, which names the key that would allow it."""
        if not self._uploads:
            raise Forbidden("files of a model are not taken with a load (admin.allow_upload: false)")

    def request_id(self, call: Credentials, given: str) -> str:
        """The request's own id, else the one in metadata, else a new one."""
        return given or call.metadata("x-request-id") or f"{self._prefix}-{next(self._count):x}"

    def new_id(self) -> str:
        """An id that no other request has."""
        return f"{self._prefix}-{next(self._count):x}"


def make_call_checks(config: ServerConfig) -> CallChecks:
    """With all that the settings ask for. Raises ConfigError."""
    clients, authority = config.limits.clients, None
    if config.auth.enabled:
        # A server that asks nobody for credentials does not keep what checks them.
        from inferd.server.access.authority import make_authority

        authority = make_authority(config.auth)
    return CallChecks(config.admin, authority, Limiter(clients) if clients.enabled else None)
