"""inferd.v1.ModelService: the state of the models, and the admin operations."""

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
    """Answers from the manager. Admin operations need the caller's admission by `admit_admin`. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary) -> None:
        self._manager = manager
        self._boundary = boundary
        self._watch = ModelWatch(manager, boundary)

    def unary(self) -> Mapping[str, UnaryHandler]:
        """The unary handlers by method path."""
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
        """The stream handlers by method path."""
        return {f"{_PATH}WatchModels": self._watch}

    def _list(self, call: UnaryCall) -> None:
        parse(pb.ListModelsRequest, call.request)
        models = sorted(self._manager.models(), key=lambda model: model.name)
        if not models and (errors := self._manager.repository_errors()):
            # An empty list would be wrong: the repository could not be read, and may hold models.
            raise Conflict(f"no models: {'; '.join(errors)}")
        _reply(call, pb.ListModelsResponse(models=map(messages.model_status, models)))

    def _status(self, call: UnaryCall) -> None:
        request = parse(pb.GetModelStatusRequest, call.request)
        status = self._manager.status(_model_name(request))
        _reply(call, pb.GetModelStatusResponse(model=messages.model_status(status)))

    def _metadata(self, call: UnaryCall) -> None:
        request = parse(pb.GetModelMetadataRequest, call.request)
        choice = request.WhichOneof("choice")
        handle = self._manager.acquire(
            _model_name(request),
            request.version if choice == "version" else None,
            request.label if choice == "label" else None,
        )
        try:
            metadata = messages.metadata(handle.servable)
        finally:
            handle.release()
        _reply(call, metadata)  # after the release: a client that has the response can rely on it

    def _load(self, call: UnaryCall) -> None:
        by = self._boundary.gate.admit_admin(call)
        request = parse(pb.LoadModelRequest, call.request)
        version = request.version if request.HasField("version") else None
        self._wait(call, request.name, self._manager.load(_model_name(request), version, by=by), pb.LoadModelResponse)

    def _unload(self, call: UnaryCall) -> None:
        by = self._boundary.gate.admit_admin(call)
        request = parse(pb.UnloadModelRequest, call.request)
        version = request.version if request.HasField("version") else None
        self._wait(
            call, request.name, self._manager.unload(_model_name(request), version, by=by), pb.UnloadModelResponse
        )

    def _set_label(self, call: UnaryCall) -> None:
        by = self._boundary.gate.admit_admin(call)
        request = parse(pb.SetLabelRequest, call.request)
        name = _model_name(request)
        if not request.label:
            raise InvalidRequest("expected a label, got none")
        version = request.version if request.HasField("version") else None
        self._wait(call, name, self._manager.set_label(name, request.label, version, by=by), pb.SetLabelResponse)

    def _rollback(self, call: UnaryCall) -> None:
        by = self._boundary.gate.admit_admin(call)
        request = parse(pb.RollbackRequest, call.request)
        to = request.to_version if request.HasField("to_version") else None
        self._wait(call, request.name, self._manager.rollback(_model_name(request), to, by=by), pb.RollbackResponse)

    def _wait(self, call: UnaryCall, name: str, operation: Future[ModelStatus], kind: Callable[..., Message]) -> None:
        """Replies when the operation is done. A caller that cancels does not undo the operation."""

        def done(operation: Future[ModelStatus]) -> None:
            try:
                model = messages.model_status(operation.result())
                _reply(call, kind(model=model, persistent=self._manager.persistent))
            except Exception as error:
                self._boundary.fail(call, error, model=name)

        operation.add_done_callback(done)


def _model_name(request: Any) -> str:
    name: str = request.name
    if not name:
        raise InvalidRequest("expected the name of a model, got none")
    return name


def _reply(call: UnaryCall, response: Message) -> None:
    call.reply(response.SerializeToString())
