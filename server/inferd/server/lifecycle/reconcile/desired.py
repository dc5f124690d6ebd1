"""What should be served of a model: its settings, the operators' overrides and what is on disk, in one pure function.

An operator's unload stands above a pin, a pin above the version policy. A label keeps its version served, because
requests name it, and so does an operator's load of a version that the policy would leave out. Neither makes that
version the answer to requests that name no version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from inferd.server.config.fields import LABEL
from inferd.server.config.schema import ModelConfig, Policy
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.operations.overrides import ModelOverrides

# When a framework is not installed, a model's whole history of versions fails. Trying all of it helps nobody.
_MAX_STAND_INS = 3


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state of a model.

    wanted      versions to serve
    preferred   those of them that answer requests which name no version
    forced      versions that an operator wants gone, even if nothing is left to serve
    labels      label to version
    asked       whether the model is to be served at all: in explicit mode only if named at start or by an operator
    expected    further versions that would be wanted if their files could be loaded
    awaited     nothing is wanted now, but something will be once its files have settled
    """

    wanted: frozenset[int] = frozenset()
    preferred: frozenset[int] = frozenset()
    forced: frozenset[int] = frozenset()
    labels: dict[str, int] = field(default_factory=dict)
    asked: bool = True
    expected: frozenset[int] = frozenset()
    awaited: bool = False


def desired(
    config: ModelConfig,
    overrides: ModelOverrides,
    candidates: Collection[int],
    failed: Collection[int],
    *,
    served_by_default: bool,
    settling: Collection[int] = (),
    held: Collection[int] = (),
    faulty: Collection[int] = (),
) -> Desired:
    """The desired state of one model.

    `candidates`: the versions on disk that may be loaded or are loaded; `failed`: those of them that could not be
    loaded. `served_by_default`: whether the model is served without an operator's request (watch mode, or named at
    start). `settling`: versions that become candidates when their files have settled. `held`: versions whose files are
    not complete, those that settle included. `faulty`: versions whose files can never be loaded as they are.
    """
    labels = effective_labels(config.labels, overrides)
    everything = frozenset(candidates)
    pin = overrides.pin
    asked = served_by_default or overrides.get("loaded") is not None or pin is not None
    on = asked and overrides.get("unloaded") is None
    base: frozenset[int] = frozenset()
    if on:
        base = wanted_versions(config.version_policy, candidates, failed) if pin is None else frozenset((pin,))
    gone = overrides.versions("unloaded")
    wanted = base | overrides.versions("loaded")
    if on:
        wanted |= frozenset(labels.values())
    wanted = (wanted & everything) - gone
    forced = (everything - wanted) if overrides.get("unloaded") is not None else gone
    expected: frozenset[int] = frozenset()
    if held or faulty:
        on_disk, hopeless = everything.union(held, faulty), {*failed, *faulty}
        expected = desired(config, overrides, on_disk, hopeless, served_by_default=served_by_default).wanted - wanted
    awaited = False
    if settling and not wanted:
        awaited = bool(desired(config, overrides, settling, (), served_by_default=served_by_default).wanted)
    return Desired(wanted, base & wanted, forced, labels, asked, expected, awaited)


def wanted_versions(policy: Policy, candidates: Collection[int], failed: Collection[int] = ()) -> frozenset[int]:
    """The versions out of `candidates` that the version policy wants to serve.

    `latest(n)` means the newest n that load. A version in `failed` stays wanted, because it is tried again, and the
    next older one stands in for it: a restart beside a broken new version still serves.
    """
    if policy.specific is not None:
        return frozenset(policy.specific) & frozenset(candidates)
    if policy.all:
        return frozenset(candidates)
    chosen: set[int] = set()
    wanted = policy.latest or 1
    for version in sorted(candidates, reverse=True):
        chosen.add(version)
        wanted -= version not in failed
        if wanted == 0 or len(chosen) == (policy.latest or 1) + _MAX_STAND_INS:
            break
    return frozenset(chosen)


def describe_policy(policy: Policy) -> str:
    """The version policy in words, as the status shows it."""
    if policy.specific is not None:
        return f"specific({', '.join(map(str, policy.specific))})"
    return "all" if policy.all else f"latest({policy.latest or 1})"


def check_label(label: str) -> None:
    """Raises InvalidRequest for a text that cannot be a label: one of digits only would be taken for a version."""
    if not LABEL.fullmatch(label):
        raise InvalidRequest(
            f"label: expected a letter or _, then letters, digits, '_', '.' or '-', at most 128, got {label[:200]!r}"
        )


def effective_labels(configured: Mapping[str, int], overrides: ModelOverrides) -> dict[str, int]:
    """Label to version, from the model's settings and, above them, from operators. A label is listed whether or not its
    version is available: it begins to work when the version does."""
    labels = dict(configured)
    for label, version in overrides.labels.items():
        if version is None:
            labels.pop(label, None)
        else:
            labels[label] = version
    return labels
