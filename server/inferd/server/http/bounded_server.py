"""uvicorn on an accept loop of our own (`acceptor`), and over TLS with certificates that are reloaded while the server
runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from inferd.server.access.tls import TlsFiles
from inferd.server.http.acceptor import Acceptor
from inferd.server.http.server import HttpLimits


class BoundedUvicornServer(uvicorn.Server):
    """Serves on the sockets that it is given, over TLS where there are files for it."""

    def __init__(
        self, config: uvicorn.Config, tls: TlsFiles | None, limits: HttpLimits, cut_off: Callable[[], None]
    ) -> None:
        """`cut_off` ends what is not answered when the server stops and that uvicorn does not know of."""
        super().__init__(config)
        self._cut_off = cut_off
        self._context = None if tls is None else tls.server_context()
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        acceptor = Acceptor(
            sockets or (),
            self._connection,
            context=self._context,
            handshake=self._limits.head,
            handshakes=self._limits.connections,
        )
        self.servers.append(acceptor)  # type: ignore[arg-type]  # it has what uvicorn uses of an asyncio.Server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._cut_off()

    def _connection(self) -> asyncio.Protocol:
        connection: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection
