"""The checks that the loop makes at intervals."""

from __future__ import annotations

import time

from inferd.server.transport.completion_queue.periodic_checks import INTERVAL, PeriodicChecks


def test_checks_run_once_in_an_interval() -> None:
    now, seen = [100.0], []
    checks = PeriodicChecks((seen.append,), clock=lambda: now[0])
    checks.run()
    checks.run()
    assert seen == [100.0]
    assert checks.until - time.time() <= INTERVAL
    now[0] += INTERVAL
    checks.run()
    assert seen == [100.0, 100.0 + INTERVAL]


def test_a_check_may_ask_to_be_called_earlier() -> None:
    now, seen = [100.0], []

    def check(moment: float) -> float:
        seen.append(moment)
        return INTERVAL / 5

    checks = PeriodicChecks((check,), clock=lambda: now[0])
    checks.run()
    now[0] += INTERVAL / 5
    checks.run()
    assert len(seen) == 2
