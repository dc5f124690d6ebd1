"""The table of behaviours in docs/protocols.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TITLE = "## Behaviours checked against Triton's own test list"


def named_tests() -> list[tuple[str, str]]:
    """File and test of every reference; "::name" alone means the file before it."""
    section = (ROOT / "docs" / "protocols.md").read_text().partition(TITLE)[2].partition("\n## ")[0]
    found = []
    file = ""
    for path, name in re.findall(r"`([\w/]*\.py|)::(\w+)`", section):
        file = path or file
        found.append((file, name))
    return found


def test_every_test_that_is_named_is_there() -> None:
    named = named_tests()
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"def {name}\(", (ROOT / "tests" / file).read_text())
    ]
    assert not missing
