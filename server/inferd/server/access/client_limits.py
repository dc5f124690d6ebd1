"""Limits for each client: a rate of requests, and a number of requests at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final
from urllib.parse import unquote

from inferd.server.access.rate_bucket import RateBucket
from inferd.server.access.recent import Recent
from inferd.server.config.access_schema import Clients
from inferd.server.errors import RateLimited

_CLIENTS: Final = 4096  # clients that are remembered; a forgotten one begins with the whole burst
_PAUSE: Final = 0.1  # seconds after which a client with too many requests at once may try again


class Limiter:
    """The limits of `limits.clients`, for clients by name. `refused` counts refusals by reason. Thread-safe."""

    def __init__(self, config: Clients, clock: Callable[[], float] = monotonic) -> None:
        self._rate: Final = config.rate or 0.0
        self._burst: Final = float(config.burst or max(1.0, self._rate))
        self._concurrency: Final = config.concurrency
        self._clock: Final = clock
        self._known: Final = Recent[str, _LimitedClient](_CLIENTS)
        self.refused: Final = {"rate": 0, "concurrency": 0}

    def take(self, client: str) -> None:
        """Counts one request for the rate. Raises RateLimited, which says when the next one may come."""
        if self._rate:
            found = self._known.get(client) or self._add(client)
            with found.lock:
                pause = found.bucket.take(self._clock())
            if pause:
                raise self._over_rate(pause)

    def enter(self, client: str) -> Lease | None:
        """One request begins. Gives the lease to release when it ends; None where nothing bounds how many requests of a
        client may run at once. Raises RateLimited."""
        found = self._known.young.get(client) or self._known.get(client) or self._add(client)
        concurrency, running = self._concurrency, found.running
        with found.lock:
            pause = found.bucket.take(self._clock()) if self._rate else 0.0
            if not pause:
                if concurrency is None:
                    return None
                if len(running) < concurrency:
                    running.append(None)
                    return Lease(running)
        if pause:
            raise self._over_rate(pause)
        self.refused["concurrency"] += 1
        raise RateLimited(
            f"expected at most {concurrency} requests of one client at once (limits.clients.concurrency)",
            retry_after=_PAUSE,
        )

    def _over_rate(self, pause: float) -> RateLimited:
        self.refused["rate"] += 1
        return RateLimited(
            f"expected at most {self._rate:g} requests per second of one client (limits.clients.rate)",
            retry_after=pause,
        )

    def _add(self, name: str) -> _LimitedClient:
        client = _LimitedClient(RateBucket(self._rate, self._burst, self._clock()))
        self._known.put(name, client)
        return client


class _LimitedClient:
    """running   one entry for each running request: a list, because `pop` is atomic and needs no lock"""

    __slots__ = ("bucket", "lock", "running")

    def __init__(self, bucket: RateBucket) -> None:
        self.lock = Lock()
        self.bucket = bucket
        self.running: list[None] = []


class Lease:
    """A running request of one client. Only the first `release` has an effect. Thread-safe."""

    __slots__ = ("_running",)

    def __init__(self, running: list[None]) -> None:
        self._running = running

    def release(self) -> None:
        """The request has ended."""
        try:
            running = self._running
            del self._running  # atomic: it fails for every thread but the first
        except AttributeError:
            return
        running.pop()


def address_of(peer: str) -> str:
    """The address of a peer in gRPC's form, without its port. Of an IPv6 address the /64 network: one client usually
    has all of its addresses."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    if kind == "ipv6":
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return host
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
    return host
