"""Chooses the transport: the completion queue where it was tested with the installed grpcio, else the public API."""

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
    """The transport for the setting `server.transport`. `auto` falls back to the public API and logs one warning.

    on_fatal   called when the transport's own loop fails (completion queue only)
    loop       runs short batches on the transport's own thread (completion queue only)

    Raises OSError for `cq` where the completion queue cannot be used.
    """
    setting = config.server.transport
    if setting != "public":
        from inferd.server.transport.completion_queue.compatibility import why_not

        reason = why_not()
        if reason is None:
            from inferd.server.transport.completion_queue.transport import CompletionQueueTransport

            return CompletionQueueTransport(table, config, inflight, on_fatal=on_fatal, loop=loop, tls=tls)
        if setting == "cq":
            raise OSError(f"server.transport is cq, but the completion queue cannot be used: {reason}")
        _log.warning("serving on grpcio's public API, which is slower: %s", reason)
    from inferd.server.transport.grpc_aio.transport import PublicTransport

    return PublicTransport(table, config, inflight, tls=tls)
