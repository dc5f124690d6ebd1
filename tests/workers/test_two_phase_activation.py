"""When a version may serve in a group: decided in steps, without processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from inferd.server.workers.two_phase_activation import TwoPhaseActivation


@dataclass
class Table:
    """An agreement with a clock that is moved by hand, and what it has decided since the last look."""

    now: float = 0.0
    told: list[tuple[int, str, str]] = field(default_factory=list)
    late: list[tuple[str, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agreement = TwoPhaseActivation(
            lambda *decision: self.told.append(decision),
            lambda *late: self.late.append(late),
            named="worker {}".format,
            patience=60,
            clock=lambda: self.now,
        )

    def decided(self) -> list[tuple[int, str, str]]:
        told, self.told = self.told, []
        return told


def two() -> Table:
    table = Table()
    table.agreement.join(1)
    table.agreement.join(2)
    return table


def serving(key: str = "k1") -> Table:
    table = two()
    table.agreement.loaded(1, key, "m:1")
    table.agreement.loaded(2, key, "m:1")
    assert table.decided() == [(1, key, ""), (2, key, "")]
    return table


def test_all_switch_when_the_last_one_has_loaded() -> None:
    table = two()
    table.agreement.loaded(1, "k", "m:2")
    assert table.decided() == []
    table.agreement.loaded(2, "k", "m:2")
    assert table.decided() == [(1, "k", ""), (2, "k", "")]
    assert table.agreement.due is None


def test_a_failure_of_one_is_a_failure_for_all_until_it_has_loaded_it() -> None:
    table = two()
    table.agreement.loaded(1, "k", "m:2")
    table.agreement.failed(2, "k", "m:2", "no memory")
    assert table.decided() == [(1, "k", "worker 2 could not load it: no memory")]
    table.agreement.loaded(1, "k", "m:2")
    assert table.decided() == [(1, "k", "worker 2 could not load it: no memory")]
    table.agreement.loaded(2, "k", "m:2")
    table.agreement.loaded(1, "k", "m:2")
    assert table.decided() == [(2, "k", ""), (1, "k", "")]


def test_a_failure_that_comes_first_counts_as_well() -> None:
    table = two()
    table.agreement.failed(1, "k", "m:2", "broken")
    table.agreement.loaded(2, "k", "m:2")
    assert table.decided() == [(2, "k", "worker 1 could not load it: broken")]


def test_other_content_starts_anew() -> None:
    table = two()
    table.agreement.failed(2, "k", "m:2", "half copied")
    table.agreement.failed(2, "l", "m:2", "half copied")
    table.agreement.loaded(1, "k", "m:2")
    assert table.decided() == [], "what worker 2 could not load before is not there any more"


def test_a_silent_worker_is_waited_for_and_then_not() -> None:
    table = two()
    table.agreement.loaded(1, "k", "m:2")
    table.now = 59.9
    table.agreement.tick()
    assert table.decided() == []
    assert table.agreement.due == 60
    table.now = 60.0
    table.agreement.tick()
    assert (table.decided(), table.late) == ([(1, "k", "")], [("m:2", [2])])
    table.agreement.loaded(2, "k", "m:2")
    assert table.decided() == [(2, "k", "")], "the late one follows at once"


def test_who_is_gone_is_not_waited_for() -> None:
    table = two()
    table.agreement.loaded(1, "k", "m:2")
    table.agreement.leave(2)
    assert table.decided() == [(1, "k", "")]


def test_who_starts_beside_others_takes_what_they_serve_and_waits_for_what_they_do_not() -> None:
    table = serving()
    table.agreement.loaded(3, "k1", "m:1")
    assert table.decided() == [(3, "k1", "")]
    table.agreement.loaded(3, "k2", "m:2")
    assert table.decided() == []
    table.agreement.loaded(1, "k2", "m:2")
    table.agreement.loaded(2, "k2", "m:2")
    assert set(table.decided()) == {(1, "k2", ""), (2, "k2", ""), (3, "k2", "")}


def test_who_starts_beside_others_cannot_refuse_for_them() -> None:
    table = two()
    table.agreement.failed(3, "k", "m:2", "its own trouble")
    table.agreement.loaded(1, "k", "m:2")
    table.agreement.loaded(2, "k", "m:2")
    assert table.decided() == [(1, "k", ""), (2, "k", "")]


def test_what_is_loaded_again_alone_serves_at_once_and_after_an_end_only_together() -> None:
    table = serving()
    table.agreement.loaded(1, "k1", "m:1")
    assert table.decided() == [(1, "k1", "")], "the other has it"
    table.agreement.ended(1, "m:1")
    table.agreement.ended(2, "m:1")
    table.agreement.loaded(1, "k1", "m:1")
    assert table.decided() == []
    table.agreement.loaded(2, "k1", "m:1")
    assert table.decided() == [(1, "k1", ""), (2, "k1", "")]


def test_what_is_taken_back_is_not_decided() -> None:
    table = two()
    table.agreement.loaded(1, "k", "m:2")
    table.agreement.withdrawn(1, "k")
    assert table.agreement.due is None
    table.agreement.loaded(2, "k", "m:2")
    assert table.decided() == []
