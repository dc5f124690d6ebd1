"""Descriptions of the server's models, as immutable values instead of protobuf messages. All are thread-safe."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from inferd.v1 import model_service_pb2 as pb
from inferd.v1 import tensor_pb2
from inferd.wire.dtypes import DType


class VersionState(enum.Enum):
    """The states of a version, in this order: START → LOADING → AVAILABLE → UNLOADING → END.

    FAILED: the version is wanted and cannot be served; `VersionStatus.error` has the reason, and `notes` say when the
    server tries again. UNKNOWN: the server reports a state that this client does not know.
    """

    UNKNOWN = 0
    START = 1
    LOADING = 2
    AVAILABLE = 3
    UNLOADING = 4
    END = 5
    FAILED = 6

    @classmethod
    def _missing_(cls, value: object) -> VersionState:
        # A newer server may know states that this client does not.
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    dtype     element type; None for a type that this client does not know
    shape     size of each dimension, -1 for any size; None for any rank
    optional  inputs only: a request may leave this input out
    """

    name: str
    dtype: DType | None
    shape: tuple[int, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model. `method_name` is TensorFlow Serving's method name, "" for other models."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str = ""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """How one available version is called.

    signatures      the default signature first
    max_batch_size  largest number of rows in a batch; 0: requests are not batched
    stateful        answers depend on earlier requests
    """

    name: str
    version: int
    backend: str
    signatures: tuple[Signature, ...]
    max_batch_size: int = 0
    stateful: bool = False

    def signature(self, name: str | None = None) -> Signature | None:
        """The signature with this name, or the default signature for None. None if there is no such signature."""
        if not name:
            return self.signatures[0] if self.signatures else None
        return next((signature for signature in self.signatures if signature.name == name), None)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version at the time of the call.

    error         why the version failed, or how the files on disk differ from the version that is served
    generation    counts the loads in the server's process: it changes when a version is loaded again from changed files
    batching      "up to 32 rows", or why the version is served unbatched
    load_seconds  how long loading took
    changed_at    when the state last changed (UTC)
    notes         facts for the operator: fallbacks taken, settings not honoured
    origin        where the version comes from, as `inferd publish` has written it: commit, source, run, metric.NAME,
                  parity, published, forced. Whoever may write to the repository may write anything into it
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
    origin: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's change to a model, which takes precedence over the configuration.

    kind        "unloaded", "pinned", "loaded", "label", "config" or "upload"
    value       for example the version, or "stable=2" for a label
    by          the operator
    since       when it was made (UTC)
    persistent  False: it ends when the server's process ends
    """

    kind: str
    value: str
    by: str
    since: datetime | None
    persistent: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The state of one model at the time of the call.

    versions        the newest first
    labels          the version of each label
    overrides       changes that operators have made
    error           what is wrong with the model as a whole, "" for nothing
    version_policy  which versions are served
    """

    name: str
    versions: tuple[VersionStatus, ...] = ()
    labels: Mapping[str, int] | None = None
    overrides: tuple[Override, ...] = ()
    error: str = ""
    version_policy: str = ""

    @property
    def available(self) -> tuple[int, ...]:
        """The versions that can be called, newest first."""
        return tuple(v.version for v in self.versions if v.state is VersionState.AVAILABLE)


@dataclass(frozen=True, slots=True)
class AdminReply:
    """The result of an admin call.

    model       the state of the model after the call
    persistent  False: the change is kept in memory only and ends with the server's process
    """

    model: ModelStatus
    persistent: bool


@dataclass(frozen=True, slots=True)
class VersionChange:
    """One message of `watch`. `initial`: this was the state when the watch began, not a change."""

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
        origin=dict(message.origin),
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
