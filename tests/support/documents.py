"""The code blocks of a page of the documentation.

A block that no test runs has a line before it that says why: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block. `reason`: why no test runs it, "" if a test does. `line`: its first line in the page."""

    page: str
    line: int
    language: str
    text: str
    reason: str

    def commands(self) -> list[str]:
        """The lines after `$ ` of a console, those that end in a backslash joined with the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ")]


def blocks(page: str) -> list[Block]:
    """All blocks of a page, given by its path from the root of the repository."""
    text = (ROOT / page).read_text()
    return [
        Block(
            page, text.count("\n", 0, found.start("text")) + 1, found["language"], found["text"], found["reason"] or ""
        )
        for found in _BLOCK.finditer(text)
    ]
