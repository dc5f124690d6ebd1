"""What is published of a version and a model: states, statuses and changes. Values only; the reconciler makes them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class State(enum.Enum):
    """The life of one version. Each protocol translates it to its own enum.

    START      wanted, and not tried yet: it waits for its files, for a free thread, or for another model
    LOADING    being loaded
    AVAILABLE  served
    FAILED     wanted, and cannot be served: the status has the reason, and when it is tried again
    UNLOADING  takes no new requests and finishes those in flight
    END        not served, and not wanted
    """

    START = "start"
    LOADING = "loading"
    AVAILABLE = "available"
    FAILED = "failed"
    UNLOADING = "unloading"
    END = "end"


@dataclass(frozen=True, slots=True, order=True)
class ServableId:
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version now.

    generation     counts the loads of the process: it tells two loads of one version apart
    load_seconds   time that the load took, warm-up included
    changed_at     when the state or the error last changed, wall-clock seconds
    lost           the worker process in which it lives has ended, and another one is started
    restarts       how often that has happened
    origin         where it comes from, as its provenance tells it: pairs of key and value, see repository.provenance
    """

    id: ServableId
    state: State
    error: str = ""
    generation: int = 0
    backend: str = ""
    devices: tuple[str, ...] = ()
    batching: str = ""
    load_seconds: float = 0.0
    changed_at: float = 0.0
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lost: bool = False
    restarts: int = 0
    origin: tuple[tuple[str, str], ...] = ()

    @property
    def serves(self) -> bool:
        """Whether requests are answered: available, and not in a worker process that is gone."""
        return self.state is State.AVAILABLE and not self.lost


@dataclass(frozen=True, slots=True)
class PublishedOverride:
    """An override as the status shows it. `kind`: "unloaded", "pinned", "loaded", "label"; "config" or "upload" for a
    load override. `at` is wall-clock seconds."""

    kind: str
    value: str
    by: str
    at: float
    persistent: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model now. `versions`: the highest first; `labels`: label to version; `parts`: the models that an ensemble is
    made of."""

    name: str
    versions: tuple[VersionStatus, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    overrides: tuple[PublishedOverride, ...] = ()
    error: str = ""
    version_policy: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateChange:
    """A version has changed its state. AVAILABLE is announced after the serving map was swapped, UNLOADING before."""

    status: VersionStatus
