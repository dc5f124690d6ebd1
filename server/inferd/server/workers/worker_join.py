"""A worker that joins others which already serve: which versions it lacks, and the exchange of states. The
supervisor's thread only."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from inferd.server.observability.events import event, get
from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.messages import PeerStates

log = get("group")


def missing(child: Child, serving: Iterable[Child]) -> set[tuple[str, int]]:
    """The versions that the serving workers have and `child` does not."""
    return {version for other in serving for version in other.available} - child.available


def log_missing(child: Child, serving: Iterable[Child]) -> None:
    """Logs why a worker does not serve yet. Does nothing if the worker serves."""
    if child.phase in (ChildPhase.STARTING, ChildPhase.READY):
        lacks = ", ".join(f"{model}:{version}" for model, version in sorted(missing(child, serving))[:5])
        event(log, logging.WARNING, "a worker does not serve yet", worker=child.number, missing=lacks or "its start")


def exchange_states(child: Child, serving: Iterable[Child]) -> None:
    """Sends `child` the states of the other workers' models, and the other workers those of `child`."""
    for other in serving:
        if other is not child:
            for receiver, peer in ((child, other), (other, child)):
                for model, states in peer.states.items():
                    receiver.link.tell(PeerStates(peer.number, model, states))
