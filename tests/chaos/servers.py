"""Scenarios with the whole server: it is terminated, killed and started again, and its wall clock jumps."""

from __future__ import annotations

import signal
from typing import ClassVar

import numpy as np
from chaos.scenario import PATIENT, UNAVAILABLE, Scenario
from chaos.stage import Setup, Stage

_ERRORS = {"stream": UNAVAILABLE, "oip": UNAVAILABLE, "rest": UNAVAILABLE}
_DAY = 24 * 3600


class ServerTerminated(Scenario):
    name = "server-terminated"
    fault = "SIGTERM to the only server, which is started again at once"
    promise = (
        "accepted requests are answered, and it ends with 0; a client with enough retries loses no request; gRPC's core"
        " may end calls that arrive at the last moment with CANCELLED"
    )
    retry = PATIENT
    # inferd's own client reports a CANCELLED that it has not caused as UNAVAILABLE.
    may_fail: ClassVar = {**_ERRORS, "oip": _ERRORS["oip"] | {"CANCELLED"}}

    def strike(self, stage: Stage) -> None:
        stage.signal(signal.SIGTERM, expect=0)
        stage.start()


class ServerKilled(Scenario):
    name = "server-killed"
    fault = "SIGKILL of the only server, which is started again at once on the same repository"
    promise = "a client with enough retries loses no request; others get UNAVAILABLE; operators' overrides are kept"
    setup = Setup(sets=("server.state_dir={disk}/state",))
    retry = PATIENT
    may_fail: ClassVar = _ERRORS

    def strike(self, stage: Stage) -> None:
        with stage.client() as client:
            assert client.set_label("m", "stable", 1).persistent
            stage.signal(signal.SIGKILL, expect=-signal.SIGKILL)
            stage.start()
        with stage.client() as client:
            assert client.status("m").labels == {"stable": 1}, "an operator's override survives the restart"
            answer = client.predict("m", {"x": np.zeros((1, 4), np.float32)}, label="stable")
            assert answer.version == 1


class ClockJumps(Scenario):
    name = "clock-jumps"
    fault = "the server's wall clock jumps: a day forward, a day back, ten years forward, to 1970, and to the real time"
    promise = "no effect: deadlines, settle times and back-offs use the monotonic clock; new versions are loaded"
    setup = Setup(clock=True)

    def strike(self, stage: Stage) -> None:
        with stage.client() as client:
            newest = client.status("m").available[0]
        for i, seconds in enumerate((_DAY, -_DAY, 10 * 365 * _DAY, -50 * 365 * _DAY, 0)):
            stage.shift_clock(seconds)
            stage.more(100)
            stage.notes["jumps"] += 1
            if i % 2:
                newest += 1
                stage.publish("m", newest)
                stage.available("m", newest)
        stage.more(50)


SCENARIOS = (ServerTerminated, ServerKilled, ClockJumps)
