"""Finds out why there is no connection to a server: what answers at each of its addresses, in words.

gRPC gives the last error of one address only, and calls a plain client of a TLS port "Socket closed". After a call has
failed for want of a connection, the addresses are therefore tried once more, without gRPC.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd.client._shared.config import Tls
from inferd.client._shared.errors import RequestError, Unavailable

# gRPC's messages when there was no connection, so nothing was sent (pick_first and round_robin use different ones).
NEVER_SENT = (
    "failed to connect",
    "connections to all backends failing",
    "DNS resolution failed",
    "errors resolving",
)
_LONGEST = 2.0  # seconds for all addresses
_EACH = 0.5  # seconds for one connection, and for its answer
_AGAIN = 5.0  # seconds for which an answer is not asked for again
_MOST = 8  # addresses
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC goes through these, and this module does not
_LITERAL = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):(\d+)")
# The start of HTTP/2: the preface and an empty SETTINGS frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_ASK_FOR_TLS = "it speaks TLS, and this client does not: pass tls=Tls(...), on the command line --tls"
_LEAVE_OUT_TLS = "it does not speak TLS, and this client does: leave out tls=Tls(...), on the command line --tls"
_ASK_FOR_CERTIFICATE = "it asks for a client's certificate: Tls(cert=..., key=...), on the command line --tls-cert"
_OTHER = "it speaks no gRPC"
_ANSWERS = "it answers now"
_SAYS_NOTHING = "it accepts the connection and says nothing"


@dataclass(frozen=True, slots=True)
class _Address:
    """One place to connect to: a path (of a unix socket), or a host's address and port. `name`: as in certificates."""

    family: socket.AddressFamily
    where: str | tuple[str, int]
    name: str = ""

    def __str__(self) -> str:
        if isinstance(self.where, str):
            return f"unix:{self.where}"
        host, port = self.where
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connected(self) -> socket.socket:
        """A connection. Raises OSError."""
        opened = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            opened.settimeout(_EACH)
            opened.connect(self.where)
        except BaseException:
            opened.close()
            raise
        return opened


class Diagnosis:
    """Looks at the addresses of one client. Thread-safe; `explained` may take two seconds, once in five."""

    def __init__(self, target: str, tls: Tls | None) -> None:
        """`target`: gRPC's; `tls`: the client's settings, None for a plain client."""
        self._target = target
        self._tls = tls
        self._lock = threading.Lock()
        self._text = ""
        self._at = float("-inf")

    def explained(self, error: RequestError) -> RequestError:
        """The error, with what was found at the addresses in the place of gRPC's words, if the call failed because
        there was no connection; every other error as it is."""
        if not isinstance(error, Unavailable) or not error.message.startswith(NEVER_SENT):
            return error
        text = self.text()
        if not text:
            return error
        clearer = type(error)(
            error.code,
            text,
            model=error.model,
            request_id=error.request_id,
            accepted=error.accepted,
            retry_after=error.retry_after,
            attempts=error.attempts,
        )
        clearer.__cause__ = error
        return clearer

    def unreached(self) -> str:
        """As `text`; "" also if one of the addresses answers, so that something else is the matter."""
        text = self.text()
        return "" if _ANSWERS in text else text

    def text(self) -> str:
        """What answers at each address; "" if that cannot be told, or another thread is looking now."""
        if any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
            return ""
        if not self._lock.acquire(blocking=False):
            return ""
        try:
            if time.monotonic() - self._at > _AGAIN:
                self._text = self._look()
                self._at = time.monotonic()
            return self._text
        finally:
            self._lock.release()

    def _look(self) -> str:
        try:
            addresses = list(dict.fromkeys(_addresses(self._target)))
        except socket.gaierror as error:
            return f"no connection to {_shown(self._target)}: the name is unknown ({error.strerror})"
        found: list[tuple[str, str]] = []
        until = time.monotonic() + _LONGEST
        for address in addresses[:_MOST]:
            if time.monotonic() > until:
                found.append((str(address), "not looked at"))
                continue
            try:
                found.append((str(address), self._at_address(address)))
            except TimeoutError:
                found.append((str(address), "it does not answer"))
            except OSError as error:
                found.append((str(address), (error.strerror or str(error)).lower()))
        if not found:
            return ""
        shown = _shown(self._target)
        if [where for where, _ in found] == [shown]:
            return f"no connection to {shown}: {found[0][1]}"
        more = f"; and {len(addresses) - _MOST} more" if len(addresses) > _MOST else ""
        return f"no connection to {shown}: {'; '.join(f'{where}: {what}' for where, what in found)}{more}"

    def _at_address(self, address: _Address) -> str:
        """What answers. Raises OSError when nothing does."""
        if self._tls is not None:
            return self._tls_answer(address, self._tls)
        plain = _plain_answer(address)
        return plain if plain != _SAYS_NOTHING or not _speaks_tls(address) else _ASK_FOR_TLS

    def _tls_answer(self, address: _Address, tls: Tls) -> str:
        context = _context(tls)
        with address.connected() as opened:
            try:
                with context.wrap_socket(opened, server_hostname=tls.override_name or address.name or None) as secure:
                    if secure.selected_alpn_protocol() != "h2":
                        return "it speaks TLS and no HTTP/2: is that a gRPC port?"
                    return _after_handshake(secure, has_certificate=tls.cert is not None)
            except ssl.SSLCertVerificationError as error:
                return (
                    f"its certificate is not accepted: {error.verify_message.rstrip('.')}; see Tls(ca=..., "
                    "override_name=...), on the command line --tls-ca and --tls-name"
                )
            except ssl.SSLError as error:
                if tls.cert is None and "HANDSHAKE_FAILURE" in str(error):  # before TLS 1.3
                    return _ASK_FOR_CERTIFICATE
                failure = f"TLS fails: {(error.reason or str(error)).replace('_', ' ').lower()}"
            except TimeoutError:
                failure = _SAYS_NOTHING
            except OSError as error:
                failure = (error.strerror or str(error)).lower()
        plain = _plain_answer(address)
        return _LEAVE_OUT_TLS if plain == _ANSWERS else plain if plain.startswith(_OTHER) else failure


