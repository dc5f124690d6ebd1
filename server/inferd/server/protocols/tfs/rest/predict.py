"""POST /v1/models/MODEL[/versions/N|/labels/LABEL]:predict."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.backends.api import Signature
from inferd.server.errors import InvalidRequest
from inferd.server.http.error_boundary import JSON, RestErrorBoundary
from inferd.server.http.exchange import HttpExchange
from inferd.server.inference.service import Query
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.tfs.error_messages import acquire, unknown
from inferd.server.protocols.tfs.rest.request import read_document, read_inputs
from inferd.server.protocols.tfs.rest.response import write_response


class RestPredict:
    """Answers predict requests. Used on the event loop."""

    def __init__(self, manager: ManagerLike, boundary: RestErrorBoundary) -> None:
        self._manager = manager
        self._boundary = boundary

    async def __call__(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """Answers one request, for a version, a label, or the default version."""

        async def work(exchange: HttpExchange) -> Response:
            body = await exchange.body()
            while True:
                given, name = await exchange.run(len(body), read_document, body)
                signature = self._signature(model, version, label, name)
                inputs, rows = await exchange.run(len(body), read_inputs, given, signature)
                # Parsing a long body takes time. If a version with other inputs has come into service meanwhile, the
                # body is parsed again for its signature.
                if self._signature(model, version, label, name).inputs == signature.inputs:
                    break
            query = Query(
                self._boundary.protocol.name,
                model,
                version,
                label,
                name,
                inputs,
                (),
                0,
                None,
                exchange.deadline,
                len(body),
                exchange.started,
                owned=True,
            )
            try:
                answer = await self._boundary.infer(exchange, query)
            except Exception as error:
                raise unknown(error, self._manager, model, version, label, name) from None
            size = sum(array.nbytes for array in answer.outputs.values())
            text = await exchange.run(size, lambda: write_response(answer.outputs, rows=rows))
            return await self._boundary.compressed(exchange, text, JSON, {})

        return await self._boundary.answer(request, work)

    def _signature(self, model: str, version: int | None, label: str | None, name: str) -> Signature:
        handle = acquire(self._manager, model, version, label)
        try:
            servable = handle.servable
            found = servable.signatures.get(name or servable.default_signature)
            if found is None:
                known = ", ".join(map(repr, servable.signatures))
                raise InvalidRequest(f'Serving signature name: "{name}" not found in signature def; known: {known}')
            return found
        finally:
            handle.release()
