"""The server itself is told to end, is killed, is started again, and sees its wall clock jump."""

from __future__ import annotations

import signal
from typing import ClassVar

import numpy as np
from chaos.scenario import PATIENT, UNAVAILABLE, Scenario
from chaos.stage import Setup, Stage

_TOLD = {"stream": UNAVAILABLE, "oip": UNAVAILABLE, "rest": UNAVAILABLE}
_DAY = 24 * 3600


class ServerTerminated(Scenario):
    name = "server-terminated"
    fault = "SIGTERM to the only server, which is started again at once"
    promise = (
        "what was accepted is answered, it ends with 0; a client that repeats patiently loses no request; gRPC's core"
        " may end what reaches it in its last moment with CANCELLED"
    )
    retry = PATIENT
    # Our own client takes a CANCELLED that it did not ask for as UNAVAILABLE.
    may_fail: ClassVar = {**_TOLD, "oip": _TOLD["oip"] | {"CANCELLED"}}

    def strike(self, stage: Stage) -> None:
        stage.signal(signal.SIGTERM, expect=0)
        stage.start()


class ServerKilled(Scenario):
    name = "server-killed"
    fault = "SIGKILL of the only server, which is started again at once on the same repository"
    promise = "a client that repeats patiently loses no request; who does not is told UNAVAILABLE; wishes are kept"
    setup = Setup(sets=("server.state_dir={disk}/state",))
    retry = PATIENT
    may_fail: ClassVar = _TOLD

    def strike(self, stage: Stage) -> None:
        with stage.client() as client:
            assert client.set_label("m", "stable", 1).persistent
            stage.signal(signal.SIGKILL, expect=-signal.SIGKILL)
            stage.start()
        with stage.client() as client:
            assert client.status("m").labels == {"stable": 1}, "an operator's wish outlives the server"
            answer = client.predict("m", {"x": np.zeros((1, 4), np.float32)}, label="stable")
            assert answer.version == 1


class ClockJumps(Scenario):
    name = "clock-jumps"
    fault = "the server's wall clock jumps: a day on, a day back, ten years on, to 1970, and home"
    promise = "nobody notices: deadlines, settling and back-offs go by the monotonic clock; new versions are loaded"
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
