"""What is asked of a caller over HTTP before anything else is done: plain checks, which the handlers call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from inferd.server.access.grants import Scope
from inferd.server.errors import ServingError
from inferd.server.http.status_codes import oip_status

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority

CERTIFICATE: Final = "certificate"
"""Where a request's state has the names of the client's certificate."""
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="inferd"'}
"""The header that a 401 must have."""
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_METRICS: Final = "/metrics"
_DESCRIBING: Final = ("/docs", "/openapi.json")


class Shown:
    """What a request shows of its caller: credentials for the authority."""

    def __init__(self, headers: Iterable[tuple[str, str]], certificate: Sequence[str], peer: str) -> None:
        self.peer = peer
        self._headers = joined(headers)
        self._certificate = certificate

    def metadata(self, key: str) -> str | None:
        return self._headers.get(key)

    def certificate(self) -> Sequence[str]:
        return self._certificate


class HttpAdmission:
    """The checks of one server; with no authority everybody may. Raise Unauthenticated, Forbidden. Thread-safe."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority: Final = authority

    def need(self, caller: Any, scope: Scope, model: str) -> None:
        """The caller must have a scope for a model, whether or not there is one of this name."""
        if self._authority is None:
            return
        grants = self._authority.identify(caller).grants
        if not grants.allows(scope, model):
            raise grants.refusal(scope, model)

    def admits(self, caller: Any, scope: Scope, model: str) -> bool:
        """The same as an answer: for handlers that leave the refusal to the method that they call."""
        try:
            self.need(caller, scope, model)
        except ServingError:
            return False
        return True

    def health(self, caller: Any) -> None:
        """The caller must be somebody, unless health is open."""
        if self._authority is None:
            return
        grants = self._authority.identify(caller).grants
        if grants.anonymous and "health" not in self._authority.open:
            raise grants.refusal(None)

    def page(self, path: str, caller: Any) -> None:
        """What a page needs that no handler of a protocol answers: metrics and descriptions of the API."""
        authority = self._authority
        if authority is None:
            return
        if path in _HEALTH:
            self.health(caller)
        elif path.startswith(_DESCRIBING):
            grants = authority.identify(caller).grants
            if "reflection" not in authority.open and Scope.METADATA not in grants.scopes:
                raise grants.refusal(Scope.METADATA)
        elif path == _METRICS:
            grants = authority.identify(caller).grants
            if "metrics" not in authority.open and not grants.allows_all(Scope.METADATA):
                raise grants.refusal(Scope.METADATA, "*")  # they name every model


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By name; a header that comes more than once means its values with commas between them (RFC 9110, 5.2)."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def status_and_headers(error: ServingError) -> tuple[int, dict[str, str]]:
    """How a refusal is said outside of any protocol."""
    status = oip_status(error.code)
    return status, CHALLENGE if status == 401 else {}


def peer_of(client: Any) -> str:
    """An address of the socket (host, port, ...) in gRPC's form; "" where there is none."""
    if not client:
        return ""
    host, port = client[0], client[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def names_in(peer: Any) -> tuple[str, ...]:
    """The names in a verified certificate, as `ssl` describes it; none without one."""
    if not peer:
        return ()
    subject = [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for _, value in peer.get("subjectAltName", ())]
    return tuple(dict.fromkeys([*subject, *others]))
