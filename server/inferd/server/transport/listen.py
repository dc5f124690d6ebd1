"""The addresses and credentials of the gRPC port, and the reasons why an address cannot be bound."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from inferd.server.access.tls import Material, TlsFiles
from inferd.server.config.schema import Grpc, Server
from inferd.server.transport.compression import UNINFLATED

_log = logging.getLogger("inferd.rpc")

TLS: Final = "server.tls"
HANDSHAKE: Final = 10.0  # seconds for a client's TLS handshake and its HTTP/2 preface; gRPC's default is 120
# Seconds without a call after which a connection is asked to end; clients connect anew when they call.
IDLE: Final = 600.0
_LONGEST_PATH: Final = 107  # bytes in the path of a unix socket on Linux
# Errors of an address family that the machine resolves but does not have: localhost is also ::1.
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT or unix:PATH. An address that is not `required` and cannot be bound gives only a warning."""

    text: str
    required: bool = True


def addresses(config: Server) -> tuple[Address, ...]:
    """The addresses of a configuration. Configured addresses are all required; of the default ones only the first."""
    configured = "listen" in config.model_fields_set
    return tuple(Address(text, required=configured or number == 0) for number, text in enumerate(config.listen))


def options(config: Grpc, *, shared: bool = False) -> list[tuple[str, Any]]:
    """gRPC's channel arguments, the same for every transport. `shared`: several workers listen at the same
    addresses."""
    age = config.max_connection_age
    return [
        # gRPC's default lets two servers share a port silently, and each gets half of the calls.
        ("grpc.so_reuseport", int(shared)),
        *([] if age is None else [("grpc.max_connection_age_ms", round(age * 1000))]),
        ("grpc.max_receive_message_length", config.max_message),
        ("grpc.max_send_message_length", config.max_message),
        ("grpc.max_concurrent_streams", config.max_streams_per_connection),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        # Overload protection refuses streams below the advertised limit and drops waiting calls at random: clients saw
        # RST_STREAM and CANCELLED. `inflight` answers with a status instead.
        ("grpc.http.overload_protection", 0),
        ("grpc.server.max_pending_requests", 16384),
        ("grpc.server.max_pending_requests_hard_limit", 32768),
        ("grpc.keepalive_time_ms", round(config.keepalive_time * 1000)),
        ("grpc.keepalive_timeout_ms", round(config.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping this often without being disconnected.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        *UNINFLATED,
        # Calls that wait to be accepted may hold 64 KiB each. With the probe, a client that sends fast is allowed more.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", round(IDLE * 1000)),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE * 1000)),
        ("grpc.max_metadata_size", config.max_metadata),
        ("grpc.absolute_max_metadata_size", config.max_metadata),
    ]


def credentials(tls: TlsFiles | None) -> grpc.ServerCredentials | None:
    """Server credentials for one address; None for plain text. Each new connection gets the newest certificate."""
    if tls is None:
        return None
    in_use = [tls.material]

    def newest() -> grpc.ServerCertificateConfiguration | None:
        material = tls.material
        if material is in_use[0]:
            return None
        in_use[0] = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(_configuration(in_use[0]), newest, tls.mutual)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.ca)


def bind(
    wanted: Sequence[Address],
    tls: TlsFiles | None,
    add: Callable[[str, grpc.ServerCredentials | None], int],
    *,
    shared: bool = False,
) -> list[str]:
    """Binds every address and returns the bound ones, with their ports.

    add      makes the server listen at one address and returns the port; 0 or RuntimeError: it could not
    shared   see `options`

    Raises OSError when a required address cannot be bound.
    """
    bound = []
    for address in wanted:
        try:
            if not shared:
                # Tried first with plain sockets: gRPC writes its own error to stderr, and succeeds when it can bind
                # only one of the addresses of a name.
                _check_bindable(bindable(address.text))
            bound.append(_bind_one(address.text, credentials(tls), add))
        except OSError as error:
            if address.required:
                raise
            _log.warning("%s; this default address is left out", error.strerror or error)
    return bound


def _bind_one(
    text: str, tls: grpc.ServerCredentials | None, add: Callable[[str, grpc.ServerCredentials | None], int]
) -> str:
    target = bindable(text)
    try:
        port = add(target, tls)
    except RuntimeError:
        port = 0
    if not port:
        raise why_not(target)
    return target if target.startswith("unix:") else f"{target.rpartition(':')[0]}:{port}"


def bindable(text: str) -> str:
    """The address to bind: `[::]` becomes `0.0.0.0` on a machine without IPv6. Raises OSError for a unix socket on
    which another server answers: gRPC would silently replace it."""
    if text.startswith("unix:"):
        if _answers(text.removeprefix("unix:")):
            raise OSError(errno.EADDRINUSE, f"cannot listen on {text}: another server answers there")
        return text
    if text.startswith("[::]:") and not has_ipv6():
        return f"0.0.0.0:{text.removeprefix('[::]:')}"
    return text


def has_ipv6() -> bool:
    """Whether this machine can bind IPv6 sockets."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def why_not(text: str) -> OSError:
    """The error of an address that could not be bound, with the reason, which gRPC does not report."""
    reason = "it could not be bound"
    number = errno.EADDRNOTAVAIL
    try:
        _try(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        number = error.errno or number
    return OSError(number, f"cannot listen on {text}: {reason}")


def _check_bindable(text: str) -> None:
    """Raises OSError, with a text for the operator, when an address cannot be bound now."""
    try:
        _try(text)
    except OSError:
        raise why_not(text) from None


def _try(text: str) -> None:
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        parent = path.parent
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, f"expected a path of at most {_LONGEST_PATH} bytes")
        if path.exists() and not path.is_socket():
            raise OSError(errno.EEXIST, "there is something that is no socket")
        if not parent.is_dir():
            raise OSError(errno.ENOENT, f"there is no directory {parent}")
        if not os.access(parent, os.W_OK):
            raise OSError(errno.EACCES, f"directory {parent} is not writable")
        return
    host, _, port = text.rpartition(":")
    lacking: list[OSError] = []
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    for family, kind, _, _, address in found:
        try:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno not in _NO_FAMILY:
                raise
            lacking.append(error)
    if len(lacking) == len(found):
        raise lacking[0]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.settimeout(1.0)
        probe.connect(path)
        return True
    return False
