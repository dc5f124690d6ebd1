"""RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload: Triton's model control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from threading import Lock
from typing import Any

from google.protobuf.message import Message

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.errors import Conflict, ExecutionFailed, InvalidRequest, NotFound, Unavailable, Unsupported
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.operations.load_overrides import Replacement, check_replacement
from inferd.server.lifecycle.reconcile.model_state import UNREADABLE
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.protocols.common.ensemble_parts import authorize_parts
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import UnaryCall

_Index = pb.RepositoryIndexResponse.ModelIndex
_FILE = "file:"
_WHY = ("on disk, not served", "removed from disk")
_STATES = {
    State.START: "UNAVAILABLE",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.FAILED: "UNAVAILABLE",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


class RepositoryMethods:
    """Answers from the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary) -> None:
        self._manager = manager
        self._boundary = boundary

    def index(self, call: UnaryCall, request: pb.RepositoryIndexRequest, caller: Caller) -> None:
        """Every version of every model that the caller may see, with the reason if it is not ready."""
        _one_repository(request.repository_name)
        rules = self._boundary.rules
        models = [model for model in self._manager.models() if rules.allows(caller, Scope.METADATA, model.name)]
        entries = [entry for model in models for entry in _entries(model)]
        if request.ready:
            entries = [entry for entry in entries if entry.state == "READY"]
        call.reply(pb.RepositoryIndexResponse(models=entries).SerializeToString())

    def load(self, call: UnaryCall, request: pb.RepositoryModelLoadRequest, caller: Caller) -> None:
        """Loads a model from disk, or with the configuration and files in the call. Replies when the model serves them,
        or when loading has failed."""
        _one_repository(request.repository_name)
        name = request.model_name
        replacement = _replacement(request.parameters)
        if replacement is not None:
            if replacement.files:
                self._boundary.rules.authorize_upload()
            served = self._manager.serving(_named(name))
            own = served.settings if served is not None else None
            steps = check_replacement(name, replacement.config, own)
            for model in steps:
                self._boundary.rules.authorize(caller, Scope.ADMIN, model)
            authorize_parts(self._boundary.rules, self._manager, caller, steps)
        else:
            authorize_parts(self._boundary.rules, self._manager, caller, [_named(name)])

        def reword(error: BaseException) -> BaseException:
            if isinstance(error, NotFound):
                return ExecutionFailed(
                    f"failed to load '{name}', failed to poll from model repository: {error.message}"
                )
            if isinstance(error, Conflict):
                return InvalidRequest(f"load failed for model '{name}': {error.message}")
            return error

        operation = self._manager.load(_named(name), by=caller.operator, replacement=replacement)
        self._wait(call, name, operation, pb.RepositoryModelLoadResponse(), reword)

    def unload(self, call: UnaryCall, request: pb.RepositoryModelUnloadRequest, caller: Caller) -> None:
        """Unloads a model. Replies when its last request has been answered, and at once for an unknown model.

        With the parameter `unload_dependents`, the models of an ensemble are unloaded, too; nothing is unloaded unless
        the caller may operate all of them.
        """
        _one_repository(request.repository_name)
        names = [_named(request.model_name)]
        if _with_dependents(request.parameters):
            for name in names:  # the loop extends the list: an ensemble may contain ensembles
                names.extend(part for part in self._parts(name) if part not in names)
            for name in names:
                self._boundary.rules.authorize(caller, Scope.ADMIN, name)
        operation = _all_of([self._manager.unload(name, by=caller.operator) for name in names])
        self._wait(call, request.model_name, operation, pb.RepositoryModelUnloadResponse(), _ignore_not_found)

    def _parts(self, name: str) -> tuple[str, ...]:
        try:
            return self._manager.status(name).parts
        except NotFound:
            return ()

    def _wait(
        self,
        call: UnaryCall,
        name: str,
        operation: Future[ModelStatus],
        response: Message,
        reword: Callable[[BaseException], BaseException | None],
    ) -> None:
        """Replies when the operation is done. `reword` gives the error to report, None to report success."""

        def done(operation: Future[ModelStatus]) -> None:
            error: BaseException | None
            try:
                error = operation.exception()
            except CancelledError:
                error = Unavailable("the server is shutting down")
            if error is not None:
                error = reword(error)
            if error is not None:
                self._boundary.fail(call, error, model=name)
            else:
                call.reply(response.SerializeToString())

        operation.add_done_callback(done)


def _entries(model: ModelStatus) -> Iterator[_Index]:
    if not model.versions:
        yield _Index(name=model.name, state="UNAVAILABLE" if model.error else "", reason=model.error)
    for status in sorted(model.versions, key=lambda version: version.id.version):
        ready = status.serves
        reason = "" if ready else status.error
        if not reason and status.state is State.END:
            reason = next((note for note in status.notes if note.startswith(_WHY)), "unloaded")
            if reason.endswith(UNREADABLE) and model.error:
                reason = model.error
        state = "UNAVAILABLE" if status.lost else _STATES[status.state]
        yield _Index(name=model.name, version=str(status.id.version), state=state, reason=reason)


def _one_repository(name: str) -> None:
    if name:
        raise Unsupported("'repository_name' specification is not supported")


def _named(name: str) -> str:
    if not name:
        raise InvalidRequest("expected the name of a model, got none")
    return name


def _replacement(parameters: Mapping[str, Any]) -> Replacement | None:
    config: str | None = None
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if key == "config":
            if kind != "string_param":
                raise InvalidRequest("invalid value for parameter 'config': expected string_param, a JSON text")
            config = value.string_param
        elif key.startswith(_FILE):
            if kind != "bytes_param":
                raise InvalidRequest(f"invalid value for parameter '{key[:100]}': expected bytes_param")
            files[key.removeprefix(_FILE)] = value.bytes_param
        else:
            raise InvalidRequest(f"unrecognized load parameter '{key[:100]}'; expected config or file:VERSION/NAME")
    if files and config is None:
        raise InvalidRequest("parameter 'config' must come with the files: the model's directory is not used")
    return None if config is None else Replacement(config, files)


def _with_dependents(parameters: Mapping[str, Any]) -> bool:
    for key, value in parameters.items():
        if key != "unload_dependents":
            raise InvalidRequest(f"unrecognized unload parameter '{key[:100]}'; expected unload_dependents")
        if value.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidRequest("invalid value for parameter 'unload_dependents': expected bool_param")
    return "unload_dependents" in parameters and bool(parameters["unload_dependents"].bool_param)


def _all_of(operations: Sequence[Future[ModelStatus]]) -> Future[ModelStatus]:
    """A future that is done when all operations are. It has the first error other than NotFound, or else the outcome
    of the first operation."""
    if len(operations) == 1:
        return operations[0]
    combined: Future[ModelStatus] = Future()
    lock = Lock()
    unfinished = len(operations)

    def done(_: Future[ModelStatus]) -> None:
        nonlocal unfinished
        with lock:
            unfinished -= 1
            if unfinished:
                return
        errors = [Unavailable("the server is shutting down") if o.cancelled() else o.exception() for o in operations]
        error = next((e for e in errors if e is not None and not isinstance(e, NotFound)), errors[0])
        if error is not None:
            combined.set_exception(error)
        else:
            combined.set_result(operations[0].result())

    for operation in operations:
        operation.add_done_callback(done)
    return combined


def _ignore_not_found(error: BaseException) -> BaseException | None:
    return None if isinstance(error, NotFound) else error
