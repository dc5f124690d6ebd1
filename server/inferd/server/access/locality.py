"""Whether a caller is on the server's own machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from inferd.server.access.caller import Credentials

# A proxy on this machine makes every caller look local; proxies add one of these headers. So does a browser, which any
# page can make call this server: it adds its origin.
_FORWARDED: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-client-cert", "x-real-ip",
    "via", "x-envoy-external-address", "x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms", "cf-connecting-ip",
    "true-client-ip", "origin", "sec-fetch-site",
)  # fmt: skip


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


def is_local(call: Credentials) -> bool:
    """Whether the caller is on this machine and, as far as its headers show, not behind a proxy."""
    return local_address(call.peer) and not any(call.metadata(key) is not None for key in _FORWARDED)


class HostNames:
    """The names in a Host header under which this server may be meant: IP addresses, localhost, the machine's own name,
    and those of the settings. A page of another site can make a browser call a server on the browser's own machine
    under the site's name (DNS rebinding); then this name is in the header. Constant; thread-safe."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: `http.hosts`; "*" stands for any name."""
        given = {name.lower().rstrip(".") for name in names}
        own = socket.gethostname().lower()
        self._any: Final = "*" in given
        self._names: Final = frozenset({"localhost", own, own.partition(".")[0], *given} - {""})

    def known(self, header: str | None) -> bool:
        """Whether the value of a Host header, with or without a port, is one of them. True for None: gRPC has none."""
        if header is None or self._any:
            return True
        name = header.strip().lower()
        name = name.partition("]")[0][1:] if name.startswith("[") else name.partition(":")[0]
        name = name.rstrip(".")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def readable(peer: str) -> str:
    """A peer for people: gRPC writes the brackets of an IPv6 address as %5B and %5D."""
    return peer.replace("%5B", "[").replace("%5D", "]")
