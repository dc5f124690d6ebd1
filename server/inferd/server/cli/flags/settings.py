"""What the flags of another server mean here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class FlagSettings:
    """`flags` and `defaults` by dotted key, as `load_config` takes them, and `notes` for the user."""

    flags: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def boolean(text: str) -> bool:
    """An argparse type: true, 1, on or false, 0, off."""
    if text.lower() in ("true", "1", "on"):
        return True
    if text.lower() in ("false", "0", "off"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def whole_number(text: str) -> int:
    """An argparse type: a whole number of at least 0 with at most nine digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)
