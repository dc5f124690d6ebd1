"""Callers over HTTP: the credentials in a request, and the access rules of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from inferd.server.access.method_rules import page_rule
from inferd.server.access.rules import AccessRules
from inferd.server.errors import ServingError
from inferd.server.http.status_codes import oip_status

CERTIFICATE: Final = "certificate"
"""Where a request's state has the names of the client's certificate."""
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="inferd"'}
"""The header that a 401 must have."""


class HttpCredentials:
    """What one request shows of its caller: headers, peer address, and the names in the client's certificate. It is a
    `Credentials` for the access rules."""

    def __init__(self, headers: Iterable[tuple[str, str]], certificate: Sequence[str], peer: str) -> None:
        self.peer = peer
        self._headers = joined(headers)
        self._certificate = certificate

    def metadata(self, key: str) -> str | None:
        return self._headers.get(key)

    def certificate(self) -> Sequence[str]:
        return self._certificate


def admit_page(rules: AccessRules | None, path: str, caller: Callable[[], HttpCredentials]) -> None:
    """Applies the rule of a page that no handler of a protocol answers: health, metrics, descriptions of the API. Other
    paths have no rule here. `rules`: None for a port that is open to everybody. Raises Unauthenticated, Forbidden."""
    rule = None if rules is None else page_rule(path)
    if rules is not None and rule is not None:
        rules.admit(caller(), rule)


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name; the values of a header that comes more than once are joined with commas (RFC 9110, 5.2)."""
    values: dict[str, str] = {}
    for name, value in headers:
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def status_and_headers(error: ServingError) -> tuple[int, dict[str, str]]:
    """The status and headers of a refusal outside of any protocol."""
    status = oip_status(error.code)
    return status, CHALLENGE if status == 401 else {}


def peer_of(client: Any) -> str:
    """The socket's peer (host, port, ...) in gRPC's form; "" without one."""
    if not client:
        return ""
    host, port = client[0], client[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def names_in(peer: Any) -> tuple[str, ...]:
    """The names in a verified certificate in the form of `ssl.SSLSocket.getpeercert`; empty without one."""
    if not peer:
        return ()
    subject = [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for _, value in peer.get("subjectAltName", ())]
    return tuple(dict.fromkeys([*subject, *others]))
