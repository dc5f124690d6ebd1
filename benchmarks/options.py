"""The options of the command line, for the measurements that take options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options of the measurements.

    quick      fewer rounds and points, for a first impression; such figures are not published
    docs       write figures and plots into benchmarks/results/ and docs/performance.md
    prototype  a server script to compare with: `python PATH PORT NAME=MODEL.onnx...`
    triton     a script that starts Triton's C++ server: START REPOSITORY --grpc-port PORT --http-port PORT
    only       words in the names of the peers to compare; empty for all peers
    requests   number of requests of the memory measurement
    """

    quick: bool = False
    docs: bool = False
    prototype: Path | None = None
    triton: Path | None = None
    only: tuple[str, ...] = ()
    requests: int = 10_000_000
