"""What is played on both sides, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from differential.side import Setup, Side

Play = Callable[["Notes"], None]


@dataclass(frozen=True)
class Scene:
    """A piece of traffic. `play` asks the side and notes what came; it does the same on each side, in the same order.

    `exact`: the metrics are compared when it has ended, too. Without it races decide, and the scene itself asserts what
    must hold on every side.
    """

    name: str
    setup: Setup
    play: Play
    exact: bool = True


class Notes:
    """One side in one scene: the side, and the observations by case."""

    def __init__(self, scene: Scene, side: Side) -> None:
        self.scene, self.side = scene, side
        self.seen: dict[str, Any] = {}

    def see(self, case: str, value: Any) -> None:
        """Keeps an observation."""
        assert case not in self.seen, f"the case {case!r} is there twice"
        self.seen[case] = value
