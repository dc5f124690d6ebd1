"""The control plane of the Open Inference Protocol over REST: health, metadata, statistics, repository.

Each REST request becomes a call of the corresponding gRPC method, so that both give the same answers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.errors import InvalidRequest, Unsupported
from inferd.server.http.error_boundary import RestErrorBoundary
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.json.messages import plain
from inferd.server.http.json.text import dumps, loads
from inferd.server.http.method_call import MethodFailed, Methods, call
from inferd.server.http.reply import JSON, Reply

_PATH = "/inference.GRPCInferenceService/"
_EXTENSIONS = ("binary_tensor_data",)  # the extensions that only REST has


class OipControl:
    """Answers control requests through the gRPC handlers in `methods`. Used on the event loop."""

    def __init__(self, methods: Methods, boundary: RestErrorBoundary, server_ready: Callable[[], bool]) -> None:
        self._methods = methods
        self.boundary = boundary
        self._server_ready = server_ready

    async def live(self, request: Request) -> Response:
        """200 whenever the server answers."""

        async def work(_exchange: HttpExchange) -> Reply:
            return Reply(200)

        return await self.boundary.answer(request, work, probe=True)

    async def ready(self, request: Request) -> Response:
        """200 if the server is ready, 400 if it is not, 503 once it shuts down."""

        async def work(_exchange: HttpExchange) -> Reply:
            return Reply(503 if self.boundary.closed else 200 if self._server_ready() else 400)

        return await self.boundary.answer(request, work, probe=True)

    async def model_ready(self, request: Request, model: str, version: str = "") -> Response:
        """200 if the model can answer requests, else 400."""
        grpc_request = pb.ModelReadyRequest(name=model, version=version).SerializeToString()

        async def work(exchange: HttpExchange) -> Reply:
            try:
                data = await call(self._methods, f"{_PATH}ModelReady", grpc_request, exchange)
            except MethodFailed:
                return Reply(400)
            return Reply(200 if pb.ModelReadyResponse.FromString(data).ready else 400)

        return await self.boundary.answer(request, work, probe=True)

    async def server_metadata(self, request: Request) -> Response:
        """The server's name, version and extensions."""

        def to_json(found: Any) -> Any:
            return {"name": found.name, "version": found.version, "extensions": [*found.extensions, *_EXTENSIONS]}

        return await self.forward(
            request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse(), to_json
        )

    async def model_metadata(self, request: Request, model: str, version: str = "") -> Response:
        """The inputs and outputs of the default signature."""
        grpc_request = pb.ModelMetadataRequest(name=model, version=version)
        return await self.forward(request, "ModelMetadata", grpc_request, pb.ModelMetadataResponse(), _metadata)

    async def model_config(self, request: Request, model: str, version: str = "") -> Response:
        """The configuration: a config.pbtxt as JSON."""
        grpc_request = pb.ModelConfigRequest(name=model, version=version)

        def to_json(found: Any) -> Any:
            return plain(found.config)

        return await self.forward(request, "ModelConfig", grpc_request, pb.ModelConfigResponse(), to_json)

    async def statistics(self, request: Request, model: str = "", version: str = "") -> Response:
        """Request counts, times and batch sizes of each version since the server started."""
        grpc_request = pb.ModelStatisticsRequest(name=model, version=version)
        return await self.forward(request, "ModelStatistics", grpc_request, pb.ModelStatisticsResponse(), plain)

    async def index(self, request: Request) -> Response:
        """Every version of every model, with its state."""

        def to_json(found: Any) -> Any:
            return [{key: value for key, value in plain(entry).items() if value} for entry in found.models]

        async def work(exchange: HttpExchange) -> Reply:
            given = await read_object(exchange)
            grpc_request = pb.RepositoryIndexRequest(ready=_typed(given, "ready", bool, False))
            return await self.call_method(
                exchange, "RepositoryIndex", grpc_request, pb.RepositoryIndexResponse(), to_json
            )

        return await self.boundary.answer(request, work)

    async def load(self, request: Request, model: str) -> Response:
        """Loads a model. Answers when it serves what is on disk, or when loading has failed."""

        async def work(exchange: HttpExchange) -> Reply:
            grpc_request = pb.RepositoryModelLoadRequest(model_name=model)
            given = await self._parameters(exchange)
            size = sum(len(value) for value in given.values() if isinstance(value, str))
            await exchange.run(size, _set_load_parameters, grpc_request, given)
            exchange.remove_deadline()
            return await self.call_method(
                exchange, "RepositoryModelLoad", grpc_request, pb.RepositoryModelLoadResponse(), no_body
            )

        return await self.boundary.answer(request, work)

    async def unload(self, request: Request, model: str) -> Response:
        """Unloads a model. Answers when its last request has been answered."""

        async def work(exchange: HttpExchange) -> Reply:
            grpc_request = pb.RepositoryModelUnloadRequest(model_name=model)
            for key, value in (await self._parameters(exchange)).items():
                _set(grpc_request.parameters[key], key, value)
            method = "RepositoryModelUnload"
            exchange.remove_deadline()
            return await self.call_method(exchange, method, grpc_request, pb.RepositoryModelUnloadResponse(), no_body)

        return await self.boundary.answer(request, work)

    async def _parameters(self, exchange: HttpExchange) -> Mapping[str, Any]:
        """The `parameters` object in the body of a load or unload request."""
        given: Mapping[str, Any] = _typed(await read_object(exchange), "parameters", dict, {})
        return given

    async def not_offered(self, request: Request, model: str) -> Response:
        """The generate extension, which is not offered."""

        async def work(exchange: HttpExchange) -> Reply:
            exchange.counted = True
            raise Unsupported("the generate extension is not offered: use infer")

        return await self.boundary.answer(request, work)

    async def forward(
        self,
        request: Request,
        method: str,
        grpc_request: Message,
        grpc_response: Message,
        to_json: Callable[[Any], Any],
    ) -> Response:
        """Calls a gRPC method and responds with what `to_json` makes of its response, parsed into `grpc_response`."""

        async def work(exchange: HttpExchange) -> Reply:
            return await self.call_method(exchange, method, grpc_request, grpc_response, to_json)

        return await self.boundary.answer(request, work)

    async def call_method(
        self,
        exchange: HttpExchange,
        method: str,
        grpc_request: Message,
        grpc_response: Message,
        to_json: Callable[[Any], Any],
    ) -> Reply:
        """As `forward`, for a handler that runs within the boundary already."""
        exchange.counted = True
        grpc_response.ParseFromString(
            await call(self._methods, _PATH + method, grpc_request.SerializeToString(), exchange)
        )
        value = to_json(grpc_response)
        return await self.boundary.written(Reply(200, b"" if value is None else dumps(value), JSON), exchange.headers)


def _metadata(found: Any) -> Any:
    return {key: value for key, value in plain(found).items() if key != "properties" or value}


def no_body(_found: Any) -> None:
    """The `to_json` of responses without a body."""


async def read_object(exchange: HttpExchange) -> Mapping[str, Any]:
    """The body as a JSON object; an empty body is an empty object. Raises InvalidRequest."""
    body = await exchange.body()
    if not body.strip():
        return {}
    value = await exchange.run(len(body), loads, body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"expected a JSON object, got {type(value).__name__}")
    return value


def _typed(given: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = given.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        words = {bool: "true or false", dict: "an object"}
        raise InvalidRequest(f"'{key}': expected {words[kind]}, got {value!r:.60}")
    return value


def _set(parameter: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        parameter.int64_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        raise InvalidRequest(
            f"parameter '{key[:100]}': expected a string, a whole number, true or false, got {value!r:.60}"
        )


def _set_load_parameters(grpc_request: pb.RepositoryModelLoadRequest, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key.startswith("file:"):
            grpc_request.parameters[key].bytes_param = _decoded(key, value)
        else:
            _set(grpc_request.parameters[key], key, value)


def _decoded(key: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidRequest(f"parameter '{key[:100]}': expected the file in base64") from None
