"""What `inferd models` tells in a group where workers differ."""

from __future__ import annotations

from inferd.server.lifecycle.state import ModelStatus, ServableId, State, VersionStatus
from inferd.server.workers.group_state import GroupState
from inferd.server.workers.messages import PeerStates


def own(state: State, at: float = 0.0) -> ModelStatus:
    return ModelStatus("m", (VersionStatus(ServableId("m", 1), state, changed_at=at),))


def picture(states: dict[int, tuple[str, str]], now: float = 100.0) -> GroupState:
    times = iter([0.0])
    found = GroupState(lambda: next(times, now))
    found.told(PeerStates(2, "m", states))
    return found


def test_a_version_is_available_when_all_have_it() -> None:
    status = own(State.AVAILABLE)
    assert picture({1: ("AVAILABLE", "")}).over(status) is status
    [version] = picture({1: ("START", "no memory")}).over(status).versions
    assert version.state is State.START
    assert version.notes == ("worker 2: start (no memory)",)
    assert version.error == "worker 2: no memory"


def test_what_only_another_has_is_told_and_not_available() -> None:
    [version] = picture({1: ("AVAILABLE", "")}).over(own(State.LOADING)).versions
    assert version.state is State.LOADING
    assert version.notes == ("worker 2: available",)


def test_a_difference_of_a_moment_is_none() -> None:
    status = own(State.AVAILABLE, at=99.5)
    assert picture({1: ("LOADING", "")}).over(status) is status
    assert picture({1: ("LOADING", "")}, now=0.5).over(own(State.AVAILABLE)).versions[0].notes == ()


def test_who_is_gone_does_not_count() -> None:
    found = picture({1: ("LOADING", "")})
    found.gone(2)
    assert found.over(own(State.AVAILABLE)).versions[0].state is State.AVAILABLE


def test_a_clock_that_is_set_back_hides_nothing() -> None:
    times = iter([5000.0])
    found = GroupState(lambda: next(times, 100.0))
    found.told(PeerStates(2, "m", {1: ("LOADING", "")}))
    assert found.over(own(State.AVAILABLE, at=5000.0)).versions[0].state is State.LOADING
