"""Operators' wishes in a worker: a copy. The supervisor keeps them, on disk where there is a state directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides, OverridesError
from inferd.server.workers.link import LinkLost

_PATIENCE = 10.0  # seconds for the supervisor to write a small file


class SharedOverrides(Overrides):
    """See Overrides. The manager's thread only.

    `keep` asks the supervisor, which answers with the wishes that count: those that another worker was led to before by
    the same operation.
    """

    def __init__(
        self,
        wishes: Mapping[str, ModelOverrides],
        keep: Callable[[str, ModelOverrides], Future[ModelOverrides]],
        *,
        persistent: bool,
    ) -> None:
        super().__init__(None)
        for model, kept in wishes.items():
            self.adopt(model, kept)
        self._keep = keep
        self._kept_on_disk = persistent

    @property
    def persistent(self) -> bool:
        """See Overrides."""
        return self._kept_on_disk

    def change(self, model: str, wishes: ModelOverrides) -> None:
        """See Overrides."""
        if wishes == self.of(model):
            return
        try:
            kept = self._keep(model, wishes).result(_PATIENCE)
        except (LinkLost, FutureTimeoutError) as error:
            raise OverridesError(f"the supervisor did not take the wish: {error or 'no answer'}") from None
        self.adopt(model, kept)
