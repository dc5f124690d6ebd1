"""POST /v2/models/MODEL[/versions/VERSION]/infer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.server.access.call_checks import CallChecks
from inferd.server.errors import ServingError
from inferd.server.http.error_boundary import JSON, RestErrorBoundary
from inferd.server.http.exchange import HttpExchange
from inferd.server.inference.shared_memory import Regions, admit_shared
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.oip.error_messages import unknown, version_of
from inferd.server.protocols.oip.errors import in_hand
from inferd.server.protocols.oip.request import query
from inferd.server.protocols.oip.request_options import request_options
from inferd.server.protocols.oip.rest.request import HEADER_LENGTH, RestRequest, read_raw_request, read_request
from inferd.server.protocols.oip.rest.response import write_response

_BINARY = "application/octet-stream"


class RestInfer:
    """Answers inference requests. Used on the event loop."""

    def __init__(self, manager: ManagerLike, boundary: RestErrorBoundary, regions: Regions, gate: CallChecks) -> None:
        self._manager = manager
        self._regions = regions
        self._gate = gate
        self._boundary = boundary

    async def __call__(self, request: Request, model: str, version: str) -> Response:
        """Answers one request; `version` is a number, a label, or "" for the default."""

        async def work(exchange: HttpExchange) -> Response:
            body = await exchange.body()
            header = exchange.headers.get(HEADER_LENGTH)
            if header == "0":
                parsed = self._raw(body, model, version)
            else:
                parsed = await exchange.run(_json_size(body, header), read_request, body, header, model, version)
            return await self._infer(exchange, parsed, len(body))

        return await self._boundary.answer(request, work)

    async def _infer(self, exchange: HttpExchange, parsed: RestRequest, nbytes: int) -> Response:
        request = parsed.request
        options = request_options(request, self._regions)
        if options.shared:
            admit_shared(self._gate, exchange)
        prepared = query(self._boundary.protocol.name, request, options, exchange.deadline, nbytes, exchange.started)
        try:
            answer = await self._boundary.infer(exchange, prepared)
            size = sum(array.nbytes for array in answer.outputs.values())
            body, length = await exchange.run(size, write_response, answer, parsed, options)
        except ServingError as error:
            refused = unknown(error, self._manager, request.model_name, request.model_version)
            raise in_hand(refused, request.request_id) from None
        if length is None:
            return await self._boundary.compressed(exchange, body, JSON, {})
        return await self._boundary.compressed(
            exchange, body, _BINARY, {"Inference-Header-Content-Length": str(length)}
        )

    def _raw(self, body: bytes, model: str, version: str) -> RestRequest:
        number, label = version_of(version)
        try:
            handle = self._manager.acquire(model, number, label)
        except ServingError as error:
            raise unknown(error, self._manager, model, version) from None
        try:
            servable = handle.servable
            signature = servable.signatures[servable.default_signature]
            return read_raw_request(body, model, version, signature, batched=servable.max_batch_size > 0)
        finally:
            handle.release()


def _json_size(body: bytes, header: str | None) -> int:
    # Only the JSON takes time to parse: tensors behind it become views of the body.
    return int(header) if header and header.isascii() and header.isdigit() and len(header) < 12 else len(body)
