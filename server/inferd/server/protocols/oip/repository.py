"""RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload: the operators' side, as Triton's clients know it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from threading import Lock
from typing import Any

from google.protobuf.message import Message

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.errors import Conflict, ExecutionFailed, InvalidRequest, NotFound, Unavailable, Unsupported
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.reconcile.model_state import UNREADABLE
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.transport.calls import UnaryCall

_Index = pb.RepositoryIndexResponse.ModelIndex
_FILE = "file:"
_WHY = ("on disk, not served", "removed from disk")
_STATES = {
    State.START: "UNAVAILABLE",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


class RepositoryMethods:
    """Answers from the manager; load and unload pass the gate. Thread-safe."""

    def __init__(self, manager: ManagerLike, edge: ErrorBoundary) -> None:
        self._manager = manager
        self._edge = edge

    def index(self, call: UnaryCall) -> None:
        """Every version of every model, with the reason where it is not ready."""
        request = parse(pb.RepositoryIndexRequest, call.request)
        _one_repository(request.repository_name)
        found = [entry for model in self._manager.models() for entry in _entries(model)]
        if request.ready:
            found = [entry for entry in found if entry.state == "READY"]
        call.reply(pb.RepositoryIndexResponse(models=found).SerializeToString())

    def load(self, call: UnaryCall) -> None:
        """Answers when the model serves what is on disk, or what came with the call; or has failed."""
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.RepositoryModelLoadRequest, call.request)
        _one_repository(request.repository_name)
        name = request.model_name
        replacement = _replacement(request.parameters)
        if replacement is not None and replacement.files:
            self._edge.gate.authorize_upload()

        def reword(error: BaseException) -> BaseException:
            if isinstance(error, NotFound):
                return ExecutionFailed(
                    f"failed to load '{name}', failed to poll from model repository: {error.message}"
                )
            if isinstance(error, Conflict):
                return InvalidRequest(f"load failed for model '{name}': {error.message}")
            return error

        wish = self._manager.load(_named(name), by=by, replacement=replacement)
        self._wait(call, name, wish, pb.RepositoryModelLoadResponse(), reword)

    def unload(self, call: UnaryCall) -> None:
        """Answers when the last request of the model is answered. A model that there is not is unloaded already.

        `unload_dependents` takes the models out of service, too, that an ensemble is made of.
        """
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.RepositoryModelUnloadRequest, call.request)
        _one_repository(request.repository_name)
        names = [_named(request.model_name)]
        if _with_dependents(request.parameters):
            for name in names:  # it grows: ensembles may be in ensembles
                names.extend(part for part in self._parts(name) if part not in names)
        wish = _all_of([self._manager.unload(name, by=by) for name in names])
        self._wait(call, request.model_name, wish, pb.RepositoryModelUnloadResponse(), _forgive)

    def _parts(self, name: str) -> tuple[str, ...]:
        try:
            return self._manager.status(name).parts
        except NotFound:
            return ()

    def _wait(
        self,
        call: UnaryCall,
        name: str,
        wish: Future[ModelStatus],
        answer: Message,
        reword: Callable[[BaseException], BaseException | None],
    ) -> None:
        def done(wish: Future[ModelStatus]) -> None:
            error: BaseException | None
            try:
                error = wish.exception()
            except CancelledError:
                error = Unavailable("the server is shutting down")
            if error is not None:
                error = reword(error)
            if error is not None:
                self._edge.fail(call, error, model=name)
            else:
                call.reply(answer.SerializeToString())

        wish.add_done_callback(done)


def _entries(model: ModelStatus) -> Iterator[_Index]:
    if not model.versions:
        unread = bool(model.error)
        yield _Index(name=model.name, state="UNAVAILABLE" if unread else "", reason=model.error)
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


def _all_of(wishes: Sequence[Future[ModelStatus]]) -> Future[ModelStatus]:
    """Done when all are, with the first one's outcome, or the first error that is no NotFound."""
    if len(wishes) == 1:
        return wishes[0]
    whole: Future[ModelStatus] = Future()
    lock = Lock()
    left = len(wishes)

    def done(_: Future[ModelStatus]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        errors = [Unavailable("the server is shutting down") if w.cancelled() else w.exception() for w in wishes]
        error = next((e for e in errors if e is not None and not isinstance(e, NotFound)), errors[0])
        if error is not None:
            whole.set_exception(error)
        else:
            whole.set_result(wishes[0].result())

    for wish in wishes:
        wish.add_done_callback(done)
    return whole


def _forgive(error: BaseException) -> BaseException | None:
    return None if isinstance(error, NotFound) else error
