"""What the source saw, as it counts: with the settings and files that came with load requests in the place of what is
on disk, and in explicit mode as the disk was when an operator last loaded the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from inferd.server.lifecycle.ensemble.definition import models_of
from inferd.server.lifecycle.operations.load_overrides import LoadOverrides
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.repository.disk import Listing, ModelOnDisk, VersionOnDisk


@dataclass(frozen=True, slots=True)
class Observation:
    """What a model is from now on: `disk` None says that it is gone. `frozen` is as in ModelState."""

    name: str
    disk: ModelOnDisk | None
    frozen: frozenset[int] | None


class ObservedState:
    """The last listing, and what it says of each model. The manager's thread only, but for reading `listing`.

    It changes no model: it gives observations, which the reconciler writes down.

    listing          the last one, with the load overrides in force; None before the first
    load_overrides   settings and files that came with loads; after a change of these, `again` gives what follows
    explicit         the repository's mode: nothing is served that is not named at start or asked for by an operator
    """

    def __init__(self, *, explicit: bool, load_at_start: tuple[str, ...]) -> None:
        self.load_overrides = LoadOverrides()
        self.listing: Listing | None = None
        self.explicit = explicit
        self._on_disk = Listing()  # without load overrides
        self._load_at_start = set(load_at_start)

    def observe(self, listing: Listing, models: Mapping[str, ModelState], overrides: Overrides) -> list[Observation]:
        """Takes over what the source saw, and gives the models that it changes."""
        changed: list[Observation] = []
        first = self.listing is None
        self._on_disk = listing
        self.listing = listing = self.load_overrides.over(listing)
        self._name_parts(listing)
        for name, found in listing.models.items():
            model = models.get(name)
            disk, frozen = found, model.frozen if model is not None else None
            if self.explicit:
                if self._begins(name, overrides, new=model is None, first=first):
                    frozen = frozenset(version.number for version in disk.versions)
                disk = _as_frozen(disk, model, frozen)
            if model is None or disk != model.disk or frozen != model.frozen:
                changed.append(Observation(name, disk, frozen))
        for name, model in models.items():
            # In explicit mode a model that is gone from disk stays served until an operator unloads it.
            if name not in listing.models and model.disk is not None and model.frozen is None:
                changed.append(Observation(name, None, None))
        return changed

    def again(self, models: Mapping[str, ModelState], overrides: Overrides) -> list[Observation]:
        """What the last listing means now that the load overrides have changed."""
        return self.observe(self._on_disk, models, overrides)

    def fresh(self, name: str) -> Observation | None:
        """Explicit mode: the model as it is on disk now, because an operator loads it. None when nothing changes: in
        watch mode, and for a model that is not on disk."""
        disk = self.listing.models.get(name) if self.listing is not None else None
        if disk is None or not self.explicit:
            return None
        return Observation(name, disk, frozenset(version.number for version in disk.versions))

    def in_repository(self, name: str) -> bool:
        """Whether the repository itself holds the model."""
        return name in self._on_disk.models

    def newest(self, name: str) -> VersionOnDisk | None:
        """The newest version of a model on disk, None when there is none."""
        disk = self.listing.models.get(name) if self.listing is not None else None
        return disk.versions[0] if disk is not None and disk.versions else None

    def served_by_default(self, model: ModelState) -> bool:
        """Whether the model is served without an operator's request."""
        if not self.explicit:
            return True
        return (model.name in self._load_at_start or "*" in self._load_at_start) and model.frozen is not None

    def _begins(self, name: str, overrides: Overrides, *, new: bool, first: bool) -> bool:
        """Explicit mode: whether the model is to be served as it is on disk now."""
        own = overrides.of(name)
        return (
            (new and name in self._load_at_start)
            or (first and "*" in self._load_at_start)
            or (new and (own.get("loaded") is not None or bool(own.versions("loaded")) or own.pin is not None))
        )

    def _name_parts(self, listing: Listing) -> None:
        """An ensemble that is named to be loaded at start names the models in it, too."""
        named = [name for name in self._load_at_start if name in listing.models]
        while named:
            disk = listing.models.get(named.pop())
            parts = models_of(disk.config) if disk is not None and disk.config is not None else ()
            named.extend(part for part in parts if part not in self._load_at_start)
            self._load_at_start.update(parts)


def _as_frozen(disk: ModelOnDisk, model: ModelState | None, frozen: frozenset[int] | None) -> ModelOnDisk:
    """Explicit mode: a model as it was when an operator loaded it. Versions that are not loaded yet are seen as they
    are: they may still settle, or be repaired."""
    before = model.disk if model is not None else None
    if frozen is None or model is None or before is None:
        return disk
    versions = []
    for number in sorted(frozen, reverse=True):
        known = model.versions.get(number)
        loaded = known is not None and known.servable is not None
        chosen = before.version(number) if loaded else disk.version(number)
        if chosen is not None:
            versions.append(chosen)
    return replace(before if before.config is not None else disk, versions=tuple(versions))
