"""inferd.v1.ModelService: what is served, and the operators' wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message

from inferd.server.errors import Conflict, InvalidRequest
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.protocols.native import messages
from inferd.server.protocols.native.watch import ModelWatch
from inferd.server.transport.calls import StreamHandler, UnaryCall, UnaryHandler
from inferd.v1 import model_service_pb2 as pb

_PATH = "/inferd.v1.ModelService/"


class ModelMethods:
    """Answers from the manager; admin calls pass the gate. Thread-safe."""

    def __init__(self, manager: ManagerLike, edge: ErrorBoundary) -> None:
        self._manager = manager
        self._edge = edge
        self._watch = ModelWatch(manager, edge)

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The unary methods."""
        return {
            f"{_PATH}ListModels": self._list,
            f"{_PATH}GetModelStatus": self._status,
            f"{_PATH}GetModelMetadata": self._metadata,
            f"{_PATH}LoadModel": self._load,
            f"{_PATH}UnloadModel": self._unload,
            f"{_PATH}SetLabel": self._set_label,
            f"{_PATH}Rollback": self._rollback,
        }

    def stream(self) -> Mapping[str, StreamHandler]:
        """The streams."""
        return {f"{_PATH}WatchModels": self._watch}

    def _list(self, call: UnaryCall) -> None:
        parse(pb.ListModelsRequest, call.request)
        found = sorted(self._manager.models(), key=lambda model: model.name)
        if not found and (errors := self._manager.repository_errors()):
            raise Conflict(f"no models: {'; '.join(errors)}")  # "there are none" would be a guess
        _reply(call, pb.ListModelsResponse(models=map(messages.model_status, found)))

    def _status(self, call: UnaryCall) -> None:
        request = parse(pb.GetModelStatusRequest, call.request)
        found = self._manager.status(_named(request))
        _reply(call, pb.GetModelStatusResponse(model=messages.model_status(found)))

    def _metadata(self, call: UnaryCall) -> None:
        request = parse(pb.GetModelMetadataRequest, call.request)
        choice = request.WhichOneof("choice")
        handle = self._manager.acquire(
            _named(request),
            request.version if choice == "version" else None,
            request.label if choice == "label" else None,
        )
        try:
            found = messages.metadata(handle.servable)
        finally:
            handle.release()
        _reply(call, found)  # who reads the answer finds nothing of the call left

    def _load(self, call: UnaryCall) -> None:
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.LoadModelRequest, call.request)
        version = request.version if request.HasField("version") else None
        self._wait(call, request.name, self._manager.load(_named(request), version, by=by), pb.LoadModelResponse)

    def _unload(self, call: UnaryCall) -> None:
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.UnloadModelRequest, call.request)
        version = request.version if request.HasField("version") else None
        self._wait(call, request.name, self._manager.unload(_named(request), version, by=by), pb.UnloadModelResponse)

    def _set_label(self, call: UnaryCall) -> None:
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.SetLabelRequest, call.request)
        name = _named(request)
        if not request.label:
            raise InvalidRequest("expected a label, got none")
        version = request.version if request.HasField("version") else None
        self._wait(call, name, self._manager.set_label(name, request.label, version, by=by), pb.SetLabelResponse)

    def _rollback(self, call: UnaryCall) -> None:
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.RollbackRequest, call.request)
        to = request.to_version if request.HasField("to_version") else None
        self._wait(call, request.name, self._manager.rollback(_named(request), to, by=by), pb.RollbackResponse)

    def _wait(self, call: UnaryCall, name: str, wish: Future[ModelStatus], kind: Callable[..., Message]) -> None:
        """Answers when the manager has fulfilled the wish. A caller that goes away does not take it back."""

        def done(wish: Future[ModelStatus]) -> None:
            try:
                model = messages.model_status(wish.result())
                _reply(call, kind(model=model, persistent=self._manager.persistent))
            except Exception as error:
                self._edge.fail(call, error, model=name)

        wish.add_done_callback(done)


def _named(request: Any) -> str:
    name: str = request.name
    if not name:
        raise InvalidRequest("expected the name of a model, got none")
    return name


def _reply(call: UnaryCall, response: Message) -> None:
    call.reply(response.SerializeToString())
