"""The messages between the supervisor and its workers. Values only.

A docstring that begins with "Asked" belongs to a message that is answered; all others are told (see `link`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.repository.configured_models import ConfiguredModel
from inferd.server.workers.metrics_totals import Families

# From the supervisor


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: the worker's number and what it serves.

    number              from 1 to `size`; a replacement gets the number of the worker that it replaces
    late                the worker opens its ports only when it gets `Open`, because others serve already
    overrides           the operators' overrides, by model
    persistent          the supervisor keeps the overrides on disk
    configured_models   None: the models that the configuration names
    """

    config: ServerConfig
    number: int
    size: int
    late: bool
    overrides: Mapping[str, ModelOverrides] = field(default_factory=dict)
    persistent: bool = False
    configured_models: Mapping[str, ConfiguredModel] | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Open the ports."""


@dataclass(frozen=True, slots=True)
class GroupReady:
    """All workers that were started first are ready, and so the server is ready."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Take no new connections, wait until the clients have moved to other workers, and end."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole server stops: drain and end."""


@dataclass(frozen=True, slots=True)
class OverridesChanged:
    """The current overrides of a model."""

    model: str
    overrides: ModelOverrides


@dataclass(frozen=True, slots=True)
class ActivationDecided:
    """The loaded version `key` may serve. If `refusal` is not empty, it must not: another worker could not load it."""

    key: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class PeerStates:
    """The versions of a model in another worker: version → (state's name, error). None: it no longer has the model."""

    worker: int
    model: str
    states: Mapping[int, tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class PeerGone:
    """Another worker no longer serves."""

    worker: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Asked: the worker's own metrics. Answered with `metrics_totals.Families`."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asked: a sign of life. Answered with None."""


# From a worker


@dataclass(frozen=True, slots=True)
class Opened:
    """The ports are open, at these addresses."""

    grpc: tuple[str, ...]
    http: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """Every version found by the first scan is available or has failed."""

    summary: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The worker cannot serve (a port, the state directory). Another try would fail in the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """This worker, and not the whole server, has received SIGTERM."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version (`subject`) is loaded and waits until the other workers have loaded it. `key` is a digest of its name,
    number, files and settings."""

    key: str
    subject: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The loaded version `key` is no longer wanted."""

    key: str


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A version could not be loaded."""

    key: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class States:
    """As PeerStates, but of the worker that sends it."""

    model: str
    states: Mapping[int, tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class KeepOverrides:
    """Asked: store a model's overrides, which this worker has computed for an operation (its number; 0: for none).
    Answered with the overrides that count: those of the worker that was first with this operation."""

    operation: int
    model: str
    overrides: ModelOverrides


@dataclass(frozen=True, slots=True)
class CollectOthers:
    """Asked: the metrics of the other workers and of workers that are gone. Answered with `metrics_totals.Others`.
    The supervisor stores `own` (the asking worker's metrics) in case this worker dies."""

    own: Families


@dataclass(frozen=True, slots=True)
class FinalMetrics:
    """The last metrics of a worker that ends, so that no count is lost."""

    families: Families


# Both ways


@dataclass(frozen=True, slots=True)
class Operation:
    """Asked: an operator's request. A worker asks the supervisor, which numbers the operation and asks every worker.
    Answered with the ModelStatus, or None for `replace`."""

    kind: Literal["load", "unload", "label", "rollback", "replace"]
    model: str
    by: str
    version: int | None = None
    label: str = ""
    models: Mapping[str, ConfiguredModel] = field(default_factory=dict)
    number: int = 0
