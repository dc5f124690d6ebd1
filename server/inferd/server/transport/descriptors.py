"""Whether the process may have as many descriptors as its connections need (RLIMIT_NOFILE)."""

from __future__ import annotations

import logging
import os
import resource
from typing import Final

from inferd.server.config.schema import ServerConfig
from inferd.server.observability.events import event

_log = logging.getLogger("inferd.app")
_OWN: Final = 192  # descriptors for models, workers, files, and the pages of server.metrics
_OWN_LEAST: Final = 24  # of them, where there are few
_CONNECTIONS_LEAST: Final = 4  # of each port
_ENOUGH: Final = 1024  # what the error asks for


class TooFewDescriptors(OSError):
    """The process may not have enough descriptors to serve."""


def within_descriptors(config: ServerConfig) -> ServerConfig:
    """The configuration with as many connections as the process may have descriptors for; the limit of the process is
    raised as far as it may raise it. Logs a warning where that is fewer than configured. Raises TooFewDescriptors."""
    ports = len(config.server.listen)
    grpc, http = config.grpc.max_connections * ports, config.http.connections if config.server.http else 0
    limit = _raised()
    room = limit - len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else limit
    if grpc + http + _OWN <= room:
        return config
    own = min(_OWN, max(_OWN_LEAST, room // 4))
    share = (room - own) / (grpc + http)
    fewer = int(config.grpc.max_connections * share), int(http * share)
    if fewer[0] < _CONNECTIONS_LEAST or (http and fewer[1] < _CONNECTIONS_LEAST):
        raise TooFewDescriptors(
            f"expected at least {_ENOUGH} file descriptors, got a limit of {limit}: raise it (ulimit -n, LimitNOFILE=)"
        )
    event(
        _log,
        logging.WARNING,
        "fewer connections than configured, for want of file descriptors: raise ulimit -n",
        limit=limit,
        wanted=grpc + http + _OWN,
        grpc_max_connections=fewer[0],
        http_connections=fewer[1],
    )
    update = {"grpc": config.grpc.model_copy(update={"max_connections": fewer[0]})}
    if http:
        return config.model_copy(update={**update, "http": config.http.model_copy(update={"connections": fewer[1]})})
    return config.model_copy(update=update)


def _raised() -> int:
    """The limit of the process, after raising it to the most that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**31
