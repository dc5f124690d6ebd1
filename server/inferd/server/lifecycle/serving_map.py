"""What is served at one moment. Immutable: the manager makes a new map for every change and swaps one reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inferd.server.lifecycle.servable import Servable


@dataclass(frozen=True, slots=True)
class Served:
    """One model: the servable of a request that asks for no version, all by version, and by label."""

    default: Servable
    versions: Mapping[int, Servable]
    labels: Mapping[str, Servable]


ServingMap = dict[str, Served]
"""By model name. Never changed once it is published; a plain dict because each request looks into it."""


def served(versions: Mapping[int, Servable], preferred: Iterable[int], labels: Mapping[str, int]) -> Served | None:
    """The entry for a model's available versions, None when there are none.

    The default is the highest of those `preferred` (what the policy or a pin asks for), or the highest of all while
    none of them is available. A label to a version that is not available is left out until it is.
    """
    if not versions:
        return None
    default = max(versions.keys() & set(preferred), default=max(versions))
    return Served(
        versions[default],
        MappingProxyType(dict(versions)),
        MappingProxyType({label: versions[number] for label, number in labels.items() if number in versions}),
    )
