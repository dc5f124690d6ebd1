"""Whether what a request named is in service: tells a model that is not there from a server that is busy."""

from __future__ import annotations

from inferd.server.errors import ServingError
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import State


def in_service(manager: ManagerLike, name: str, version: int | None, label: str | None) -> bool:
    """Whether a version that fits is AVAILABLE now. Never raises."""
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
