"""The intake: what the source saw, as it counts. With the substitutes that came with loads in the place of what is on
disk, and in explicit mode as it was when an operator last loaded it.

The manager's thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from inferd.server.lifecycle.ensemble.definition import models_of
from inferd.server.lifecycle.operations.load_overrides import LoadOverrides
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.repository.disk import Listing


class ObservedState:
    """Keeps `records` in step with the listings. `touch` marks a model for the next decision.

    listing       the last one, with the substitutes in force; None before the first
    substitutes   after a change of these: `substitute`
    """

    def __init__(
        self,
        records: dict[str, ModelState],
        overrides: Overrides,
        touch: Callable[[str], None],
        *,
        explicit: bool,
        load_at_start: tuple[str, ...],
    ) -> None:
        self.substitutes = LoadOverrides()
        self.listing: Listing | None = None
        self._own = Listing()  # without substitutes
        self._records = records
        self._overrides = overrides
        self._touch = touch
        self._explicit = explicit
        self._load_at_start = set(load_at_start)

    def adopt(self, listing: Listing) -> None:
        """Takes over what the source saw."""
        first = self.listing is None
        self._own = listing
        self.listing = listing = self.substitutes.over(listing)
        self._name_parts(listing)
        for name, found in listing.models.items():
            record = self._records.get(name)
            new = record is None
            if record is None:
                record = self._records[name] = ModelState(name)
            disk = found
            if self._explicit:
                named = (new and name in self._load_at_start) or (first and "*" in self._load_at_start)
                wishes = self._overrides.of(name)
                wished = new and (
                    wishes.get("loaded") is not None or wishes.versions("loaded") or wishes.pin is not None
                )
                if named or wished:
                    record.frozen = frozenset(version.number for version in disk.versions)
                disk = record.as_frozen(disk)
            if new or disk != record.disk:
                record.adopt(disk)
                self._touch(name)
        for name, record in self._records.items():
            # In explicit mode what is gone from disk stays served until an operator unloads it.
            if name not in listing.models and record.disk is not None and record.frozen is None:
                record.adopt(None)
                self._touch(name)

    def apply_load_override(self) -> None:
        """The substitutes have changed: what was seen last counts differently now."""
        self.adopt(self._own)

    def refresh(self, record: ModelState) -> None:
        """Explicit mode: an operator's load looks at the disk anew; between loads it counts as unchanged."""
        disk = self.listing.models.get(record.name) if self.listing is not None else None
        if disk is not None and self._explicit:
            record.frozen = frozenset(version.number for version in disk.versions)
            record.adopt(disk)
        self._touch(record.name)

    def in_repository(self, name: str) -> bool:
        """Whether the repository itself holds the model."""
        return name in self._own.models

    def served_by_default(self, model: ModelState) -> bool:
        """Whether the model is served without anybody's wish."""
        if not self._explicit:
            return True
        return (model.name in self._load_at_start or "*" in self._load_at_start) and model.frozen is not None

    def _name_parts(self, listing: Listing) -> None:
        """Who names an ensemble to be loaded at the start means the models in it, too."""
        named = [name for name in self._load_at_start if name in listing.models]
        while named:
            disk = listing.models.get(named.pop())
            parts = models_of(disk.config) if disk is not None and disk.config is not None else ()
            named.extend(part for part in parts if part not in self._load_at_start)
            self._load_at_start.update(parts)
