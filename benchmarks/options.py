"""What the command line says to the measurements that take options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The same for every measurement.

    quick      fewer rounds and points: a look, not figures to publish
    docs       writes figures and plots into docs/performance.md
    prototype  a server script to compare with: `python PATH PORT NAME=MODEL.onnx...`
    only       names of the peers to compare, all where empty
    requests   how many requests the memory measurement makes
    """

    quick: bool = False
    docs: bool = False
    prototype: Path | None = None
    only: tuple[str, ...] = ()
    requests: int = 10_000_000
