"""What is served by the group, seen from one worker: its own picture, with what differs elsewhere written into it.

A version is AVAILABLE when every worker that serves has it. Differences that have not lasted are left out: workers
switch together, but not in the same millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from inferd.server.lifecycle.state import ModelStatus, State, VersionStatus
from inferd.server.workers.messages import PeerStates

States = Mapping[int, tuple[str, str]]
LASTS = 1.0  # seconds


def states_of(status: ModelStatus) -> States:
    """How the versions of a model stand, in the words of the messages."""
    return {version.id.version: (version.state.name, version.error) for version in status.versions}


@dataclass(frozen=True, slots=True)
class _Seen:
    states: States
    at: float  # wall clock


class GroupState:
    """What the other workers say of themselves. Thread-safe."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._lock = Lock()
        self._peers: dict[int, dict[str, _Seen]] = {}

    def told(self, news: PeerStates) -> None:
        """A worker's versions of a model stand like this now."""
        with self._lock:
            models = self._peers.setdefault(news.worker, {})
            if news.states is None:
                models.pop(news.model, None)
            else:
                models[news.model] = _Seen(news.states, self._wall_clock())

    def gone(self, worker: int) -> None:
        """A worker no longer serves."""
        with self._lock:
            self._peers.pop(worker, None)

    def over(self, own: ModelStatus) -> ModelStatus:
        """The group's status of a model."""
        with self._lock:
            peers = {worker: models.get(own.name) for worker, models in sorted(self._peers.items())}
        if not any(peers.values()):
            return own
        now = self._wall_clock()
        versions = tuple(_over(version, peers, now) for version in own.versions)
        return own if versions == own.versions else replace(own, versions=versions)


def _new(at: float, now: float) -> bool:
    return now - LASTS < at <= now  # what lies ahead was seen before the clock was set back


def _over(own: VersionStatus, peers: Mapping[int, _Seen | None], now: float) -> VersionStatus:
    if _new(own.changed_at, now):
        return own
    state, error, notes = own.state, own.error, []
    for worker, seen in peers.items():
        if seen is None or _new(seen.at, now):
            continue
        name, why = seen.states.get(own.id.version, (State.START.name, ""))
        served, serves = own.state is State.AVAILABLE, name == State.AVAILABLE.name
        if served == serves:
            continue
        notes.append(f"worker {worker}: {name.lower()}{f' ({why})' if why else ''}")
        if served and state is own.state:
            state, error = State[name], error or (f"worker {worker}: {why}" if why else "")
    return own if not notes else replace(own, state=state, error=error, notes=(*own.notes, *notes))
