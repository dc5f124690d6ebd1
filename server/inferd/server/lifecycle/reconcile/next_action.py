"""What is to be done for a model now: pure functions from its state and what is desired of it to actions, which are
data.

`bookkeeping` says what the desired state means for versions that are on their way, `next_action` which version is
loaded or unloaded next, `file_checks` which files have to be hashed. The reconciler carries the actions out.

Availability-preserving: the new version is loaded beside the old one, and the old one goes when something wanted serves
and nothing wanted is still being loaded. A model that has an available version never loses its last one, unless nothing
is wanted any more or an operator said so; not even one that is gone from disk, while a successor is still settling.

Resource-preserving: the old version goes first, until it is closed, and then the new one is loaded: no memory for two,
a gap in service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from inferd.server.lifecycle.ensemble.definition import Obstacle
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.desired import Desired
from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionPhase, VersionState
from inferd.server.lifecycle.state import State

STOPPING = "the server is shutting down"


@dataclass(frozen=True, slots=True)
class LoadVersion:
    """LoadVersion this version, beside itself if it is served."""

    version: int


@dataclass(frozen=True, slots=True)
class UnloadVersion:
    """Take this version out of service."""

    version: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce that this version, which does not serve, has this state and error."""

    version: int
    state: State
    error: str = ""


@dataclass(frozen=True, slots=True)
class KeepLoad:
    """The load of this version under way is wanted, whatever was said before."""

    version: int


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """The load of this version under way is not wanted, for this reason."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShowWaiting:
    """The status of this version says what it waits for; "" for nothing."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class HashFiles:
    """Find out by a hash whether the files of this version, which look different, are different."""

    version: int


@dataclass(frozen=True, slots=True)
class ForgetDifference:
    """The files of this version are again what is served: its error about them and its failure are out of date."""

    version: int


Transition = LoadVersion | UnloadVersion
Action = LoadVersion | UnloadVersion | Announce | KeepLoad | CancelLoad | ShowWaiting | HashFiles | ForgetDifference
Obstacles = Mapping[int, Obstacle | None]
"""What keeps the versions of an ensemble from being served, by version."""


def bookkeeping(
    model: ModelState, want: Desired, overrides: ModelOverrides, obstacles: Obstacles, *, stopping: bool
) -> list[Action]:
    """What follows from `want` for versions that are announced, waiting or being loaded, in order."""
    actions: list[Action] = []
    for number, version in model.versions.items():
        if number in want.wanted:
            actions += _wanted(model, version, obstacles.get(number))
        elif version.loading is not None:
            why = STOPPING if stopping else model.why_not_wanted(number, overrides, asked=want.asked)
            actions.append(CancelLoad(number, why))
            if version.state is State.LOADING and stopping:
                actions.append(Announce(number, State.END))
        elif version.disk is not None and version.disk.error and number in want.expected:
            if version.ended and (version.state, version.error) != (State.FAILED, version.disk.error):
                actions.append(Announce(number, State.FAILED, version.disk.error))
        elif version.disk is not None and version.disk.held and number in want.expected:
            if version.ended and version.state in (None, State.END):
                actions.append(Announce(number, State.START))
        elif version.state in (State.START, State.FAILED) and not (version.disk is not None and version.disk.held):
            actions.append(Announce(number, State.END, version.error))
    return actions


def _wanted(model: ModelState, version: VersionState, obstacle: Obstacle | None) -> list[Action]:
    actions: list[Action] = []
    number = version.id.version
    state = version.state
    if state in (None, State.END) or (state is State.UNLOADING and version.servable is None):
        state = State.START
        actions.append(Announce(number, State.START))
    loading = version.loading
    if loading is not None:
        actions.append(KeepLoad(number))
        content = version.on_disk(model.settings)
        if content is not None and content != loading.content:
            actions.append(CancelLoad(number, f"{content.difference(loading.content)} have changed"))
    waiting = obstacle.reason if obstacle is not None and obstacle.passing else ""
    if version.waiting != waiting:
        actions.append(ShowWaiting(number, waiting))
    if obstacle is not None and loading is not None:
        actions.append(CancelLoad(number, obstacle.reason))
    elif obstacle is not None and state in (State.START, State.FAILED):
        stands = (State.START, "") if obstacle.passing else (State.FAILED, obstacle.reason)
        actions.append(Announce(number, *stands))
    return actions


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One version of one model, as far as transitions are concerned.

    `forced`: an operator wants it gone, even if nothing is left to serve. `draining`: an earlier generation of it still
    finishes its requests.
    """

    version: int
    phase: VersionPhase
    wanted: bool
    forced: bool = False
    draining: bool = False

    @property
    def serves(self) -> bool:
        """Whether requests are answered by it."""
        return self.phase in (VersionPhase.AVAILABLE, VersionPhase.STALE, VersionPhase.RELOADING)


def snapshots(model: ModelState, want: Desired, obstacles: Obstacles, now: float) -> list[VersionSnapshot]:
    """The versions of a model for `next_action`, at the monotonic time `now`."""
    settings = model.settings if model.readable else None
    return [
        VersionSnapshot(
            number,
            VersionPhase.IDLE if obstacles.get(number) and not version.loaded else version.phase(settings, now),
            number in want.wanted,
            forced=number in want.forced or obstacles.get(number) is not None,
            draining=bool(version.ending),
        )
        for number, version in model.versions.items()
    ]


def next_action(
    transition: Literal["availability", "resource"], versions: Sequence[VersionSnapshot], *, awaited: bool = False
) -> Transition | None:
    """The next version to load or to unload, None when there is nothing to do now. The newest version is loaded first,
    the oldest is unloaded first.

    `awaited`: nothing is wanted now, but something will be once its files have settled.
    """
    newest_first = sorted(versions, key=lambda version: version.version, reverse=True)
    for version in reversed(newest_first):
        if version.forced and version.serves:
            return UnloadVersion(version.version)
    return _availability(newest_first, awaited) if transition == "availability" else _resource(newest_first)


def _availability(newest_first: Sequence[VersionSnapshot], awaited: bool) -> Transition | None:
    for version in newest_first:
        if version.wanted and version.phase in (VersionPhase.NEW, VersionPhase.STALE):
            return LoadVersion(version.version)
    wanted = [version for version in newest_first if version.wanted]
    to_come = any(version.phase is VersionPhase.LOADING for version in wanted)
    if (not wanted and not awaited) or (not to_come and any(version.serves for version in wanted)):
        for version in reversed(newest_first):
            if not version.wanted and version.serves:
                return UnloadVersion(version.version)
    return None


def _resource(newest_first: Sequence[VersionSnapshot]) -> Transition | None:
    for version in reversed(newest_first):
        if version.serves and (not version.wanted or version.phase is VersionPhase.STALE):
            return UnloadVersion(version.version)
    if any(version.draining for version in newest_first):
        return None
    for version in newest_first:
        if version.wanted and version.phase is VersionPhase.NEW:
            return LoadVersion(version.version)
    return None


def file_checks(model: ModelState) -> list[Action]:
    """Which files have to be hashed, and which differences are out of date. For a model whose settings can be read."""
    actions: list[Action] = []
    for number, version in model.versions.items():
        if version.servable is None:
            continue
        stale = version.is_stale(model.settings)
        settled = version.loading is None and version.lost is None
        if stale is False and settled and (version.error or version.failure is not None):
            content = version.on_disk(model.settings)
            if content is not None and content == version.content:
                actions.append(ForgetDifference(number))
        if stale is None and version.hashing is None and version.disk is not None:
            actions.append(HashFiles(number))
    return actions
