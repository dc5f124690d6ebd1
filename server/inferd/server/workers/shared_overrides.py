"""A worker's copy of the operators' overrides. The supervisor keeps the original, on disk if there is a state
directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from inferd.server.lifecycle.operations.overrides import ModelOverrides, Overrides, OverridesError
from inferd.server.workers.link import LinkLost

_KEEP_TIMEOUT = 10.0  # seconds for the supervisor to write a small file


class SharedOverrides(Overrides):
    """See Overrides. The manager's thread only.

    `keep` sends a model's new overrides to the supervisor. The supervisor answers with the overrides that count: if
    another worker has computed overrides for the same operation before, those.
    """

    def __init__(
        self,
        overrides: Mapping[str, ModelOverrides],
        keep: Callable[[str, ModelOverrides], Future[ModelOverrides]],
        *,
        persistent: bool,
    ) -> None:
        super().__init__(None)
        for model, kept in overrides.items():
            self.adopt(model, kept)
        self._keep = keep
        self._kept_on_disk = persistent

    @property
    def persistent(self) -> bool:
        """See Overrides."""
        return self._kept_on_disk

    def change(self, model: str, overrides: ModelOverrides) -> None:
        """See Overrides."""
        if overrides == self.of(model):
            return
        try:
            kept = self._keep(model, overrides).result(_KEEP_TIMEOUT)
        except (LinkLost, FutureTimeoutError) as error:
            raise OverridesError(f"the supervisor did not take the wish: {error or 'no answer'}") from None
        self.adopt(model, kept)
