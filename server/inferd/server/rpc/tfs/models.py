"""tensorflow.serving.ModelService: GetModelStatus, and of HandleReloadConfigRequest what a repository can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from threading import Lock

from inferd.server.core.needs import ManagerLike
from inferd.server.core.tfs.words import named
from inferd.server.errors import Code, InvalidRequest, NotFound, Unavailable, Unsupported
from inferd.server.lifecycle.state import ModelStatus, State, VersionStatus
from inferd.server.rpc.edge import Edge, parse
from inferd.server.rpc.transport import UnaryCall
from inferd.tfs.v1 import error_codes_pb2
from inferd.tfs.v1 import model_service_pb2 as pb
from inferd.wire.tfs.fallback import spec_of

_NOT_SERVED = "on disk, not served"


class Models:
    """Answers from the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike, edge: Edge) -> None:
        self._manager = manager
        self._edge = edge

    def status(self, call: UnaryCall) -> None:
        """GetModelStatus: one version, or all that were ever served, descending. A label is not looked at, as there."""
        request = parse(pb.GetModelStatusRequest, call.request)
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        name, version, _, _ = spec_of(request.model_spec)
        try:
            found = self._manager.status(named(name)).versions
        except NotFound as error:
            raise NotFound(f"Could not find any versions of model {name}: {error.message}") from None
        known = [status for status in found if not any(note.startswith(_NOT_SERVED) for note in status.notes)]
        if version is not None:
            known = [status for status in known if status.id.version == version]
            if not known:
                raise NotFound(f"Could not find version {version} of model {name}")
        elif not known:
            raise NotFound(f"Could not find any versions of model {name}")
        ordered = sorted(known, key=lambda status: status.id.version, reverse=True)
        call.reply(pb.GetModelStatusResponse(model_version_status=map(version_status, ordered)).SerializeToString())

    def reload(self, call: UnaryCall) -> None:
        """HandleReloadConfigRequest: moves labels. What is served comes from the repository, so a configuration that
        asks for other models, paths or versions than those in force is refused before anything is done."""
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.ReloadConfigRequest, call.request)
        kind = request.config.WhichOneof("config")
        if kind == "custom_model_config":
            raise Unsupported("custom_model_config is not supported: models come from the repository")
        moves: list[tuple[str, str, int | None]] = []
        for config in request.config.model_config_list.config:
            moves += self._moves(config)
        wishes = [self._manager.set_label(name, label, version, by=by) for name, label, version in moves]
        _when_all(wishes, lambda error: self._reloaded(call, error))

    def _moves(self, config: pb.ModelConfig) -> list[tuple[str, str, int | None]]:
        name = named(config.name)
        try:
            model = self._manager.status(name)
        except NotFound as error:
            raise Unsupported(
                f"model {name} cannot be added by configuration: put it into the repository ({error.message})"
            ) from None
        if config.base_path and config.base_path.rstrip("/").rpartition("/")[2] != name:
            raise Unsupported(
                f"model {name}: base_path {config.base_path[:200]!r} is not supported: models lie in the repository "
                "under their own name"
            )
        if config.model_platform not in ("", "tensorflow"):
            raise InvalidRequest(
                f"model {name}: expected model_platform tensorflow, got {config.model_platform!r:.100}"
            )
        policy = _policy(config.model_version_policy)
        if policy not in ("", model.version_policy):
            raise Unsupported(
                f"model {name}: version policy {policy} is not supported here: {model.version_policy} is in force; it "
                "is set in model.yaml"
            )
        wanted = config.version_labels
        removed = [(name, label, None) for label in model.labels if label not in wanted]
        changed = [(name, label, number) for label, number in wanted.items() if model.labels.get(label) != number]
        return [*changed, *removed]

    def _reloaded(self, call: UnaryCall, error: BaseException | None) -> None:
        if error is not None:
            self._edge.fail(call, error)
            return
        call.reply(pb.ReloadConfigResponse(status=pb.StatusProto()).SerializeToString())


def version_status(status: VersionStatus) -> pb.ModelVersionStatus:
    """One version. One that failed is END with its error, although it is tried again here."""
    state, error = status.state, status.error
    if state is State.START and error:
        state = State.END
    if state is State.AVAILABLE:
        error = ""  # what differs on disk is no failure of what serves
    code = Code.FAILED_PRECONDITION.value if error and state is State.END else 0
    return pb.ModelVersionStatus(
        version=status.id.version,
        state=pb.ModelVersionStatus.State.Name(state.value),
        status=pb.StatusProto(error_code=error_codes_pb2.Code.Name(code), error_message=error if code else ""),
    )


def _policy(policy: pb.ServableVersionPolicy) -> str:
    """In the words of the status."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "latest":
        return f"latest({policy.latest.num_versions or 1})"
    if kind == "specific":
        return f"specific({', '.join(map(str, policy.specific.versions))})"
    return kind or ""


def _when_all(wishes: Sequence[Future[ModelStatus]], done: Callable[[BaseException | None], None]) -> None:
    """Calls `done` once all have ended, with the first error among them."""
    if not wishes:
        done(None)
        return
    lock = Lock()
    left = len(wishes)
    errors: list[BaseException] = []

    def ended(wish: Future[ModelStatus]) -> None:
        nonlocal left
        try:
            error = wish.exception()
        except CancelledError:
            error = Unavailable("the server is shutting down")
        with lock:
            left -= 1
            if error is not None:
                errors.append(error)
            last = left == 0
        if last:
            done(errors[0] if errors else None)

    for wish in wishes:
        wish.add_done_callback(ended)
