"""The version policy: which of the versions on disk are wanted. Pure."""

from __future__ import annotations

from collections.abc import Collection

from inferd.server.config.schema import Policy

# A framework that is not installed fails a whole history of versions; trying all of it for ever helps nobody.
_MAX_STAND_INS = 3


def wanted_versions(policy: Policy, candidates: Collection[int], failed: Collection[int] = ()) -> frozenset[int]:
    """The versions to serve, out of `candidates`.

    `failed`: candidates whose content could not be loaded. `latest(n)` means the newest n that load: a failed one stays
    wanted, for it is tried again, but the next older one stands in for it. So a restart next to a broken new version
    still serves.
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


def describe(policy: Policy) -> str:
    """The policy in words, as the status shows it."""
    if policy.specific is not None:
        return f"specific({', '.join(map(str, policy.specific))})"
    return "all" if policy.all else f"latest({policy.latest or 1})"
