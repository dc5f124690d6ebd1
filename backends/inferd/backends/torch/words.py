"""Sets of words, as tables are written in this package."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text, which blanks and line breaks separate."""
    return frozenset(text.split())
