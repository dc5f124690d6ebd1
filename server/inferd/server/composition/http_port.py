"""Chooses the HTTP port: with REST if its libraries are installed, else with metrics and health only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

from inferd.server.access.tls import TlsFiles
from inferd.server.composition.http_routes import Core, RestApi
from inferd.server.config.schema import Http
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpLimits, HttpServer

_log = logging.getLogger("inferd.http")


class HttpPort(Protocol):
    """An HTTP port, used once. Thread-safe."""

    def start(self) -> tuple[str, ...]: ...
    def unlisten(self) -> None: ...
    def refuse(self) -> None: ...
    def drain(self, grace: float) -> bool: ...
    def stop(self) -> None: ...


def make_http_server(
    addresses: Sequence[str],
    metrics: Callable[[], bytes],
    ready: Callable[[], ReadinessLike],
    core: Core,
    config: Http,
    *,
    shared: bool = False,
    tls: TlsFiles | None = None,
) -> HttpPort:
    """The HTTP port, not yet started. `shared`: other workers listen at the same addresses."""
    limits = HttpLimits(connections=config.connections)
    missing = [name for name in ("fastapi", "httptools", "orjson", "uvicorn") if find_spec(name) is None]
    if missing:
        if addresses:
            _log.info(
                "the HTTP port serves metrics and health; REST needs %s: pip install 'inferd[http]'", ", ".join(missing)
            )
        return HttpServer(addresses, metrics, ready, limits=limits, rules=core.rules, shared=shared, tls=tls)
    from inferd.server.http.rest_server import RestServer

    rest = RestApi(core, config, ready)
    return RestServer(
        addresses,
        metrics,
        ready,
        limits=limits,
        rest=rest,
        rules=core.rules,
        shared=shared,
        tls=tls,
        unwritten=core.inflight,
    )
