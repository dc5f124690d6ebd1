"""Status, metadata, classify and regress of TensorFlow Serving's REST API.

Each REST request becomes a call of the corresponding gRPC method, so that both give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from inferd.server.errors import InvalidRequest
from inferd.server.http.error_boundary import RestErrorBoundary
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.json.arrays import b64_or_utf8, is_b64
from inferd.server.http.json.messages import plain
from inferd.server.http.json.numbers import Numbers
from inferd.server.http.json.text import dumps, number
from inferd.server.http.method_call import Methods, call
from inferd.server.http.reply import JSON, Reply
from inferd.server.protocols.tfs.rest.request import read_document
from inferd.tfs.v1 import example_pb2
from inferd.tfs.v1 import model_service_pb2 as models_pb
from inferd.tfs.v1 import prediction_service_pb2 as pb

_MODELS = "/tensorflow.serving.ModelService/"
_PREDICTION = "/tensorflow.serving.PredictionService/"


class TfsControl:
    """Answers requests through the gRPC handlers in `methods`. Used on the event loop."""

    def __init__(self, methods: Methods, boundary: RestErrorBoundary) -> None:
        self._methods = methods
        self._boundary = boundary

    async def status(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """The state of one version, or of all versions."""

        async def work(exchange: HttpExchange) -> Reply:
            grpc_request = models_pb.GetModelStatusRequest(model_spec=_spec(model, version, label, ""))
            grpc_response = models_pb.GetModelStatusResponse()
            found = await self._call(exchange, f"{_MODELS}GetModelStatus", grpc_request, grpc_response)
            return await self._respond(exchange, plain(found, wide_as_text=True))

        return await self._boundary.answer(request, work)

    async def metadata(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """The signatures."""

        async def work(exchange: HttpExchange) -> Reply:
            spec = _spec(model, version, label, "")
            grpc_request = pb.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
            found = pb.GetModelMetadataResponse()
            await self._call(exchange, f"{_PREDICTION}GetModelMetadata", grpc_request, found)
            signatures = pb.SignatureDefMap.FromString(found.metadata["signature_def"].value)
            value = {
                "model_spec": plain(found.model_spec, wide_as_text=True),
                "metadata": {"signature_def": plain(signatures, wide_as_text=True)},
            }
            return await self._respond(exchange, value)

        return await self._boundary.answer(request, work)

    async def classify(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """The classes of every example, as pairs of label and score."""

        def to_json(found: Any) -> Any:
            rows = found.result.classifications
            return [[[item.label, number(item.score)] for item in row.classes] for row in rows]

        grpc_request, grpc_response = pb.ClassificationRequest(), pb.ClassificationResponse()
        return await self._examples(request, "Classify", (model, version, label), grpc_request, grpc_response, to_json)

    async def regress(self, request: Request, model: str, version: int | None, label: str | None) -> Response:
        """A value for every example."""

        def to_json(found: Any) -> Any:
            return [number(item.value) for item in found.result.regressions]

        grpc_request, grpc_response = pb.RegressionRequest(), pb.RegressionResponse()
        return await self._examples(request, "Regress", (model, version, label), grpc_request, grpc_response, to_json)

    async def _examples(
        self,
        request: Request,
        method: str,
        which: tuple[str, int | None, str | None],
        grpc_request: Any,
        grpc_response: Message,
        to_json: Callable[[Any], Any],
    ) -> Response:
        async def work(exchange: HttpExchange) -> Reply:
            body = await exchange.body()
            given, signature = await exchange.run(len(body), read_document, body)
            await exchange.run(len(body), read_examples, given, grpc_request.input)
            grpc_request.model_spec.CopyFrom(_spec(*which, signature))
            found = await self._call(exchange, _PREDICTION + method, grpc_request, grpc_response)
            return await self._respond(exchange, {"results": to_json(found)})

        return await self._boundary.answer(request, work)

    async def _call(
        self, exchange: HttpExchange, method: str, grpc_request: Message, grpc_response: Message
    ) -> Message:
        exchange.counted = True
        grpc_response.ParseFromString(await call(self._methods, method, grpc_request.SerializeToString(), exchange))
        return grpc_response

    async def _respond(self, exchange: HttpExchange, value: Any) -> Reply:
        return await self._boundary.written(Reply(200, dumps(value), JSON), exchange.headers)


def _spec(model: str, version: int | None, label: str | None, signature: str) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=model, signature_name=signature)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


def read_examples(given: Mapping[str, Any], into: pb.Input) -> None:
    """Fills in the examples of a request. Raises InvalidRequest."""
    rows = given.get("examples")
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("Expected 'examples' to be a list of one or more objects")
    examples = [_example(row, f"element {place} of 'examples'") for place, row in enumerate(rows)]
    if "context" in given:
        into.example_list_with_context.context.CopyFrom(_example(given["context"], "'context'"))
        into.example_list_with_context.examples.extend(examples)
    else:
        into.example_list.examples.extend(examples)


def _example(row: Any, where: str) -> example_pb2.Example:
    if not isinstance(row, dict):
        raise InvalidRequest(f"{where}: expected an object of features, got {row!r:.60}")
    example = example_pb2.Example()
    for name, value in row.items():
        if isinstance(value, Numbers):
            value = value.array.tolist()  # noqa: PLW2901
        items = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        kinds = set(map(type, items))
        what = f"{where}, feature {name[:100]!r}"
        if kinds <= {int}:
            if any(not -(2**63) <= item < 2**63 for item in items):
                raise InvalidRequest(f"{what}: a number is out of the range of INT64")
            feature.int64_list.value.extend(items)
        elif kinds <= {int, float}:
            feature.float_list.value.extend(map(_float, items))
        elif all(isinstance(item, str) or is_b64(item) for item in items):
            feature.bytes_list.value.extend(b64_or_utf8(item, what) for item in items)
        else:
            raise InvalidRequest(f"{what}: expected numbers, or strings, or a list of one kind, got {value!r:.60}")
    return example


def _float(item: float) -> float:
    # An integer out of the range of a float becomes infinity; protobuf would refuse it.
    try:
        number = float(item)
    except OverflowError:
        return float("inf") if item > 0 else float("-inf")
    return number
