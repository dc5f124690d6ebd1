"""Runs each scenario that no other test shows, once and briefly.

No request may be lost, no answer may be wrong, and callers may get only the promised errors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.catalogue import SCENARIOS
from chaos.scenario import Scenario, play
from chaos.stage import CannotPlay, Setup, Stage

pytestmark = pytest.mark.timeout(300)


class SharedStage:
    """One stage at a time. It is kept while the next scenario has the same setup."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._count = 0
        self._stage: Stage | None = None

    def stage(self, setup: Setup) -> Stage:
        if self._stage is None or self._stage.setup != setup or not self._stage.alive():
            self.leave()
            self._count += 1
            stage = Stage(self._place / f"stage-{self._count}", setup)
            stage.__enter__()
            self._stage = stage
        return self._stage

    def leave(self) -> None:
        if self._stage is not None:
            stage, self._stage = self._stage, None
            stage.__exit__()


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedStage]:
    # Not in pytest's own directory, which each run of pytest makes inaccessible to other users.
    with tempfile.TemporaryDirectory(prefix="inferd-chaos-") as place:
        shared = SharedStage(Path(place))
        yield shared
        shared.leave()


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.shown], ids=lambda scenario: scenario.name)
def test_no_request_is_lost_and_no_answer_is_wrong(scenario: type[Scenario], shared: SharedStage) -> None:
    try:
        stage = shared.stage(scenario.setup)
    except CannotPlay as why:
        pytest.skip(str(why))
    result = play(scenario(), stage, answers=1)
    assert not result.faults, result
    assert result.lost == result.wrong == 0, result
    assert result.strikes == 1
    assert result.answered >= 100, result
