"""The state of a model over all workers, as one worker shows it: its own state, corrected where other workers differ.

A version is AVAILABLE when every serving worker has it. A difference younger than `SETTLE` is ignored: workers switch
together, but not in the same millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from inferd.server.lifecycle.state import ModelStatus, State, VersionStatus
from inferd.server.workers.messages import PeerStates

States = Mapping[int, tuple[str, str]]
SETTLE = 1.0  # seconds


def states_of(status: ModelStatus) -> States:
    """The states of a model's versions, as messages carry them: version → (state's name, error)."""
    return {version.id.version: (version.state.name, version.error) for version in status.versions}


@dataclass(frozen=True, slots=True)
class _PeerReport:
    states: States
    at: float  # wall clock


class GroupState:
    """What the other workers have reported of their models. Thread-safe."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._lock = Lock()
        self._peers: dict[int, dict[str, _PeerReport]] = {}

    def update(self, peer: PeerStates) -> None:
        """Stores the states that a worker has reported for a model."""
        with self._lock:
            models = self._peers.setdefault(peer.worker, {})
            if peer.states is None:
                models.pop(peer.model, None)
            else:
                models[peer.model] = _PeerReport(peer.states, self._wall_clock())

    def remove(self, worker: int) -> None:
        """Forgets a worker that no longer serves."""
        with self._lock:
            self._peers.pop(worker, None)

    def merged(self, own: ModelStatus) -> ModelStatus:
        """The status of a model over all workers. `own` is the status in this worker."""
        with self._lock:
            peers = {worker: models.get(own.name) for worker, models in sorted(self._peers.items())}
        if not any(peers.values()):
            return own
        now = self._wall_clock()
        versions = tuple(_merged_version(version, peers, now) for version in own.versions)
        return own if versions == own.versions else replace(own, versions=versions)


def _is_recent(at: float, now: float) -> bool:
    return now - SETTLE < at <= now  # a time in the future dates from before the clock was set back


def _merged_version(own: VersionStatus, peers: Mapping[int, _PeerReport | None], now: float) -> VersionStatus:
    if _is_recent(own.changed_at, now):
        return own
    state, error, notes = own.state, own.error, []
    for worker, report in peers.items():
        if report is None or _is_recent(report.at, now):
            continue
        peer_state, peer_error = report.states.get(own.id.version, (State.START.name, ""))
        available_here, available_there = own.state is State.AVAILABLE, peer_state == State.AVAILABLE.name
        if available_here == available_there:
            continue
        notes.append(f"worker {worker}: {peer_state.lower()}{f' ({peer_error})' if peer_error else ''}")
        if available_here and state is own.state:
            state, error = State[peer_state], error or (f"worker {worker}: {peer_error}" if peer_error else "")
    return own if not notes else replace(own, state=state, error=error, notes=(*own.notes, *notes))
