"""The supervisor keeps the operators' overrides, and a worker that is behind the others does not undo them."""

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


def kept(puppet: Puppet, operation: m.Operation, overrides: ModelOverrides) -> ModelOverrides:
    """Sends the overrides that a worker has computed. Returns those that count."""
    counting: ModelOverrides = puppet.asks(m.KeepOverrides(operation.number, "m", overrides)).result(LIMIT)
    return counting


def next_operation(puppet: Puppet) -> m.Operation:
    """Answers the next operation that the supervisor sends to the worker, and returns it."""
    operation, answer = puppet.hears_question(m.Operation)
    assert answer is not None
    answer(None)
    return operation


def begin(puppet: Puppet, version: int) -> Future[object]:
    future: Future[object] = puppet.asks(m.Operation("rollback", "m", "op", version))
    return future


def test_a_worker_late_with_a_finished_operation_gets_the_current_overrides(group: Stage) -> None:
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
    behind = next_operation(late)
    assert behind.version == 1
    assert kept(late, behind, pinned(1)) == pinned(2), "the second operation is over, and its result counts"
    assert group.supervisor._overrides.of("m") == pinned(2)


def test_a_worker_one_operation_behind_does_not_undo_the_next_one(group: Stage) -> None:
    first, second = group.both_serve()
    outcomes = [begin(first, 1), begin(first, 2)]
    for version in (1, 2):
        operation, answer = first.hears_question(m.Operation)
        assert kept(first, operation, pinned(version)) == pinned(version)
        assert answer is not None
        answer(None)
    for version in (1, 2):
        operation, answer = second.hears_question(m.Operation)
        assert kept(second, operation, pinned(version)) == pinned(version), "the first result of each operation"
        assert group.supervisor._overrides.of("m") == pinned(2)
        assert answer is not None
        answer(None)
    assert [outcome.result(LIMIT) for outcome in outcomes] == [None, None]


def test_an_answer_that_cannot_be_sent_becomes_an_error_for_the_asker(group: Stage) -> None:
    first, second = group.both_serve()
    done = begin(first, 1)
    for one in (first, second):
        _, answer = one.hears_question(m.Operation)
        assert answer is not None
        answer(lambda: None)  # cannot be pickled
    with pytest.raises(RuntimeError, match="pickle"):
        done.result(LIMIT)
    eventually(group.ready.is_set, "the supervisor goes on")
