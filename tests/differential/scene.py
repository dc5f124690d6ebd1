"""A scene: traffic that is sent to both sides, and the observations made of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from differential.side import Setup, Side

Play = Callable[["Notes"], None]


@dataclass(frozen=True)
class Scene:
    """Traffic with a name. `play` sends the same requests in the same order to each side and notes the responses.

    `exact`: the metrics are compared at the end as well. Otherwise the responses depend on races, and the scene itself
    asserts the invariants.
    """

    name: str
    setup: Setup
    play: Play
    exact: bool = True


class Notes:
    """One side during a scene, and its observations by case."""

    def __init__(self, scene: Scene, side: Side) -> None:
        self.scene, self.side = scene, side
        self.seen: dict[str, Any] = {}

    def see(self, case: str, value: Any) -> None:
        """Records an observation."""
        assert case not in self.seen, f"the case {case!r} is there twice"
        self.seen[case] = value
