"""The supervisor when workers start and end at awkward moments. Fake workers stand in for the real ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.puppets import LIMIT, Stage, stage
from support.waiting import eventually

from inferd.server.workers import messages as m
from inferd.server.workers.child import ChildPhase


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(monkeypatch) as group:
        yield group


def test_a_worker_that_cannot_be_started_does_not_disturb_the_others(group: Stage) -> None:
    """The system has no process, descriptor or memory to give, for a while."""
    first, second = group.both_serve()
    group.refusals = 3
    second.die()
    replacement = group.next()
    assert (replacement.number, group.refusals) == (second.number, 0)
    replacement.serves()
    eventually(lambda: replacement.child.phase is ChildPhase.SERVING, "the replacement serves")
    assert first.child.phase is ChildPhase.SERVING


def test_the_group_is_ready_when_every_worker_has_read_it(group: Stage) -> None:
    """A client that has seen the ready line must not meet a worker that says otherwise."""
    first, second = group.next(), group.next()
    first.serves()
    second.hears(m.Begin)
    second.mute = True
    second.says(m.Opened((), ()), m.Ready("no models"))
    eventually(lambda: second.child.phase is ChildPhase.SERVING, "it was told")
    assert group.no_worker_starts()
    assert not group.ready.is_set()
    second.die()
    assert group.ready.wait(LIMIT), "a worker that is gone is not waited for"


def test_the_start_of_the_first_workers_is_retried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(monkeypatch, refusals=1) as group:
        group.both_serve()


def test_a_rolling_restart_survives_the_death_of_the_worker_being_replaced(group: Stage) -> None:
    first, second = group.both_serve()
    group.supervisor.roll()
    replacement = group.next()
    first.die()
    replacement.serves()
    other = group.next()
    assert (replacement.number, other.number) == (first.number, second.number)
    other.serves()
    second.leave()
    eventually(lambda: not group.supervisor._rolling_restart.under_way, "the restart is over")
    group.supervisor.roll()
    third = group.next()
    assert third.number == replacement.number, "another restart is taken"


def test_a_worker_is_replaced_once_however_often_it_is_told_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replacement dies, and it gets SIGTERM again before another replacement is started."""
    with stage(monkeypatch, pause=600) as group:
        first, second = group.both_serve()
        first.says(m.LeaveRequested())
        replacement = group.next()
        assert replacement.number == first.number
        replacement.die()
        eventually(lambda: replacement.child.phase is ChildPhase.GONE, "the supervisor has noticed its end")
        first.says(m.LeaveRequested())
        first.asks(m.CollectOthers(())).result(LIMIT)  # the supervisor has received the message before
        assert group.no_worker_starts(), "a replacement is scheduled already"
        group.run_timers()
        second_replacement = group.next()
        second_replacement.serves()
        first.leave()
        eventually(lambda: first.child.phase is ChildPhase.GONE, "the worker has left")
        assert [child.id for child in group.supervisor._alive()] == [second.child.id, second_replacement.child.id]
        assert group.no_worker_starts()


def test_a_worker_that_gets_sigterm_while_it_starts_leaves_later(group: Stage) -> None:
    first, second = group.next(), group.next()
    first.says(m.LeaveRequested())
    for one in (first, second):
        one.serves()
    replacement = group.next()
    assert replacement.number == first.number
    replacement.serves()
    first.leave()


def test_all_workers_die_at_once(group: Stage) -> None:
    first, second = group.both_serve()
    first.die()
    second.die()
    others = group.next(), group.next()
    for one in others:
        one.serves()
    eventually(lambda: all(one.child.phase is ChildPhase.SERVING for one in others), "both serve")
    for one in others:
        if not one.child.late:
            opens = [message for message, _ in list(one.heard.queue) if isinstance(message, m.Open)]
            assert not opens, "its ports are open already"


def test_a_late_worker_stops_waiting_for_a_model_that_only_a_dead_worker_served(group: Stage) -> None:
    first, second = group.both_serve()
    states = {1: ("AVAILABLE", "")}
    first.says(m.States("both", states), m.States("mine", states))
    second.says(m.States("both", states))
    eventually(lambda: "mine" in first.child.states and "both" in second.child.states, "the supervisor knows")
    second.die()
    late = group.next()
    late.hears(m.Begin)
    late.says(m.States("both", states), m.Ready("1 model"))
    eventually(lambda: late.child.phase is ChildPhase.READY, "it is ready, and lacks one model")
    first.die()
    late.hears(m.Open)


def test_a_late_worker_that_is_left_alone_activates_its_versions(group: Stage) -> None:
    """It waits for the workers that serve to load the same version, and they die."""
    first, second = group.both_serve()
    second.die()
    late = group.next()
    late.hears(m.Begin)
    late.says(m.Loaded("key", "m:1"))
    eventually(lambda: "key" in group.supervisor._activation._open, "the supervisor knows")
    first.die()
    assert late.hears(m.ActivationDecided).refusal == ""


def test_a_worker_that_does_not_answer_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    hang, passed = 600.0, 0.0
    with stage(monkeypatch, worker_hang=hang) as group:
        watch = group.supervisor._liveness
        monkeypatch.setattr(watch, "_clock", lambda: time.monotonic() + passed)
        first, second = group.both_serve()
        eventually(lambda: watch._answered >= {first.child.id, second.child.id}, "both workers have answered once")
        second.mute = True
        while not second.child.ended:
            assert passed <= 2 * hang
            passed += hang / 4
            group.run_timers()
            eventually(lambda: first.child.id not in watch._open, "the other worker answers")
        assert second.child.process is not None
        assert second.child.process.wait(LIMIT) == -9
        replacement = group.next()
        assert replacement.number == second.number
        replacement.serves()
        eventually(lambda: replacement.child.phase is ChildPhase.SERVING, "the replacement serves")
        assert first.child.phase is ChildPhase.SERVING
