"""What the supervisor does when workers come and go at the wrong moment; the workers are puppets."""

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


def test_a_worker_that_cannot_be_started_costs_the_others_nothing(group: Stage) -> None:
    """No process to be had, no descriptor, no memory: that passes."""
    first, second = group.both_serve()
    group.refusals = 3
    second.die()
    again = group.next()
    assert (again.number, group.refusals) == (second.number, 0)
    again.serves()
    eventually(lambda: again.child.phase is ChildPhase.SERVING, "it serves")
    assert first.child.phase is ChildPhase.SERVING


def test_the_first_workers_are_tried_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(monkeypatch, refusals=1) as group:
        group.both_serve()


def test_a_rolling_restart_survives_the_death_of_the_one_that_was_to_leave(group: Stage) -> None:
    first, second = group.both_serve()
    group.supervisor.roll()
    instead = group.next()
    first.die()
    instead.serves()
    other = group.next()
    assert (instead.number, other.number) == (first.number, second.number)
    other.serves()
    second.leave()
    eventually(lambda: not group.supervisor._rolling.under_way, "the restart is over")
    group.supervisor.roll()
    third = group.next()
    assert third.number == instead.number, "another restart is taken"


def test_a_worker_is_replaced_once_however_often_it_is_told_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replacement dies, and before another one is started it is told again."""
    with stage(monkeypatch, pause=600) as group:
        first, second = group.both_serve()
        first.says(m.Leaving())
        instead = group.next()
        assert instead.number == first.number
        instead.die()
        eventually(lambda: instead.child.phase is ChildPhase.GONE, "the supervisor has seen it")
        first.says(m.Leaving())
        first.asks(m.Scrape(())).result(LIMIT)  # it has heard that
        assert group.nobody_comes(), "one is coming already"
        group.wait_over()
        again = group.next()
        again.serves()
        first.leave()
        eventually(lambda: first.child.phase is ChildPhase.GONE, "it has left")
        assert [child.id for child in group.supervisor._alive()] == [second.child.id, again.child.id]
        assert group.nobody_comes()


def test_a_worker_told_to_leave_while_it_starts_leaves_when_it_can(group: Stage) -> None:
    first, second = group.next(), group.next()
    first.says(m.Leaving())
    for one in (first, second):
        one.serves()
    instead = group.next()
    assert instead.number == first.number
    instead.serves()
    first.leave()


def test_all_workers_die_at_once(group: Stage) -> None:
    first, second = group.both_serve()
    first.die()
    second.die()
    others = group.next(), group.next()
    for one in others:
        one.serves()
    eventually(lambda: all(one.child.phase is ChildPhase.SERVING for one in others), "they serve")
    for one in others:
        if not one.child.late:
            assert not any(isinstance(message, m.Open) for message, _ in list(one.heard.queue)), "its ports are open"


def test_who_waits_for_what_only_a_dead_worker_served_waits_no_longer(group: Stage) -> None:
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


def test_who_comes_late_and_is_left_alone_waits_for_nobody(group: Stage) -> None:
    """It waits to be let in by those that serve, and they die."""
    first, second = group.both_serve()
    second.die()
    late = group.next()
    late.hears(m.Begin)
    late.says(m.Loaded("key", "m:1"))
    eventually(lambda: "key" in group.supervisor._agreement._open, "the supervisor knows")
    first.die()
    assert late.hears(m.Decided).refusal == ""


def test_a_worker_that_does_not_answer_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    hang, passed = 600.0, 0.0
    with stage(monkeypatch, worker_hang=hang) as group:
        watch = group.supervisor._watch
        monkeypatch.setattr(watch, "_clock", lambda: time.monotonic() + passed)
        first, second = group.both_serve()
        eventually(lambda: watch._answered >= {first.child.id, second.child.id}, "both have answered once")
        second.mute = True
        while not second.child.ended:
            assert passed <= 2 * hang
            passed += hang / 4
            group.wait_over()
            eventually(lambda: first.child.id not in watch._open, "the other one answers")
        assert second.child.process is not None
        assert second.child.process.wait(LIMIT) == -9
        again = group.next()
        assert again.number == second.number
        again.serves()
        eventually(lambda: again.child.phase is ChildPhase.SERVING, "it serves")
        assert first.child.phase is ChildPhase.SERVING
