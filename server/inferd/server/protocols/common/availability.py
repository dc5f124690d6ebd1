"""Whether a model is in service: distinguishes an Unavailable of the model from an Unavailable of a busy server."""

from __future__ import annotations

from inferd.server.errors import ServingError
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import State


def in_service(manager: ManagerLike, name: str, version: int | None, label: str | None) -> bool:
    """Whether a version with this number or label is AVAILABLE now; None matches any. Never raises."""
    try:
        versions = manager.status(name).versions
    except ServingError:
        return False
    return any(
        status.state is State.AVAILABLE
        and (version is None or status.id.version == version)
        and (label is None or label in status.labels)
        for status in versions
    )
