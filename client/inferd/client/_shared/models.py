"""What the server says of its models, as frozen values instead of protobuf messages."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from inferd.v1 import model_service_pb2 as pb
from inferd.v1 import tensor_pb2
from inferd.wire.dtypes import DType


class VersionState(enum.Enum):
    """The life of one version: START → LOADING → AVAILABLE → UNLOADING → END."""

    UNKNOWN = 0
    START = 1
    LOADING = 2
    AVAILABLE = 3
    UNLOADING = 4
    END = 5

    @classmethod
    def _missing_(cls, value: object) -> VersionState:
        # A newer server may know states that this client does not.
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `shape`: -1 is any size, None any rank. `dtype` None: a type unknown to this client."""

    name: str
    dtype: DType | None
    shape: tuple[int, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """A way to call a model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str = ""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """How one available version is called. The first signature is the default one; `max_batch_size` 0: unbatched."""

    name: str
    version: int
    backend: str
    signatures: tuple[Signature, ...]
    max_batch_size: int = 0
    stateful: bool = False

    def signature(self, name: str | None = None) -> Signature | None:
        """The signature with this name, the default one for None; None where there is no such signature."""
        if not name:
            return self.signatures[0] if self.signatures else None
        return next((signature for signature in self.signatures if signature.name == name), None)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version now.

    error       why it failed, or how the files on disk differ from what is served
    generation  counts the loads in the server's process: an in-place reload keeps the version, not this
    batching    "up to 32 rows", or why the version is served unbatched
    changed_at  when the state last changed
    notes       what an operator should know: fallbacks taken, settings not honoured
    """

    version: int
    state: VersionState
    error: str = ""
    generation: int = 0
    backend: str = ""
    devices: tuple[str, ...] = ()
    batching: str = ""
    load_seconds: float = 0.0
    changed_at: datetime | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's wish; `kind`: "unloaded", "pinned", "loaded", "label". Not persistent: gone with the process."""

    kind: str
    value: str
    by: str
    since: datetime | None
    persistent: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model now, versions descending. `error`: what is wrong with the model as a whole."""

    name: str
    versions: tuple[VersionStatus, ...] = ()
    labels: Mapping[str, int] | None = None
    overrides: tuple[Override, ...] = ()
    error: str = ""
    version_policy: str = ""

    @property
    def available(self) -> tuple[int, ...]:
        """The versions that answer, newest first."""
        return tuple(v.version for v in self.versions if v.state is VersionState.AVAILABLE)


@dataclass(frozen=True, slots=True)
class AdminReply:
    """What an admin call did. `persistent`: False: the wish is kept in memory only and ends with the server."""

    model: ModelStatus
    persistent: bool


@dataclass(frozen=True, slots=True)
class VersionChange:
    """One message of a watch. `initial`: the state stood so when the watch began."""

    model: str
    version: VersionStatus
    initial: bool


def to_model_status(message: pb.ModelStatus) -> ModelStatus:
    return ModelStatus(
        name=message.name,
        versions=tuple(to_version_status(version) for version in message.versions),
        labels=dict(sorted(message.labels.items())),
        overrides=tuple(
            Override(o.kind, o.value, o.by, _time(o.since_unix_ms), o.persistent) for o in message.overrides
        ),
        error=message.error,
        version_policy=message.version_policy,
    )


def to_version_status(message: pb.VersionStatus) -> VersionStatus:
    return VersionStatus(
        version=message.version,
        state=VersionState(int(message.state)),
        error=message.error,
        generation=message.generation,
        backend=message.backend,
        devices=tuple(message.devices),
        batching=message.batching,
        load_seconds=message.load_seconds,
        changed_at=_time(message.changed_unix_ms),
        labels=tuple(message.labels),
        notes=tuple(message.notes),
    )


def to_metadata(message: pb.GetModelMetadataResponse) -> ModelMetadata:
    return ModelMetadata(
        name=message.name,
        version=message.version,
        backend=message.backend,
        signatures=tuple(
            Signature(s.name, tuple(map(_spec, s.inputs)), tuple(map(_spec, s.outputs)), s.method_name)
            for s in message.signatures
        ),
        max_batch_size=message.max_batch_size,
        stateful=message.stateful,
    )


def to_change(message: pb.WatchModelsResponse) -> VersionChange:
    return VersionChange(message.name, to_version_status(message.version), message.initial)


def _spec(message: tensor_pb2.TensorSpec) -> TensorSpec:
    try:
        dtype = DType(int(message.dtype))
    except ValueError:
        dtype = None
    return TensorSpec(message.name, dtype, None if message.unknown_rank else tuple(message.shape), message.optional)


def _time(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC) if unix_ms else None
