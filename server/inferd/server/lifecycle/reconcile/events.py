"""Everything that can happen to the reconciler: one frozen value for each kind of event.

Any thread may put an event into the mailbox. The manager's thread handles one after another, so that no lock is needed
for the state of models and versions. An event names the version and the generation that it is about and holds no
reference to state: what it means is decided when it is handled.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import Listing
from inferd.server.repository.tree import Tree


class Event:
    """Something that happened. Each kind is a frozen value; operators' requests are one more kind, see
    `operations.admin_operations.OperationRequested`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ListingSeen(Event):
    """The source has looked at the repository. A later listing replaces one that was not handled yet."""

    listing: Listing


@dataclass(frozen=True, slots=True)
class VersionEvent(Event):
    """Something that happened to one generation of one version."""

    id: ServableId
    generation: int


@dataclass(frozen=True, slots=True)
class LoadSucceeded(VersionEvent):
    """A version is loaded, warmed up and proven. Whoever handles this owns the servable and must close it."""

    servable: Servable


@dataclass(frozen=True, slots=True)
class LoadFailed(VersionEvent):
    """A version could not be loaded; nothing of it is left open. `reason` is for operators; `held_back`: to try the
    same content again is of no use."""

    reason: str
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class LoadAborted(VersionEvent):
    """A load was cancelled, because the version or its content is not wanted any more; nothing of it is left open."""

    reason: str


@dataclass(frozen=True, slots=True)
class BarrierAnswered(VersionEvent):
    """The activation barrier has answered for a loaded version. `refusal` None: it may serve."""

    refusal: str | None


@dataclass(frozen=True, slots=True)
class BarrierWithdrawn(VersionEvent):
    """The question to the activation barrier was taken back, because the load is not wanted any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerLost(VersionEvent):
    """The worker process in which a served version lives has ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServableDrained(VersionEvent):
    """The last request on a retired servable has ended. May come more than once for one generation."""


@dataclass(frozen=True, slots=True)
class ServableClosed(VersionEvent):
    """A servable is closed and its memory returned."""


@dataclass(frozen=True, slots=True)
class ServedFilesHashed(VersionEvent):
    """The hash of the files from which a generation was loaded. `digest` None: they changed or could not be read."""

    tree: Tree
    digest: str | None


@dataclass(frozen=True, slots=True)
class DiskFilesHashed(VersionEvent):
    """The hash of files that look different from those that are served. `generation` is the one served when the hash
    was asked for; `digest` None: the files changed or could not be read."""

    tree: Tree
    digest: str | None


@dataclass(frozen=True, slots=True)
class OverridesReplaced(Event):
    """The supervisor of a worker group, which keeps the operators' overrides, says what those for a model are now."""

    model: str
    overrides: ModelOverrides


@dataclass(frozen=True, slots=True)
class PreloadFinished(Event):
    """The frameworks named by `server.preload` are imported."""


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """The server shuts down: nothing is loaded any more, and everything that is served is unloaded."""


@dataclass(frozen=True, slots=True)
class TimePassed(Event):
    """The time of a turn, monotonic: models with something due by then are looked at again."""

    now: float
