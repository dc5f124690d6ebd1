"""inferd.v1.ModelService: the state of the models, and the admin operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.errors import Conflict, InvalidRequest
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.protocols.common.ensemble_parts import authorize_parts
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.method import UnaryMethod, WatchMethod
from inferd.server.protocols.native import messages
from inferd.server.protocols.native.watch import ModelWatch
from inferd.server.transport.calls import UnaryCall
from inferd.v1 import model_service_pb2 as pb

_PATH = "/inferd.v1.ModelService/"


class ModelMethods:
    """Answers from the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary) -> None:
        self._manager = manager
        self._boundary = boundary
        self._watch = ModelWatch(manager, boundary)

    def unary(self) -> Mapping[str, UnaryMethod]:
        """The unary methods by path."""
        methods: dict[str, tuple[type[Message], Callable[[UnaryCall, Any, Caller], None]]] = {
            "ListModels": (pb.ListModelsRequest, self._list),
            "GetModelStatus": (pb.GetModelStatusRequest, self._status),
            "GetModelMetadata": (pb.GetModelMetadataRequest, self._metadata),
            "LoadModel": (pb.LoadModelRequest, self._load),
            "UnloadModel": (pb.UnloadModelRequest, self._unload),
            "SetLabel": (pb.SetLabelRequest, self._set_label),
            "Rollback": (pb.RollbackRequest, self._rollback),
        }
        return {
            _PATH + name: UnaryMethod(request, handle, self._boundary) for name, (request, handle) in methods.items()
        }

    def watch(self) -> Mapping[str, WatchMethod]:
        """The streams by path."""
        return {f"{_PATH}WatchModels": WatchMethod(pb.WatchModelsRequest, self._watch, self._boundary)}

    def _list(self, call: UnaryCall, _request: pb.ListModelsRequest, caller: Caller) -> None:
        rules = self._boundary.rules
        visible = [model for model in self._manager.models() if rules.allows(caller, Scope.METADATA, model.name)]
        models = sorted(visible, key=lambda model: model.name)
        # The errors name directories, which may be those of models that the caller may not see.
        errors = self._manager.repository_errors() if rules.allows_all(caller, Scope.METADATA) else ()
        if not models and errors:
            # An empty list would be wrong: the repository could not be read, and may hold models.
            raise Conflict(f"no models: {'; '.join(errors)}")
        _reply(call, pb.ListModelsResponse(models=map(messages.model_status, models)))

    def _status(self, call: UnaryCall, request: pb.GetModelStatusRequest, _caller: Caller) -> None:
        status = self._manager.status(_model_name(request))
        _reply(call, pb.GetModelStatusResponse(model=messages.model_status(status)))

    def _metadata(self, call: UnaryCall, request: pb.GetModelMetadataRequest, _caller: Caller) -> None:
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

    def _load(self, call: UnaryCall, request: pb.LoadModelRequest, caller: Caller) -> None:
        version = request.version if request.HasField("version") else None
        authorize_parts(self._boundary.rules, self._manager, caller, [_model_name(request)])
        operation = self._manager.load(request.name, version, by=caller.operator)
        self._wait(call, request.name, operation, pb.LoadModelResponse)

    def _unload(self, call: UnaryCall, request: pb.UnloadModelRequest, caller: Caller) -> None:
        version = request.version if request.HasField("version") else None
        operation = self._manager.unload(_model_name(request), version, by=caller.operator)
        self._wait(call, request.name, operation, pb.UnloadModelResponse)

    def _set_label(self, call: UnaryCall, request: pb.SetLabelRequest, caller: Caller) -> None:
        name = _model_name(request)
        if not request.label:
            raise InvalidRequest("expected a label, got none")
        version = request.version if request.HasField("version") else None
        operation = self._manager.set_label(name, request.label, version, by=caller.operator)
        self._wait(call, name, operation, pb.SetLabelResponse)

    def _rollback(self, call: UnaryCall, request: pb.RollbackRequest, caller: Caller) -> None:
        to = request.to_version if request.HasField("to_version") else None
        operation = self._manager.rollback(_model_name(request), to, by=caller.operator)
        self._wait(call, request.name, operation, pb.RollbackResponse)

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
