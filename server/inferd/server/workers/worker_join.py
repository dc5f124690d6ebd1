"""A worker that comes to others which serve already: what it lacks, and what is said of it. The supervisor's thread
only."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from inferd.server.observability.events import event, get
from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.messages import PeerStates

log = get("group")


def missing(child: Child, serving: Iterable[Child]) -> set[tuple[str, int]]:
    """What others serve and a worker does not."""
    return {version for other in serving for version in other.available} - child.available


def tell_missing(child: Child, serving: Iterable[Child]) -> None:
    """Says in the log why a worker does not serve yet, if it does not."""
    if child.phase in (ChildPhase.STARTING, ChildPhase.READY):
        lacks = ", ".join(f"{model}:{version}" for model, version in sorted(missing(child, serving))[:5])
        event(log, logging.WARNING, "a worker does not serve yet", worker=child.number, missing=lacks or "its start")


def introduce(child: Child, serving: Iterable[Child]) -> None:
    """Tells it of the others, and the others of it."""
    for other in serving:
        if other is not child:
            for one, peer in ((child, other), (other, child)):
                for model, states in peer.states.items():
                    one.link.tell(PeerStates(peer.number, model, states))
