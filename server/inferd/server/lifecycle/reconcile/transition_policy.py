"""The transition policy: in which order versions come and go. Pure: snapshots in, one next action out.

Availability-preserving: the new one is loaded beside the old one, which goes when nothing that is wanted is still to
come and something wanted serves. A model that has an available version never loses its last one, unless nothing is
wanted any more or an operator said so; not even one that is gone from disk, while a successor is still being written.

Resource-preserving: the old one goes first, to its end, and then the new one is loaded: no memory for two, a gap in
service.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class VersionPhase(enum.Enum):
    """Where a version stands, as far as its next step is concerned."""

    NEW = "new"  # not loaded, may be loaded now
    IDLE = "idle"  # not loaded, and not to be loaded now: between two tries, or held back
    LOADING = "loading"
    AVAILABLE = "available"
    STALE = "available, and other content may be loaded now"
    RELOADING = "available, and other content is being loaded"


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One version of one model.

    `forced`: an operator wants it gone, whatever that leaves. `draining`: an earlier load of it still finishes its
    requests.
    """

    version: int
    phase: VersionPhase
    wanted: bool
    forced: bool = False
    draining: bool = False

    @property
    def serves(self) -> bool:
        return self.phase in (VersionPhase.AVAILABLE, VersionPhase.STALE, VersionPhase.RELOADING)


@dataclass(frozen=True, slots=True)
class LoadVersion:
    """Load this version, beside itself if it is served."""

    version: int


@dataclass(frozen=True, slots=True)
class UnloadVersion:
    """Take this version out of service."""

    version: int


Action = LoadVersion | UnloadVersion


def next_action(
    transition: Literal["availability", "resource"], snapshots: Sequence[VersionSnapshot], *, awaited: bool = False
) -> Action | None:
    """The next thing to do for a model, None when there is nothing to do now. New versions first, old ones go first.

    `awaited`: nothing is wanted, but something will be as soon as its files have settled.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.version, reverse=True)
    for snapshot in reversed(newest_first):
        if snapshot.forced and snapshot.serves:
            return UnloadVersion(snapshot.version)
    return _availability(newest_first, awaited) if transition == "availability" else _resource(newest_first)


def _availability(newest_first: Sequence[VersionSnapshot], awaited: bool) -> Action | None:
    for snapshot in newest_first:
        if snapshot.wanted and snapshot.phase in (VersionPhase.NEW, VersionPhase.STALE):
            return LoadVersion(snapshot.version)
    wanted = [snapshot for snapshot in newest_first if snapshot.wanted]
    to_come = any(snapshot.phase is VersionPhase.LOADING for snapshot in wanted)
    if (not wanted and not awaited) or (not to_come and any(snapshot.serves for snapshot in wanted)):
        for snapshot in reversed(newest_first):
            if not snapshot.wanted and snapshot.serves:
                return UnloadVersion(snapshot.version)
    return None


def _resource(newest_first: Sequence[VersionSnapshot]) -> Action | None:
    for snapshot in reversed(newest_first):
        if snapshot.serves and (not snapshot.wanted or snapshot.phase is VersionPhase.STALE):
            return UnloadVersion(snapshot.version)
    if any(snapshot.draining for snapshot in newest_first):
        return None
    for snapshot in newest_first:
        if snapshot.wanted and snapshot.phase is VersionPhase.NEW:
            return LoadVersion(snapshot.version)
    return None
