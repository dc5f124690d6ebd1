"""All scenarios in the order in which they are run. Scenarios with the same setup follow each other."""

from __future__ import annotations

from chaos import disks, peers, plugins, servers, texts, workers
from chaos.scenario import Scenario
from chaos.stage import Setup

_FOUND: tuple[type[Scenario], ...] = (
    *peers.SCENARIOS,
    *workers.SCENARIOS,
    *disks.SCENARIOS,
    *plugins.SCENARIOS,
    *servers.SCENARIOS,
    *texts.SCENARIOS,
)
_SETUPS: list[Setup] = list(dict.fromkeys(scenario.setup for scenario in _FOUND))
SCENARIOS: tuple[type[Scenario], ...] = tuple(sorted(_FOUND, key=lambda scenario: _SETUPS.index(scenario.setup)))
