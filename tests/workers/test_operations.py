"""Operators' wishes have one keeper, and a worker that is behind the others does not turn them back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from support.puppets import LIMIT, Puppet, Stage, stage
from support.waiting import eventually

from inferd.server.lifecycle.operations.overrides import ModelOverrides, Override
from inferd.server.workers import messages as m


def pinned(version: int) -> ModelOverrides:
    return ModelOverrides((Override("pinned", version, "op", 1.0),))


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(monkeypatch) as group:
        yield group


def kept(puppet: Puppet, operation: m.Operation, wishes: ModelOverrides) -> ModelOverrides:
    found: ModelOverrides = puppet.asks(m.Keep(operation.number, "m", wishes)).result(LIMIT)
    return found


def asked(puppet: Puppet) -> m.Operation:
    """The operation that it is asked for next; done at once."""
    operation, answer = puppet.hears_question(m.Operation)
    assert answer is not None
    answer(None)
    return operation


def begin(puppet: Puppet, version: int) -> Future[object]:
    future: Future[object] = puppet.asks(m.Operation("rollback", "m", "op", version))
    return future


def test_a_worker_that_comes_late_to_an_operation_keeps_what_came_of_it(group: Stage) -> None:
    first, second = group.both_serve()
    second.die()
    late = group.next()
    for version in (1, 2):
        done = begin(first, version)
        operation, answer = first.hears_question(m.Operation)
        assert kept(first, operation, pinned(version)) == pinned(version)
        assert answer is not None
        answer(None)
        assert done.result(LIMIT) is None
    behind = asked(late)
    assert behind.version == 1
    assert kept(late, behind, pinned(1)) == pinned(2), "the second operation is over"
    assert group.supervisor._overrides.of("m") == pinned(2)


def test_a_worker_that_is_one_operation_behind_does_not_turn_back_the_next(group: Stage) -> None:
    first, second = group.both_serve()
    outcomes = [begin(first, 1), begin(first, 2)]
    for version in (1, 2):
        operation, answer = first.hears_question(m.Operation)
        assert kept(first, operation, pinned(version)) == pinned(version)
        assert answer is not None
        answer(None)
    for version in (1, 2):
        operation, answer = second.hears_question(m.Operation)
        assert kept(second, operation, pinned(version)) == pinned(version), "what the others were led to, in order"
        assert group.supervisor._overrides.of("m") == pinned(2)
        assert answer is not None
        answer(None)
    assert [outcome.result(LIMIT) for outcome in outcomes] == [None, None]


def test_an_answer_that_cannot_be_sent_is_an_error_and_no_silence(group: Stage) -> None:
    first, second = group.both_serve()
    done = begin(first, 1)
    for one in (first, second):
        _, answer = one.hears_question(m.Operation)
        assert answer is not None
        answer(lambda: None)  # nothing that can be pickled
    with pytest.raises(RuntimeError, match="pickle"):
        done.result(LIMIT)
    eventually(group.ready.is_set, "the supervisor goes on")
