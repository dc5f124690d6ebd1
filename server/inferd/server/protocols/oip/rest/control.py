"""The control plane of the Open Inference Protocol over REST: each request becomes the call of the gRPC method that
means the same, so that both say the same."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.access.grants import Scope
from inferd.server.errors import Code, InvalidRequest, ServingError, Unsupported
from inferd.server.http.error_boundary import JSON, RestErrorBoundary
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.json.messages import plain
from inferd.server.http.json.text import dumps, loads
from inferd.server.http.method_call import Failed, Methods, call

_PATH = "/inference.GRPCInferenceService/"
_EXTENSIONS = ("binary_tensor_data",)  # what only REST has


class OipControl:
    """Used on the event loop."""

    def __init__(self, methods: Methods, edge: RestErrorBoundary, server_ready: Callable[[], bool]) -> None:
        self._methods = methods
        self.edge = edge
        self._server_ready = server_ready

    async def live(self, request: Request) -> Response:
        """200: a server that answers is alive."""
        return self._probed(request) or Response(status_code=200)

    async def ready(self, request: Request) -> Response:
        """200, or 400 while the server is not ready, 503 once it shuts down."""
        return self._probed(request) or Response(
            status_code=503 if self.edge.closed else 200 if self._server_ready() else 400
        )

    async def model_ready(self, request: Request, model: str, version: str = "") -> Response:
        """200, or 400 while a request would not find the model."""
        # Not through the edge: a full or draining server is still asked how it is.
        exchange = self.edge.probe(request)
        asked = pb.ModelReadyRequest(name=model, version=version).SerializeToString()
        try:
            found = pb.ModelReadyResponse.FromString(await call(self._methods, f"{_PATH}ModelReady", asked, exchange))
        except Failed as error:
            refused = error.code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
            return self.edge.told(error) if refused else Response(status_code=400)
        return Response(status_code=200 if found.ready else 400)

    async def server_metadata(self, request: Request) -> Response:
        """Name, version, extensions."""

        def told(found: Any) -> Any:
            return {"name": found.name, "version": found.version, "extensions": [*found.extensions, *_EXTENSIONS]}

        return await self.ask(request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse(), told)

    async def model_metadata(self, request: Request, model: str, version: str = "") -> Response:
        """Inputs and outputs of the default signature."""
        asked = pb.ModelMetadataRequest(name=model, version=version)
        return await self.ask(request, "ModelMetadata", asked, pb.ModelMetadataResponse(), _metadata, model=model)

    async def model_config(self, request: Request, model: str, version: str = "") -> Response:
        """The configuration, in the form of a config.pbtxt as JSON."""
        asked = pb.ModelConfigRequest(name=model, version=version)

        def told(found: Any) -> Any:
            return plain(found.config)

        return await self.ask(request, "ModelConfig", asked, pb.ModelConfigResponse(), told, model=model)

    async def statistics(self, request: Request, model: str = "", version: str = "") -> Response:
        """What each version has served."""
        asked = pb.ModelStatisticsRequest(name=model, version=version)
        return await self.ask(request, "ModelStatistics", asked, pb.ModelStatisticsResponse(), plain, model=model)

    async def index(self, request: Request) -> Response:
        """Every version of every model, and its state."""

        def told(found: Any) -> Any:
            return [{key: value for key, value in plain(entry).items() if value} for entry in found.models]

        async def work(exchange: HttpExchange) -> Response:
            given = await read_object(exchange)
            asked = pb.RepositoryIndexRequest(ready=_typed(given, "ready", bool, False))
            return await self.do(exchange, "RepositoryIndex", asked, pb.RepositoryIndexResponse(), told)

        return await self.edge.answer(request, work)

    async def load(self, request: Request, model: str) -> Response:
        """Answers when the model serves what is on disk, or has failed."""

        async def work(exchange: HttpExchange) -> Response:
            asked = pb.RepositoryModelLoadRequest(model_name=model)
            given = await self._parameters(exchange, model)
            size = sum(len(value) for value in given.values() if isinstance(value, str))
            await exchange.run(size, _take_load, asked, given)
            exchange.take_its_time()
            return await self.do(exchange, "RepositoryModelLoad", asked, pb.RepositoryModelLoadResponse(), nothing)

        return await self.edge.answer(request, work, model=model)

    async def unload(self, request: Request, model: str) -> Response:
        """Answers when the model's last request is answered."""

        async def work(exchange: HttpExchange) -> Response:
            asked = pb.RepositoryModelUnloadRequest(model_name=model)
            for key, value in (await self._parameters(exchange, model)).items():
                _set(asked.parameters[key], key, value)
            method = "RepositoryModelUnload"
            exchange.take_its_time()
            return await self.do(exchange, method, asked, pb.RepositoryModelUnloadResponse(), nothing)

        return await self.edge.answer(request, work, model=model)

    async def _parameters(self, exchange: HttpExchange, model: str) -> Mapping[str, Any]:
        """What came with an operator's wish. Of whoever may not wish anything it is not read: the method refuses."""
        if not self.edge.entrance.admits(exchange, Scope.ADMIN, model):
            return {}
        given: Mapping[str, Any] = _typed(await read_object(exchange), "parameters", dict, {})
        return given

    async def not_offered(self, request: Request, model: str) -> Response:
        """The generate extension."""

        async def work(exchange: HttpExchange) -> Response:
            exchange.counted = True
            raise Unsupported("the generate extension is not offered: use infer")

        return await self.edge.answer(request, work, model=model, scope=Scope.PREDICT)

    def _probed(self, request: Request) -> Response | None:
        """The refusal of a caller who may not ask how the server is."""
        try:
            self.edge.entrance.health(self.edge.probe(request))
        except ServingError as error:
            return self.edge.refused(error)
        return None

    async def ask(
        self,
        request: Request,
        method: str,
        asked: Message,
        empty: Message,
        told: Callable[[Any], Any],
        *,
        model: str = "",
    ) -> Response:
        """Answers a request with what `told` makes of a gRPC method's answer, which is read into `empty`."""

        async def work(exchange: HttpExchange) -> Response:
            return await self.do(exchange, method, asked, empty, told)

        return await self.edge.answer(request, work, model=model)

    async def do(
        self, exchange: HttpExchange, method: str, asked: Message, empty: Message, told: Callable[[Any], Any]
    ) -> Response:
        """The same inside of an exchange."""
        exchange.counted = True
        empty.ParseFromString(await call(self._methods, _PATH + method, asked.SerializeToString(), exchange))
        found = told(empty)
        return await self.edge.coded(exchange, b"" if found is None else dumps(found), JSON, {})


def _metadata(found: Any) -> Any:
    return {key: value for key, value in plain(found).items() if key != "properties" or value}


def nothing(_found: Any) -> None:
    """An answer without a body."""


async def read_object(exchange: HttpExchange) -> Mapping[str, Any]:
    """The body as an object; none is an empty one. Raises InvalidRequest."""
    body = await exchange.body()
    if not body.strip():
        return {}
    found = await exchange.run(len(body), loads, body)
    if not isinstance(found, dict):
        raise InvalidRequest(f"expected a JSON object, got {type(found).__name__}")
    return found


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


def _take_load(asked: pb.RepositoryModelLoadRequest, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key.startswith("file:"):
            asked.parameters[key].bytes_param = _decoded(key, value)
        else:
            _set(asked.parameters[key], key, value)


def _decoded(key: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidRequest(f"parameter '{key[:100]}': expected the file in base64") from None
