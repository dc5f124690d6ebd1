"""Translates the lifecycle's values to messages of inferd.v1."""

from __future__ import annotations

from inferd.backends import api
from inferd.server.lifecycle.interfaces import ServableLike
from inferd.server.lifecycle.state import ModelStatus, State, VersionStatus
from inferd.v1 import model_service_pb2 as pb
from inferd.v1 import tensor_pb2

_STATES = {
    State.START: pb.VERSION_STATE_START,
    State.LOADING: pb.VERSION_STATE_LOADING,
    State.AVAILABLE: pb.VERSION_STATE_AVAILABLE,
    State.FAILED: pb.VERSION_STATE_FAILED,
    State.UNLOADING: pb.VERSION_STATE_UNLOADING,
    State.END: pb.VERSION_STATE_END,
}


def version_status(status: VersionStatus) -> pb.VersionStatus:
    """The status of one version."""
    return pb.VersionStatus(
        version=status.id.version,
        state=_STATES[status.state],
        error=status.error,
        generation=status.generation,
        backend=status.backend,
        devices=status.devices,
        batching=status.batching,
        load_seconds=status.load_seconds,
        changed_unix_ms=round(status.changed_at * 1000),
        labels=status.labels,
        notes=status.notes,
        origin=dict(status.origin),
    )


def model_status(status: ModelStatus) -> pb.ModelStatus:
    """The status of one model, its versions in descending order."""
    return pb.ModelStatus(
        name=status.name,
        versions=map(version_status, sorted(status.versions, key=lambda v: v.id.version, reverse=True)),
        labels=status.labels,
        overrides=[
            pb.Override(
                kind=override.kind,
                value=override.value,
                by=override.by,
                since_unix_ms=round(override.at * 1000),
                persistent=override.persistent,
            )
            for override in status.overrides
        ],
        error=status.error,
        version_policy=status.version_policy,
    )


def metadata(servable: ServableLike) -> pb.GetModelMetadataResponse:
    """The metadata of an available version, the default signature first."""
    default = servable.default_signature
    ordered = sorted(servable.signatures.values(), key=lambda signature: signature.name != default)
    return pb.GetModelMetadataResponse(
        name=servable.id.name,
        version=servable.id.version,
        backend=servable.backend,
        signatures=map(signature, ordered),
        max_batch_size=servable.max_batch_size,
        stateful=servable.stateful,
    )


def signature(value: api.Signature) -> tensor_pb2.Signature:
    """One signature."""
    return tensor_pb2.Signature(
        name=value.name,
        inputs=map(tensor_spec, value.inputs),
        outputs=map(tensor_spec, value.outputs),
        method_name=value.method_name,
    )


def tensor_spec(value: api.TensorSpec) -> tensor_pb2.TensorSpec:
    """One input or output."""
    return tensor_pb2.TensorSpec(
        name=value.name,
        dtype=tensor_pb2.DataType.Name(value.dtype),
        shape=value.shape or (),
        unknown_rank=value.shape is None,
        optional=value.optional,
    )