def _after_handshake(secure: ssl.SSLSocket, *, has_certificate: bool) -> str:
    """In TLS 1.3 a server refuses a client without a certificate after the handshake, often without a word."""
    try:
        secure.sendall(_PREFACE)
        start = secure.recv(9)
    except TimeoutError:
        return _SAYS_NOTHING
    except OSError:
        start = b""
    if start[3:4] == b"\x04":
        return _ANSWERS
    return "it ends the connection after the TLS handshake" if has_certificate else _ASK_FOR_CERTIFICATE


def _plain_answer(address: _Address) -> str:
    with address.connected() as opened:
        try:
            opened.sendall(_PREFACE)
            start = opened.recv(64)
        except TimeoutError:
            return _SAYS_NOTHING
        except OSError:
            start = b""
    if start[3:4] == b"\x04" and len(start) >= 9:
        return _ANSWERS
    if start.startswith(b"HTTP/1"):
        return f"{_OTHER}, but HTTP/1: is that the HTTP port?"
    if start[:2] == b"\x15\x03" or _speaks_tls(address):
        return _ASK_FOR_TLS
    return f"{_OTHER}: is that the port of something else?" if start else "it closes the connection"


def _speaks_tls(address: _Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with address.connected() as opened, context.wrap_socket(opened):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error)
    except OSError:
        return False


def _context(tls: Tls) -> ssl.SSLContext:
    ca = tls.ca
    if isinstance(ca, bytes):
        context = ssl.create_default_context(cadata=ca.decode("ascii", "replace"))
    else:
        context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if isinstance(tls.cert, str | Path) and isinstance(tls.key, str | Path):
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _addresses(target: str) -> Iterator[_Address]:
    """The places of a gRPC target. Raises socket.gaierror for an unknown name."""
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        yield _Address(socket.AF_UNIX, rest.removeprefix("//"))
        return
    if scheme not in ("dns", "ipv4", "ipv6"):
        return
    for part in rest.rpartition("/")[2].split(","):
        found = _LITERAL.fullmatch(part)
        if found is None:
            continue
        host, port = found[1] or found[2], int(found[3])
        for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if family in (socket.AF_INET, socket.AF_INET6):
                yield _Address(family, (str(where[0]), port), host)


def _shown(target: str) -> str:
    return target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:")
