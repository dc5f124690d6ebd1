"""POST /v1/models/MODEL[/versions/N|/labels/LABEL]:predict."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from inferd.backends.api import DEFAULT_SIGNATURE, Array, Signature
from inferd.server.errors import InvalidRequest
from inferd.server.http.error_boundary import JSON, RestErrorBoundary, method_of
from inferd.server.http.exchange import HttpExchange
from inferd.server.inference.interfaces import Check, DecodedCall
from inferd.server.inference.plan import RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.answers import Answer, answers_of
from inferd.server.protocols.tfs.codec import TfsMethodCodec
from inferd.server.protocols.tfs.error_messages import acquire
from inferd.server.protocols.tfs.rest.request import read_document, read_inputs
from inferd.server.protocols.tfs.rest.response import write_response
from inferd.server.scheduling.request import InferenceRequest


class RestPredictCodec(TfsMethodCodec):
    """The answers to requests over REST, as values: their JSON is written elsewhere than where the batch ends."""

    protocol = "http-tfs"

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> list[Answer]:
        """See Codec."""
        return answers_of(group, outputs, requests)


class RestPredict:
    """Answers predict requests. Used on the event loop."""

    def __init__(self, manager: ManagerLike, boundary: RestErrorBoundary, check: Check) -> None:
        self._manager = manager
        self._boundary = boundary
        self._codec = RestPredictCodec(check, manager, "POST :predict")

    async def __call__(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """Answers one request, for a version, a label, or the default version."""

        async def work(exchange: HttpExchange) -> Response:
            body = await exchange.body()
            while True:
                given, asked = await exchange.run(len(body), read_document, body)
                name = asked or DEFAULT_SIGNATURE
                signature = self._signature(model, version, label, name)
                inputs, rows = await exchange.run(len(body), read_inputs, given, signature)
                # Parsing a long body takes time. If a version with other inputs has come into service meanwhile, the
                # body is parsed again for its signature.
                if self._signature(model, version, label, name).inputs == signature.inputs:
                    break
            template = RequestTemplate(self._codec.forms.once(model, version, label, name))
            answer: Answer = await self._boundary.infer(
                exchange,
                method_of(request),
                self._codec,
                lambda call: DecodedCall(call, template, inputs, "", len(body), owned=True),
            )
            size = sum(array.nbytes for array in answer.outputs.values())
            text = await exchange.run(size, lambda: write_response(answer.outputs, rows=rows))
            return await self._boundary.compressed(exchange, text, JSON, {})

        return await self._boundary.answer(request, work)

    def _signature(self, model: str, version: int | None, label: str | None, name: str) -> Signature:
        handle = acquire(self._manager, model, version, label)
        try:
            servable = handle.servable
            found = servable.signatures.get(name)
            if found is None:
                known = ", ".join(map(repr, servable.signatures))
                raise InvalidRequest(f'Serving signature name: "{name}" not found in signature def; known: {known}')
            return found
        finally:
            handle.release()
