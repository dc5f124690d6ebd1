"""Every scenario once, briefly: nothing lost, nothing wrong, nobody told more than was promised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos.catalogue import SCENARIOS
from chaos.scenario import Scenario, play
from chaos.stage import CannotPlay, Setup, Stage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    setup: Setup = request.param
    try:
        with Stage(tmp_path_factory.mktemp("chaos") / "stage", setup) as stage:
            yield stage
    except CannotPlay as why:
        pytest.skip(str(why))


@pytest.mark.parametrize(
    ("scenario", "stage"),
    [pytest.param(scenario, scenario.setup, id=scenario.name) for scenario in SCENARIOS],
    indirect=["stage"],
)
def test_nothing_is_lost_and_nothing_wrong(scenario: type[Scenario], stage: Stage) -> None:
    result = play(scenario(), stage)
    assert not result.faults, result
    assert result.lost == result.wrong == 0, result
    assert result.strikes >= 1
    assert result.answered >= 100, result
    print(result)
