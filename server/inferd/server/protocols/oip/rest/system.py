"""Shared memory, trace and log settings of the Open Inference Protocol over REST, answered by the gRPC methods."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.errors import InvalidRequest
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.json.messages import plain
from inferd.server.http.reply import Reply
from inferd.server.protocols.oip.rest.control import OipControl, no_body, read_object


class System:
    """Answers shared memory and settings requests through the gRPC handlers. Used on the event loop."""

    def __init__(self, control: OipControl) -> None:
        self._control = control

    async def shared_status(self, request: Request, kind: str, region: str = "") -> Response:
        """One registered region, or all."""
        name, grpc_request, grpc_response = _method(kind, "Status", name=region)
        return await self._control.forward(request, name, grpc_request, grpc_response, _regions)

    async def shared_register(self, request: Request, kind: str, region: str) -> Response:
        """Registers a region that the client has made."""

        def read(given: Mapping[str, Any]) -> Message:
            if kind == "cuda":
                handle = given.get("raw_handle")
                coded = handle.get("b64") if isinstance(handle, dict) else None
                values: dict[str, Any] = {"raw_handle": _decoded(coded), "device_id": _whole(given, "device_id", 0)}
            else:
                values = {"key": _text(given, "key"), "offset": _whole(given, "offset", 0)}
            size = _whole(given, "byte_size", None)
            return _method(kind, "Register", name=region, byte_size=size, **values)[1]

        name, _, grpc_response = _method(kind, "Register")
        return await self._update(request, name, grpc_response, read, no_body)

    async def shared_unregister(self, request: Request, kind: str, region: str = "") -> Response:
        """Unregisters one region, or all."""
        name, grpc_request, grpc_response = _method(kind, "Unregister", name=region)
        return await self._control.forward(request, name, grpc_request, grpc_response, no_body)

    async def trace(self, request: Request, model: str = "") -> Response:
        """Trace settings: GET reads them, POST changes them, as far as the gRPC method allows."""

        def read(given: Mapping[str, Any]) -> Message:
            grpc_request = pb.TraceSettingRequest(model_name=model)
            for key, value in given.items():
                setting = grpc_request.settings[key]
                items = value if isinstance(value, list) else [] if value is None else [value]
                if not all(isinstance(item, str) for item in items):
                    raise InvalidRequest(
                        f"setting '{key[:100]}': expected a string, strings or null, got {value!r:.60}"
                    )
                setting.value.extend(items)
            return grpc_request

        def to_json(found: Any) -> Any:
            listed = {key: list(setting.value) for key, setting in found.settings.items()}
            return {key: value if key == "trace_level" else ",".join(value) for key, value in listed.items()}

        return await self._update(request, "TraceSetting", pb.TraceSettingResponse(), read, to_json)

    async def log(self, request: Request) -> Response:
        """Log settings: GET reads them, POST changes them, as far as the gRPC method allows."""

        def read(given: Mapping[str, Any]) -> Message:
            grpc_request = pb.LogSettingsRequest()
            for key, value in given.items():
                setting = grpc_request.settings[key]
                if isinstance(value, bool):
                    setting.bool_param = value
                elif isinstance(value, int) and 0 <= value < 2**32:
                    setting.uint32_param = value
                elif isinstance(value, str):
                    setting.string_param = value
                else:
                    raise InvalidRequest(
                        f"setting '{key[:100]}': expected true, false, a whole number or a string, got {value!r:.60}"
                    )
            return grpc_request

        def to_json(found: Any) -> Any:
            return {
                key: getattr(setting, setting.WhichOneof("parameter_choice")) for key, setting in found.settings.items()
            }

        return await self._update(request, "LogSettings", pb.LogSettingsResponse(), read, to_json)

    async def _update(
        self,
        request: Request,
        method: str,
        grpc_response: Message,
        read: Callable[[Mapping[str, Any]], Message],
        to_json: Callable[[Any], Any],
    ) -> Response:
        async def work(exchange: HttpExchange) -> Reply:
            return await self._control.call_method(
                exchange, method, read(await read_object(exchange)), grpc_response, to_json
            )

        return await self._control.boundary.answer(request, work)


def _method(kind: str, action: str, **values: Any) -> tuple[str, Message, Message]:
    """The name of a shared memory method, its request with `values`, and an empty response."""
    name = f"{'Cuda' if kind == 'cuda' else 'System'}SharedMemory{action}"
    return name, getattr(pb, f"{name}Request")(**values), getattr(pb, f"{name}Response")()


def _regions(found: Any) -> Any:
    return [plain(found.regions[name]) for name in sorted(found.regions)]


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{key}': expected a string, got {value!r:.60}")
    return value


def _whole(given: Mapping[str, Any], key: str, default: int | None) -> int:
    value = given.get(key, default)
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidRequest(f"'{key}': expected a whole number of 0 or more, got {value!r:.60}")
    return value


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidRequest("'raw_handle': expected {\"b64\": ...}") from None
