"""uvicorn over TLS, with two things that uvicorn has no settings for: a time limit for handshakes, and certificates
that are reloaded while the server runs."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from inferd.server.access.tls import TlsFiles


class TlsUvicornServer(uvicorn.Server):
    """Serves on the sockets that it is given. `handshake` is the most seconds that a TLS handshake may take."""

    def __init__(self, config: uvicorn.Config, tls: TlsFiles, handshake: float) -> None:
        super().__init__(config)
        self._context = tls.server_context()
        self._handshake = handshake

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        for sock in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                self._connection, sock=sock, ssl=self._context, ssl_handshake_timeout=self._handshake
            )
            self.servers.append(server)

    def _connection(self) -> asyncio.Protocol:
        connection: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection
