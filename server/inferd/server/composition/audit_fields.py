"""What the audit log shows of an admin request, by method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from inferd.oip.v1 import control_pb2 as oip_pb
from inferd.tfs.v1 import model_service_pb2 as tfs_pb
from inferd.v1 import model_service_pb2 as pb

_MOST: Final = 20  # names of a list that are shown
_LONGEST: Final = 100  # characters of each


def audit_fields(rpc: str, message: bytes) -> Mapping[str, object]:
    """The fields of the audit line for the request of this method; none for bytes that are no such request. Raises
    KeyError for a method that is not here."""
    kind, fields = _FIELDS[rpc]
    request = kind()
    try:
        request.ParseFromString(message)
    except DecodeError:
        return {}
    return fields(request)


def _native(request: Any) -> dict[str, object]:
    found: dict[str, object] = {"model": request.name}
    for key in ("version", "label", "to_version"):
        if key in request.DESCRIPTOR.fields_by_name:
            value = getattr(request, key)
            present = bool(value) if key == "label" else request.HasField(key)
            found["version" if key == "to_version" else key] = value if present else None
    return found


def _oip(request: Any) -> dict[str, object]:
    return {"model": request.model_name, "parameters": _listed(request.parameters) or None}


def _tfs(request: Any) -> dict[str, object]:
    return {"models": _listed(entry.name for entry in request.config.model_config_list.config)}


def _listed(names: Iterable[str]) -> str:
    given = [name[:_LONGEST] for name in names]
    more = f" and {len(given) - _MOST} more" if len(given) > _MOST else ""
    return ", ".join(given[:_MOST]) + more


_FIELDS: Final[Mapping[str, tuple[type[Message], Callable[[Any], dict[str, object]]]]] = {
    "/inferd.v1.ModelService/LoadModel": (pb.LoadModelRequest, _native),
    "/inferd.v1.ModelService/UnloadModel": (pb.UnloadModelRequest, _native),
    "/inferd.v1.ModelService/SetLabel": (pb.SetLabelRequest, _native),
    "/inferd.v1.ModelService/Rollback": (pb.RollbackRequest, _native),
    "/inference.GRPCInferenceService/RepositoryModelLoad": (oip_pb.RepositoryModelLoadRequest, _oip),
    "/inference.GRPCInferenceService/RepositoryModelUnload": (oip_pb.RepositoryModelUnloadRequest, _oip),
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest": (tfs_pb.ReloadConfigRequest, _tfs),
}
