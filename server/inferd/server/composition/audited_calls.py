"""Admin methods, each with its line in the audit log, however the call ends and over whatever protocol it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from inferd.oip.v1 import control_pb2 as oip_pb
from inferd.server.access.audit import Audit
from inferd.server.composition.call_proxies import UnaryProxy
from inferd.server.errors import Code
from inferd.server.transport.calls import Metadata, UnaryCall, UnaryHandler
from inferd.tfs.v1 import model_service_pb2 as tfs_pb
from inferd.v1 import model_service_pb2 as pb

_MOST: Final = 20  # names of a list that are shown


def _native(request: Any) -> dict[str, object]:
    asked: dict[str, object] = {"model": request.name}
    for key in ("version", "label", "to_version"):
        if key in request.DESCRIPTOR.fields_by_name:
            value = getattr(request, key)
            present = bool(value) if key == "label" else request.HasField(key)
            asked["version" if key == "to_version" else key] = value if present else None
    return asked


def _oip(request: Any) -> dict[str, object]:
    return {"model": request.model_name, "parameters": _listed(request.parameters) or None}


def _tfs(request: Any) -> dict[str, object]:
    return {"models": _listed(entry.name for entry in request.config.model_config_list.config)}


def _listed(names: Any) -> str:
    given = [name[:100] for name in names]
    more = f" and {len(given) - _MOST} more" if len(given) > _MOST else ""
    return ", ".join(given[:_MOST]) + more


_ASKED: Final[Mapping[str, tuple[type[Message], Callable[[Any], dict[str, object]]]]] = {
    "/inferd.v1.ModelService/LoadModel": (pb.LoadModelRequest, _native),
    "/inferd.v1.ModelService/UnloadModel": (pb.UnloadModelRequest, _native),
    "/inferd.v1.ModelService/SetLabel": (pb.SetLabelRequest, _native),
    "/inferd.v1.ModelService/Rollback": (pb.RollbackRequest, _native),
    "/inference.GRPCInferenceService/RepositoryModelLoad": (oip_pb.RepositoryModelLoadRequest, _oip),
    "/inference.GRPCInferenceService/RepositoryModelUnload": (oip_pb.RepositoryModelUnloadRequest, _oip),
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest": (tfs_pb.ReloadConfigRequest, _tfs),
}


def with_audit(path: str, handler: UnaryHandler, audit: Audit, new_id: Callable[[], str]) -> UnaryHandler:
    """The handler of an admin method, with its line. Raises KeyError for a method that nothing is known of."""
    kind, asked = _ASKED[path]

    def handle(call: UnaryCall) -> None:
        handler(_CallWithAudit(call, kind, asked, audit, new_id))

    return handle


class _CallWithAudit(UnaryProxy):
    """Tells how it ended, once. A caller that goes away takes nothing back: what became of it is told all the same."""

    def __init__(
        self,
        call: UnaryCall,
        kind: type[Message],
        asked: Callable[[Any], dict[str, object]],
        audit: Audit,
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(call)
        self._kind = kind
        self._asked = asked
        self._audit = audit
        self._open = [None]
        self._id = call.metadata("x-request-id") or new_id()

    def reply(self, message: bytes) -> None:
        self._tell(None, "")
        super().reply(message)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        self._tell(code, text)
        super().fail(code, text, trailing)

    def _tell(self, outcome: Code | None, reason: str) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        request = self._kind()
        try:
            request.ParseFromString(self._unary.request)
            asked = self._asked(request)
        except DecodeError:
            asked = {}
        self._audit.write(self._unary, self._unary.method, outcome, reason, self._id, **asked)
