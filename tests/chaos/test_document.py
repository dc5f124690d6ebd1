"""The table of docs/reliability.md has exactly the scenarios, with the texts of their classes."""

from __future__ import annotations

import re
from pathlib import Path

from chaos.catalogue import SCENARIOS
from chaos.document import PAGE, lines

TESTS = Path(__file__).resolve().parents[1]


def test_the_table_has_exactly_the_scenarios() -> None:
    table = lines()
    assert list(table) == [scenario.name for scenario in SCENARIOS]
    for scenario in SCENARIOS:
        assert table[scenario.name][1:3] == (scenario.fault, scenario.promise)


def test_the_measured_figures_have_no_lost_requests() -> None:
    for name, row in lines().items():
        if re.fullmatch(r"[\d,]+", row[3]):
            assert row[6:8] == ("0", "0"), name


def test_every_named_test_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert named
    named += [tuple(scenario.shown.split("::")) for scenario in SCENARIOS if scenario.shown]
    for file, name in named:
        assert re.search(rf"def {name}\(", (TESTS / file).read_text()), f"{file}::{name}"
