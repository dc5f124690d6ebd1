"""Whether a loaded version may begin to serve: a worker of a group waits until all workers have loaded it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inferd.server.lifecycle.reconcile.model_state import Content
from inferd.server.lifecycle.state import ServableId


class ActivationBarrier(Protocol):
    """Is asked before a version serves. Its methods are called on the manager's thread and must not block."""

    def loaded(self, id: ServableId, content: Content, decided: Callable[[str | None], None]) -> Callable[[], None]:  # noqa: A002
        """A version is loaded. Calls `decided` later, from any thread: with None when the version may serve, otherwise
        with the reason why it may not. Gives the function that takes the question back."""
        ...

    def failed(self, id: ServableId, content: Content, reason: str) -> None:  # noqa: A002
        """A version could not be loaded."""
        ...
