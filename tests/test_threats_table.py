"""The table of threats in docs/security.md names tests that are there, and its settings are settings."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from inferd.server.config.schema import ServerConfig

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "security.md").read_text()
TABLE = DOC.partition("<!-- threats: begin -->")[2].partition("<!-- threats: end -->")[0]


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"def {name}\(", (ROOT / "tests" / file).read_text())
    ]
    assert not missing


def test_every_test_of_the_page_on_reliability_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 15
    assert [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"def {name}\(", (ROOT / "tests" / file).read_text())
    ] == []


def test_every_threat_has_a_test() -> None:
    rows = [row for row in TABLE.splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row.split("|")[3]] == []


def test_the_settings_shown_are_settings() -> None:
    shown = [text for text in re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL) if "tokens.yaml: name" not in text]
    assert len(shown) == 6
    for text in shown:
        ServerConfig.model_validate(yaml.safe_load(text))
