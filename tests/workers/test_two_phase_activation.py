"""When a version may serve with several workers. Without processes; the test moves the clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from inferd.server.workers.two_phase_activation import TwoPhaseActivation


@dataclass
class Setup:
    """A TwoPhaseActivation with a clock that the test moves. Collects the decisions."""

    now: float = 0.0
    decisions: list[tuple[int, str, str]] = field(default_factory=list)
    late: list[tuple[str, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.activation = TwoPhaseActivation(
            lambda *decision: self.decisions.append(decision),
            lambda *late: self.late.append(late),
            name_of="worker {}".format,
            patience=60,
            clock=lambda: self.now,
        )

    def decided(self) -> list[tuple[int, str, str]]:
        """The decisions since the last call."""
        decisions, self.decisions = self.decisions, []
        return decisions


def two() -> Setup:
    setup = Setup()
    setup.activation.join(1)
    setup.activation.join(2)
    return setup


def serving(key: str = "k1") -> Setup:
    setup = two()
    setup.activation.loaded(1, key, "m:1")
    setup.activation.loaded(2, key, "m:1")
    assert setup.decided() == [(1, key, ""), (2, key, "")]
    return setup


def test_all_switch_when_the_last_one_has_loaded() -> None:
    setup = two()
    setup.activation.loaded(1, "k", "m:2")
    assert setup.decided() == []
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == [(1, "k", ""), (2, "k", "")]
    assert setup.activation.due is None


def test_what_failed_before_does_not_count_when_an_operator_loads_the_model() -> None:
    setup = two()
    for worker in (1, 2):
        setup.activation.failed(worker, "k", "m:2", "held back")
    setup.activation.failed(1, "o", "other:2", "no memory")
    setup.activation.try_again("m")
    setup.activation.loaded(1, "k", "m:2")
    assert setup.decided() == [], "it waits for the other worker"
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == [(1, "k", ""), (2, "k", "")]
    setup.activation.loaded(2, "o", "other:2")
    assert setup.decided() == [(2, "o", "worker 1 could not load it: no memory")]


def test_a_failure_in_one_worker_fails_all_until_that_worker_has_loaded_it() -> None:
    setup = two()
    setup.activation.loaded(1, "k", "m:2")
    setup.activation.failed(2, "k", "m:2", "no memory")
    assert setup.decided() == [(1, "k", "worker 2 could not load it: no memory")]
    setup.activation.loaded(1, "k", "m:2")
    assert setup.decided() == [(1, "k", "worker 2 could not load it: no memory")]
    setup.activation.loaded(2, "k", "m:2")
    setup.activation.loaded(1, "k", "m:2")
    assert setup.decided() == [(2, "k", ""), (1, "k", "")]


def test_a_failure_before_any_load_counts() -> None:
    setup = two()
    setup.activation.failed(1, "k", "m:2", "broken")
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == [(2, "k", "worker 1 could not load it: broken")]


def test_a_failure_with_other_content_is_forgotten() -> None:
    setup = two()
    setup.activation.failed(2, "k", "m:2", "half copied")
    setup.activation.failed(2, "l", "m:2", "half copied")
    setup.activation.loaded(1, "k", "m:2")
    assert setup.decided() == [], "worker 2 failed with content that is no longer on disk"


def test_a_silent_worker_is_waited_for_until_patience_ends() -> None:
    setup = two()
    setup.activation.loaded(1, "k", "m:2")
    setup.now = 59.9
    setup.activation.tick()
    assert setup.decided() == []
    assert setup.activation.due == 60
    setup.now = 60.0
    setup.activation.tick()
    assert (setup.decided(), setup.late) == ([(1, "k", "")], [("m:2", [2])])
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == [(2, "k", "")], "the late worker follows at once"


def test_a_worker_that_is_gone_is_not_waited_for() -> None:
    setup = two()
    setup.activation.loaded(1, "k", "m:2")
    setup.activation.leave(2)
    assert setup.decided() == [(1, "k", "")]


def test_a_starting_worker_serves_what_the_members_serve_and_waits_for_the_rest() -> None:
    setup = serving()
    setup.activation.loaded(3, "k1", "m:1")
    assert setup.decided() == [(3, "k1", "")]
    setup.activation.loaded(3, "k2", "m:2")
    assert setup.decided() == []
    setup.activation.loaded(1, "k2", "m:2")
    setup.activation.loaded(2, "k2", "m:2")
    assert set(setup.decided()) == {(1, "k2", ""), (2, "k2", ""), (3, "k2", "")}


def test_a_failure_in_a_starting_worker_does_not_stop_the_members() -> None:
    setup = two()
    setup.activation.failed(3, "k", "m:2", "its own trouble")
    setup.activation.loaded(1, "k", "m:2")
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == [(1, "k", ""), (2, "k", "")]


def test_a_reload_serves_at_once_unless_all_workers_had_unloaded_the_version() -> None:
    setup = serving()
    setup.activation.loaded(1, "k1", "m:1")
    assert setup.decided() == [(1, "k1", "")], "the other worker serves it"
    setup.activation.ended(1, "m:1")
    setup.activation.ended(2, "m:1")
    setup.activation.loaded(1, "k1", "m:1")
    assert setup.decided() == []
    setup.activation.loaded(2, "k1", "m:1")
    assert setup.decided() == [(1, "k1", ""), (2, "k1", "")]


def test_a_withdrawn_version_is_not_decided() -> None:
    setup = two()
    setup.activation.loaded(1, "k", "m:2")
    setup.activation.withdrawn(1, "k")
    assert setup.activation.due is None
    setup.activation.loaded(2, "k", "m:2")
    assert setup.decided() == []
