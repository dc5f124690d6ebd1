"""POST /v2/models/MODEL[/versions/VERSION]/infer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from inferd.backends.api import Array
from inferd.server.access.rules import AccessRules
from inferd.server.errors import ServingError
from inferd.server.http.error_boundary import JSON, RestErrorBoundary, method_of
from inferd.server.http.exchange import HttpExchange
from inferd.server.inference.interfaces import Check
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.answers import answers_of
from inferd.server.protocols.oip.codec import OipCodec
from inferd.server.protocols.oip.error_messages import unknown, version_of
from inferd.server.protocols.oip.errors import in_hand
from inferd.server.protocols.oip.rest.request import HEADER_LENGTH, RestRequest, read_raw_request, read_request
from inferd.server.protocols.oip.rest.response import write_response
from inferd.server.scheduling.request import InferenceRequest

_BINARY = "application/octet-stream"


class RestInferCodec(OipCodec):
    """The answers to requests over REST, as values: their JSON is written elsewhere than where the batch ends."""

    protocol = "http-oip"

    def encode(self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]) -> list[Any]:
        """See Codec. Each answer comes with the options of its request."""
        return [(answer, group.template.form.options.options) for answer in answers_of(group, outputs, requests)]


class RestInfer:
    """Answers inference requests. Used on the event loop."""

    def __init__(
        self, manager: ManagerLike, boundary: RestErrorBoundary, regions: Regions, rules: AccessRules, check: Check
    ) -> None:
        self._manager = manager
        self._boundary = boundary
        self._codec = RestInferCodec(check, rules, manager, regions, "POST infer")

    async def __call__(self, request: Request, model: str, version: str) -> Response:
        """Answers one request; `version` is a number, a label, or "" for the default."""

        async def work(exchange: HttpExchange) -> Response:
            body = await exchange.body()
            header = exchange.headers.get(HEADER_LENGTH)
            if header == "0":
                parsed = self._raw(body, model, version)
            else:
                parsed = await exchange.run(_json_size(body, header), read_request, body, header, model, version)
            return await self._infer(exchange, method_of(request), parsed, len(body))

        return await self._boundary.answer(request, work)

    async def _infer(self, exchange: HttpExchange, method: str, parsed: RestRequest, nbytes: int) -> Response:
        request, codec = parsed.request, self._codec
        answer, options = await self._boundary.infer(
            exchange, method, codec, lambda call: codec.prepared(call, request, nbytes)
        )
        size = sum(array.nbytes for array in answer.outputs.values())
        try:
            body, length = await exchange.run(size, write_response, answer, parsed, options)
        except ServingError as error:
            raise in_hand(error, request.request_id) from None
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
