"""The loads that one call of `inferd bench` puts on a model, one after the other."""

from __future__ import annotations

import argparse

from inferd.server.cli.connection import positive, rate

MOST_LOADS = 100


def concurrencies(text: str) -> tuple[int, ...]:
    """An argparse type: "8", "1,4,16" or "START:END[:STEP]", the end included."""
    if ":" not in text:
        return tuple(positive(part) for part in _parts(text))
    parts = text.split(":")
    if len(parts) > 3:
        raise argparse.ArgumentTypeError(f"expected N, N,N,... or START:END[:STEP], got {text!r}")
    start, end, *step = map(positive, parts)
    if end < start:
        raise argparse.ArgumentTypeError(f"expected START:END with an end of at least {start}, got {text!r}")
    found = range(start, end + 1, *step)
    if len(found) > MOST_LOADS:
        raise argparse.ArgumentTypeError(
            f"expected at most {MOST_LOADS} numbers of callers, got {len(found)}: {text!r}"
        )
    return tuple(found)


def rates(text: str) -> tuple[float, ...]:
    """An argparse type: "100" or "100,200,400"."""
    return tuple(rate(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if len(parts) > MOST_LOADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_LOADS} numbers, got {len(parts)}")
    return parts
