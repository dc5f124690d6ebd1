"""`inferd health`: asks a server on this machine whether it is ready. For a container's health check and for scripts.

A server notes its addresses in its private directory (`server.work_dir`), so that it is found whatever flags, ports and
certificates it was started with.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from inferd.server.cli.errors import CommandError, usage

if TYPE_CHECKING:
    from inferd.server.config.schema import ServerConfig
    from inferd.server.work_dir import WorkDir

CONFIG_VARIABLE: Final = "INFERD_CONFIG"
"""The environment variable that gives the default of --config."""
_NOTE: Final = "addresses.json"
_MOST_BODY: Final = 1 << 16  # bytes of an answer that are read
_PAGE: Final = "/readyz"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where one server listens, HOST:PORT or unix:PATH. `process` is None if nobody knows whether it runs."""

    grpc: tuple[str, ...]
    http: tuple[str, ...]
    metrics: tuple[str, ...]
    grpc_tls: bool
    http_tls: bool
    process: int | None = None


def add(subparsers: Any) -> None:
    """Registers the command."""
    text = "ask the server on this machine whether it is ready; exit code 0: it is"
    parser = subparsers.add_parser("health", help=text, description=f"{text[0].upper()}{text[1:]}, 1: it is not.")
    parser.add_argument(
        "--url", metavar="URL", help=f"ask there, such as http://127.0.0.1:8000 ({_PAGE} unless it has a path)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=default_config(), help="the server's settings (YAML)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the server")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="for the answer (%(default)s)")
    parser.set_defaults(run=run)


def default_config() -> Path | None:
    """The file that INFERD_CONFIG names, None if it is not set."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def note_addresses(
    work: WorkDir, config: ServerConfig, grpc: Sequence[str], http: Sequence[str], metrics: Sequence[str]
) -> None:
    """Writes down where this server listens, for `inferd health`. A note that cannot be written is left out."""
    noted = Addresses(
        tuple(grpc),
        tuple(http),
        tuple(metrics),
        config.server.tls is not None,
        config.http.tls is not None,
        os.getpid(),
    )
    try:
        (work.path / _NOTE).write_text(json.dumps(asdict(noted)))
    except OSError:
        pass  # the disk is full: the server serves all the same, and `inferd health` asks where the settings say


def run(args: argparse.Namespace) -> int:
    """Prints `ready` and returns 0, or raises CommandError with the reason."""
    if args.url is not None:
        found = urlsplit(args.url)
        if found.scheme not in ("http", "https") or not found.netloc:
            raise usage(f"--url: expected http://HOST:PORT or https://HOST:PORT, got {args.url!r}")
        path = f"{found.path}?{found.query}" if found.query else found.path
        _ask_http(found.netloc, path if path not in ("", "/") else _PAGE, found.scheme == "https", args.timeout)
    else:
        _ask(_addresses(args), args.timeout)
    print("ready")
    return 0


def _addresses(args: argparse.Namespace) -> Addresses:
    """Those of the one server of this user that runs, else those that the settings give."""
    from inferd.server.config.errors import ConfigError
    from inferd.server.config.load import load_config
    from inferd.server.work_dir import notes_of_the_living

    try:
        config = load_config(args.config, os.environ, args.set)
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    parent = Path(config.server.work_dir) if config.server.work_dir is not None else None
    running = [Addresses(**json.loads(note)) for note in notes_of_the_living(_NOTE, parent)]
    if len(running) > 1:
        processes = ", ".join(str(each.process) for each in running)
        raise CommandError(f"{len(running)} servers of this user run here (processes {processes}): give --url")
    if running:
        return running[0]
    listen, tls = config.server, config.http.tls is not None
    return Addresses(listen.listen, listen.http, listen.metrics, config.server.tls is not None, tls)


def _ask(server: Addresses, timeout: float) -> None:
    if server.metrics:
        _ask_http(_reachable(server.metrics[0]), _PAGE, False, timeout)
    elif server.http:
        _ask_http(_reachable(server.http[0]), _PAGE, server.http_tls, timeout)
    elif server.grpc and not server.grpc_tls:
        _ask_grpc(_reachable(server.grpc[0]), timeout)
    else:
        raise CommandError("the server has no port for health checks: set server.metrics, such as [127.0.0.1:8002]")


def _ask_http(place: str, path: str, tls: bool, timeout: float) -> None:
    """Raises CommandError unless the answer is a 2xx."""
    import http.client
    import ssl

    connection: http.client.HTTPConnection
    if tls:
        # Nothing secret is sent, and the certificate has the server's public name, not the address of this machine.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(place, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(place, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(_MOST_BODY)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Over TLS 1.3 a client that lacks a certificate learns of it only by the end of the connection.
        ended = (
            tls and isinstance(error, ConnectionError | ssl.SSLError) and not isinstance(error, ConnectionRefusedError)
        )
        hint = "; if the port asks for a client's certificate, set server.metrics" if ended else ""
        raise CommandError(f"not ready: {place}: {_reason(error)}{hint}") from None
    finally:
        connection.close()
    if status // 100 != 2:
        raise CommandError(f"not ready: {place}{path} answers {status}{_said(body)}")


def _ask_grpc(place: str, timeout: float) -> None:
    """Raises CommandError unless the health service says SERVING."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(place, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise CommandError(f"not ready: {place}: {error.code().name}: {error.details()}") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise CommandError(f"not ready: {place} answers {name}")


def _reachable(address: str) -> str:
    """An address to call for one to listen on: the loopback address in place of all addresses."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]', '': '127.0.0.1'}.get(host, host) }:{port}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _said(body: bytes) -> str:
    """The reason in a JSON body, as the end of a sentence."""
    try:
        said = json.loads(body)
        return f": {said.get('reason') or said['error']}"
    except (ValueError, KeyError, AttributeError):
        return ""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value
