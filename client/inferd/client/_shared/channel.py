"""Turns addresses and settings into what gRPC takes: a target, channel arguments, credentials. Opens no connection."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from inferd.client._shared.config import DEFAULT_PORT, KeepAlive, Tls
from inferd.client._shared.errors import InvalidInput

LoadBalancing = Literal["round_robin", "pick_first"]
Compression = Literal["gzip", "deflate"]
Options = tuple[tuple[str, Any], ...]

_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:", "xds:")
_COMPRESSION = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """The arguments of `grpc.secure_channel` and `grpc.aio.secure_channel`.

    credentials   None for a connection without TLS
    tls           the settings from which they were made
    channels      number of channels to open
    """

    target: str
    options: Options
    credentials: grpc.ChannelCredentials | None
    compression: grpc.Compression | None
    channels: int = 1
    tls: Tls | None = None


def plan_channel(
    address: str | Sequence[str],
    *,
    tls: Tls | None,
    keepalive: KeepAlive | None,
    load_balancing: LoadBalancing,
    health_check: bool | None,
    compression: Compression | None,
    options: Mapping[str, Any],
    channels: int = 1,
) -> ChannelPlan:
    """The plan for a client's settings. Raises InvalidInput for an address, a file or a setting that cannot be used. If
    there are several addresses, their names are looked up here (DNS)."""
    if load_balancing not in ("round_robin", "pick_first"):
        raise InvalidInput(f"load_balancing is {load_balancing!r}; expected 'round_robin' or 'pick_first'")
    if channels < 1:
        raise InvalidInput(f"channels is {channels}; expected 1 or more")
    if compression not in _COMPRESSION:
        raise InvalidInput(f"compression is {compression!r}; expected 'gzip', 'deflate' or None")
    target, authority = parse_address(address)
    service: dict[str, Any] = {"loadBalancingConfig": [{load_balancing: {}}]}
    # A single server answers itself why it is not ready. Of several servers, those that are not ready are left out:
    # they would only cost attempts.
    if health_check or (health_check is None and "," in target):
        service["healthCheckConfig"] = {"serviceName": ""}
    arguments: dict[str, Any] = {
        # The server has its own limit; a smaller one here would only lose answers.
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        # Connections are not shared between clients: neither their throughput nor their end affects another client.
        "grpc.use_local_subchannel_pool": 1,
        # By default gRPC waits a second after a failed connect, and every retry in that second fails at once.
        "grpc.initial_reconnect_backoff_ms": 50,
        # In a rolling update, a server that is back must be found before the next server stops.
        "grpc.max_reconnect_backoff_ms": 1000,
        "grpc.service_config": json.dumps(service),
        "grpc.service_config_disable_resolution": 1,
    }
    if authority:
        arguments["grpc.default_authority"] = authority
    if keepalive is not None:
        arguments["grpc.keepalive_time_ms"] = round(keepalive.time * 1000)
        arguments["grpc.keepalive_timeout_ms"] = round(keepalive.timeout * 1000)
        arguments["grpc.keepalive_permit_without_calls"] = int(keepalive.without_calls)
        arguments["grpc.http2.max_pings_without_data"] = 0
    credentials = None
    if tls is not None:
        credentials = tls.credentials()
        if tls.override_name:
            arguments["grpc.ssl_target_name_override"] = tls.override_name
    arguments.update(options)
    return ChannelPlan(target, tuple(arguments.items()), credentials, _COMPRESSION[compression], channels, tls)


def parse_address(address: str | Sequence[str]) -> tuple[str, str]:
    """gRPC's target and authority for an address; the authority is "" where gRPC's own choice is right.

    Accepted are "host", "host:port", "1.2.3.4:port", "[::1]:port", several of these (comma-separated or a sequence),
    and gRPC's own forms ("unix:/path", "dns:///name:port", "ipv4:..."). Raises InvalidInput for anything else.
    """
    parts = [address] if isinstance(address, str) else list(address) if isinstance(address, Iterable) else []
    if not all(isinstance(part, str) for part in parts):
        raise InvalidInput(f"address {address!r} is no text; expected host:port")
    if len(parts) == 1 and parts[0].startswith(_SCHEMES):
        return parts[0], ""
    parts = [piece.strip() for part in parts for piece in part.split(",")]
    if not all(parts) or not parts:
        raise InvalidInput(f"address {address!r} is empty or has an empty part; expected host:port")
    hosts = [_host_port(part) for part in parts]
    if len(hosts) == 1:
        host, port = hosts[0]
        version = _ip_version(host)
        return (_endpoint(host, port, version) if version else f"dns:///{host}:{port}"), ""
    return _several(hosts)


def _host_port(part: str) -> tuple[str, int]:
    if part.startswith(_SCHEMES):
        raise InvalidInput(f"address {part!r}: gRPC's own forms stand alone, not in a list")
    if "://" in part:
        raise InvalidInput(f"address {part!r} is a URL; expected host:port (TLS is asked for with tls=Tls(...))")
    found = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]/\s]+))(?::(?P<port>\d{1,5}))?", part)
    if found is None:
        if _ip_version(part) == 6:
            return part, DEFAULT_PORT
        raise InvalidInput(f"address {part!r} is not understood; expected host:port, [ipv6]:port or unix:/path")
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise InvalidInput(f"address {part!r}: port {port} is not between 1 and 65535")
    return found["six"] or found["host"], port


def _ip_version(host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def _endpoint(host: str, port: int, version: int) -> str:
    return f"ipv4:{host}:{port}" if version == 4 else f"ipv6:[{host}]:{port}"


def _several(hosts: list[tuple[str, int]]) -> tuple[str, str]:
    """The target and the authority for several hosts. gRPC takes only literal addresses in a list, all of one family
    (IPv4 or IPv6). Raises InvalidInput."""
    first, port = hosts[0]
    authority = f"[{first}]:{port}" if _ip_version(first) == 6 else f"{first}:{port}"
    found = {
        (host, number, version): _look_up(host, number, family)
        for host, number in hosts
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6))
    }
    for version in (4, 6):
        if all(found[host, number, version] for host, number in hosts):
            endpoints = [
                f"{ip}:{number}" if version == 4 else f"[{ip}]:{number}"
                for host, number in hosts
                for ip in found[host, number, version]
            ]
            return f"ipv{version}:{','.join(dict.fromkeys(endpoints))}", authority
    unknown = [host for host, number in hosts if not (found[host, number, 4] or found[host, number, 6])]
    if unknown:
        raise InvalidInput(f"address: the name {unknown[0]!r} is unknown")
    raise InvalidInput(f"address {', '.join(host for host, _ in hosts)}: a list holds IPv4 or IPv6 addresses, not both")


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)]
    except OSError:
        return []
