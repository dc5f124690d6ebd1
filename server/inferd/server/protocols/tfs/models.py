"""tensorflow.serving.ModelService: GetModelStatus."""

from __future__ import annotations

from inferd.server.access.caller import Caller
from inferd.server.errors import Code, InvalidRequest, NotFound
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import State, VersionStatus
from inferd.server.protocols.tfs.error_messages import named
from inferd.server.transport.calls import UnaryCall
from inferd.tfs.v1 import error_codes_pb2
from inferd.tfs.v1 import model_service_pb2 as pb
from inferd.wire.tfs.fallback import spec_of

_States = pb.ModelVersionStatus.State
_STATES = {
    State.START: _States.START,
    State.LOADING: _States.LOADING,
    State.AVAILABLE: _States.AVAILABLE,
    State.FAILED: _States.END,
    State.UNLOADING: _States.UNLOADING,
    State.END: _States.END,
}
_NOT_SERVED = "on disk, not served"


class ModelStatusMethods:
    """Answers from the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike) -> None:
        self._manager = manager

    def status(self, call: UnaryCall, request: pb.GetModelStatusRequest, _caller: Caller) -> None:
        """GetModelStatus: one version, or all versions that were ever served, in descending order. A label in the
        request is ignored, as TensorFlow Serving does."""
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        name, version, _, _ = spec_of(request.model_spec)
        try:
            versions = self._manager.status(named(name)).versions
        except NotFound as error:
            raise NotFound(f"Could not find any versions of model {name}: {error.message}") from None
        known = [status for status in versions if status.generation or not _only_on_disk(status)]
        if version is not None:
            known = [status for status in known if status.id.version == version]
            if not known:
                raise NotFound(f"Could not find version {version} of model {name}")
        elif not known:
            raise NotFound(f"Could not find any versions of model {name}")
        ordered = sorted(known, key=lambda status: status.id.version, reverse=True)
        call.reply(pb.GetModelStatusResponse(model_version_status=map(version_status, ordered)).SerializeToString())


def _only_on_disk(status: VersionStatus) -> bool:
    return any(note.startswith(_NOT_SERVED) for note in status.notes)


def version_status(status: VersionStatus) -> pb.ModelVersionStatus:
    """The status of one version. A version that failed to load is END with its error, as in TensorFlow Serving, even
    though inferd tries it again."""
    state, error = _STATES[status.state], status.error
    if status.lost:
        state = _States.LOADING  # the model's worker process has ended, and a new one is being started
    elif status.state is State.AVAILABLE:
        error = ""  # the error is about newer files on disk, not about the version that serves
    code = Code.FAILED_PRECONDITION.value if error and state == _States.END else 0
    return pb.ModelVersionStatus(
        version=status.id.version,
        state=state,
        status=pb.StatusProto(error_code=error_codes_pb2.Code.Name(code), error_message=error if code else ""),
    )
