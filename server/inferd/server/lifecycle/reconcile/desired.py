"""What should be served of a model: its settings, the operators' wishes and what is on disk, in one pure function."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.labels import effective_labels
from inferd.server.lifecycle.reconcile.version_policy import wanted_versions


@dataclass(frozen=True, slots=True)
class Desired:
    """The wanted state of a model.

    wanted      versions to serve
    preferred   those of them from which a request that names no version is answered
    forced      versions that an operator wants gone, whatever that leaves
    labels      label to version
    asked       whether the model is served at all: in explicit mode only what was named at start or by an operator is
    awaited     nothing is wanted, but something will be once its files have settled
    """

    wanted: frozenset[int] = frozenset()
    preferred: frozenset[int] = frozenset()
    forced: frozenset[int] = frozenset()
    labels: dict[str, int] = field(default_factory=dict)
    asked: bool = True
    awaited: bool = False


def desired(
    config: ModelConfig,
    wishes: ModelOverrides,
    candidates: Collection[int],
    failed: Collection[int],
    *,
    served_by_default: bool,
    settling: Collection[int] = (),
) -> Desired:
    """The desired state of one model.

    `candidates` are the versions on disk that may be loaded or are; `failed` those of them that could not be loaded.
    `served_by_default`: whether a model is served without an operator's word (watch mode, or named at start).
    `settling`: versions that will be candidates soon.

    An unload stands above a pin, a pin above the policy. A label keeps its version served, for requests name it; so
    does a load of a version that the policy would leave out. Neither makes it the version of requests that name none.
    """
    labels = effective_labels(config.labels, wishes)
    everything = frozenset(candidates)
    pin = wishes.pin
    asked = served_by_default or wishes.get("loaded") is not None or pin is not None
    on = asked and wishes.get("unloaded") is None
    base: frozenset[int] = frozenset()
    if on:
        base = wanted_versions(config.version_policy, candidates, failed) if pin is None else frozenset((pin,))
    gone = wishes.versions("unloaded")
    wanted = base | wishes.versions("loaded")
    if on:
        wanted |= frozenset(labels.values())
    wanted = (wanted & everything) - gone
    forced = (everything - wanted) if wishes.get("unloaded") is not None else gone
    awaited = False
    if settling and not wanted:
        awaited = bool(desired(config, wishes, settling, (), served_by_default=served_by_default).wanted)
    return Desired(wanted, base & wanted, forced, labels, asked, awaited)
