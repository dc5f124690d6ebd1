"""What the supervisor and its workers say to each other. Values only."""

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
    """The first message: what this worker is and serves.

    `number` is from 1 to `size`; a worker takes the number of the one that it replaces. `late`: it opens its ports only
    when it is told to, because others serve already. `configured_models` None: the models that the configuration names.
    """

    config: ServerConfig
    number: int
    size: int
    late: bool
    wishes: Mapping[str, ModelOverrides] = field(default_factory=dict)
    persistent: bool = False
    configured_models: Mapping[str, ConfiguredModel] | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """The ports may be opened."""


@dataclass(frozen=True, slots=True)
class GroupReady:
    """Every worker of the first generation is ready: the server is."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Let the connections go to the others, one by one, and end."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole server stops: drain and end."""


@dataclass(frozen=True, slots=True)
class Wished:
    """The operators' wishes for a model, as they stand."""

    model: str
    wishes: ModelOverrides


@dataclass(frozen=True, slots=True)
class Decided:
    """What was loaded may serve, or (`refusal`) may not: another worker could not load it."""

    key: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class PeerStates:
    """How another worker's versions of a model stand: version → (state's name, error). None: it has no such model."""

    worker: int
    model: str
    states: Mapping[int, tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class PeerGone:
    """Another worker no longer serves."""

    worker: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Asked: the worker's own metrics, as `totals.Families`."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asked: anything at all, which shows that the worker still does."""


# From a worker


@dataclass(frozen=True, slots=True)
class Opened:
    """The ports are open, at these addresses."""

    grpc: tuple[str, ...]
    http: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """What the first look at the repository wanted is served, or has failed."""

    summary: str


@dataclass(frozen=True, slots=True)
class Impossible:
    """It cannot serve: a port, the state directory. Another try would end the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """Somebody has sent this worker alone a SIGTERM."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version is loaded and waits for the others. `key` stands for its name, number, files and settings."""

    key: str
    subject: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was loaded is not wanted any more."""

    key: str


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A version could not be loaded."""

    key: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class States:
    """As PeerStates, of the worker itself."""

    model: str
    states: Mapping[int, tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class Keep:
    """Asked: wishes that an operation (0: none) has led to. Answered with those that count: the first that the
    operation led to, on whichever worker."""

    operation: int
    model: str
    wishes: ModelOverrides


@dataclass(frozen=True, slots=True)
class Scrape:
    """Asked: what the others' metrics are, and those of workers that are gone; a `totals.Others`. `own` is kept for the
    time when this worker is gone."""

    own: Families


# Both ways


@dataclass(frozen=True, slots=True)
class Operation:
    """Asked: what an operator wants. A worker asks the supervisor, which numbers it and asks every worker. Answered
    with the ModelStatus, or None for `replace`."""

    kind: Literal["load", "unload", "label", "rollback", "replace"]
    model: str
    by: str
    version: int | None = None
    label: str = ""
    models: Mapping[str, ConfiguredModel] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Farewell:
    """A worker's last metrics, so that nothing that it counted is lost."""

    families: Families
