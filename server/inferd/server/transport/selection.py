"""Which transport serves: the completion queue where the installed grpcio is known to carry it, else the public API."""

from __future__ import annotations

import logging
from collections.abc import Callable

from inferd.server.access.tls import TlsFiles
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.server.scheduling.inline import InlineLoop
from inferd.server.transport.calls import MethodTable, Transport

_log = logging.getLogger("inferd.rpc")


def make_transport(
    table: MethodTable,
    config: ServerConfig,
    inflight: InflightBounds,
    *,
    on_fatal: Callable[[], None],
    loop: InlineLoop | None = None,
    tls: TlsFiles | None = None,
) -> Transport:
    """The transport that `server.transport` asks for. `auto` falls back with one line in the log, `cq` does not.

    Raises OSError when `cq` is asked for and cannot be had. `on_fatal` is called when the front end itself fails;
    `loop` takes the batches that are short enough to run on the transport's own thread (completion queue only).
    """
    asked = config.server.transport
    if asked != "public":
        from inferd.server.transport.completion_queue.compatibility import why_not

        reason = why_not()
        if reason is None:
            from inferd.server.transport.completion_queue.transport import CompletionQueueTransport

            return CompletionQueueTransport(table, config, inflight, on_fatal=on_fatal, loop=loop, tls=tls)
        if asked == "cq":
            raise OSError(f"server.transport is cq, but the completion queue cannot be used: {reason}")
        _log.warning("serving on grpcio's public API, which is slower: %s", reason)
    from inferd.server.transport.grpc_aio.transport import PublicTransport

    return PublicTransport(table, config, inflight, tls=tls)
