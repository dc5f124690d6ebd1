"""The state of a model that `inferd models` shows when the workers differ."""

from __future__ import annotations

from inferd.server.lifecycle.state import ModelStatus, ServableId, State, VersionStatus
from inferd.server.workers.group_state import GroupState
from inferd.server.workers.messages import PeerStates


def own(state: State, at: float = 0.0) -> ModelStatus:
    return ModelStatus("m", (VersionStatus(ServableId("m", 1), state, changed_at=at),))


def group_state(states: dict[int, tuple[str, str]], now: float = 100.0) -> GroupState:
    """With a report of worker 2 at time 0; afterwards the clock shows `now`."""
    times = iter([0.0])
    group = GroupState(lambda: next(times, now))
    group.update(PeerStates(2, "m", states))
    return group


def test_a_version_is_available_when_all_have_it() -> None:
    status = own(State.AVAILABLE)
    assert group_state({1: ("AVAILABLE", "")}).merged(status) is status
    [version] = group_state({1: ("START", "no memory")}).merged(status).versions
    assert version.state is State.START
    assert version.notes == ("worker 2: start (no memory)",)
    assert version.error == "worker 2: no memory"


def test_a_version_that_only_another_worker_has_is_noted_and_not_available() -> None:
    [version] = group_state({1: ("AVAILABLE", "")}).merged(own(State.LOADING)).versions
    assert version.state is State.LOADING
    assert version.notes == ("worker 2: available",)


def test_a_difference_younger_than_a_second_is_ignored() -> None:
    status = own(State.AVAILABLE, at=99.5)
    assert group_state({1: ("LOADING", "")}).merged(status) is status
    assert group_state({1: ("LOADING", "")}, now=0.5).merged(own(State.AVAILABLE)).versions[0].notes == ()


def test_a_worker_that_is_gone_does_not_count() -> None:
    group = group_state({1: ("LOADING", "")})
    group.remove(2)
    assert group.merged(own(State.AVAILABLE)).versions[0].state is State.AVAILABLE


def test_a_clock_that_is_set_back_hides_no_difference() -> None:
    times = iter([5000.0])
    group = GroupState(lambda: next(times, 100.0))
    group.update(PeerStates(2, "m", {1: ("LOADING", "")}))
    assert group.merged(own(State.AVAILABLE, at=5000.0)).versions[0].state is State.LOADING
