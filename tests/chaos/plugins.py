"""Scenarios with a faulty backend plug-in: it raises, exits, returns nonsense, crashes, hangs or leaks on request."""

from __future__ import annotations

from typing import ClassVar

from chaos.scenario import ANY, UNAVAILABLE, Scenario, checked_code
from chaos.stage import LIMIT, Setup, Stage
from support.faulty import Fault, ask_for
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, InferdError

_FAULTY = Setup(faulty=True)


def _provoke(stage: Stage, model: str, *faults: Fault) -> None:
    """Sends one request for each fault, and counts its status code. The error's text must be fit for callers."""
    with Client(stage.grpc, retry=NO_RETRIES, timeout=30.0) as client:
        for fault in faults:
            try:
                client.predict(model, ask_for(fault))
            except InferdError as error:
                stage.notes[f"{fault.name}: {checked_code(error)}"] += 1
            else:
                stage.notes[f"{fault.name}: answered"] += 1


class PluginThrows(Scenario):
    name = "plugin-throws"
    fault = "a plug-in in the server's process raises an unexpected exception, and calls sys.exit"
    promise = "only the request that causes it fails (INTERNAL); the others of its batch are answered"
    model = "loose"
    setup = _FAULTY

    def strike(self, stage: Stage) -> None:
        _provoke(stage, "loose", *[Fault.RAISE, Fault.LEAVE] * 10)


class PluginWrongShapes(Scenario):
    name = "plugin-wrong-shapes"
    fault = "a plug-in returns too many rows, other outputs, or nothing at all"
    promise = "only the request that causes it fails (INTERNAL); the others of its batch are run again and answered"
    model = "loose"
    setup = _FAULTY

    def strike(self, stage: Stage) -> None:
        _provoke(stage, "loose", *[Fault.MISSING, Fault.NOTHING, Fault.ROWS] * 7)


class _Ends(Scenario):
    model = "shaky"
    setup = _FAULTY
    may_fail: ClassVar = {ANY: UNAVAILABLE}
    provoked: ClassVar[Fault]
    times: ClassVar[int] = 1

    def strike(self, stage: Stage) -> None:
        before = eventually(lambda: stage.worker("shaky"), "shaky has a worker", stage.tail, LIMIT)

        def ended() -> bool:
            if stage.worker("shaky") == before:
                _provoke(stage, "shaky", *[self.provoked] * self.times)
            return stage.worker("shaky") not in (None, before)

        eventually(ended, f"{self.provoked.name} ends the worker and there is another", stage.tail, LIMIT)
        stage.available("shaky", 1)


class PluginCrashes(_Ends):
    name = "plugin-crashes"
    fault = "an isolated plug-in reads address 0 (SIGSEGV)"
    promise = "calls in its process fail with UNAVAILABLE; it is started again; other models are not affected"
    provoked = Fault.CRASH


class PluginHangs(_Ends):
    name = "plugin-hangs"
    fault = "an isolated plug-in never returns"
    promise = "after `worker.hang` (here 2 s) its process is killed and started again; otherwise as plugin-crashes"
    provoked = Fault.HANG


class PluginLeaks(_Ends):
    name = "plugin-leaks"
    fault = "an isolated plug-in keeps 32 MiB of each request that asks for it"
    promise = "above `worker.memory` (here 500 MiB) its process is ended and started again; the server does not grow"
    provoked = Fault.LEAK
    times = 10


SCENARIOS = (PluginThrows, PluginWrongShapes, PluginCrashes, PluginHangs, PluginLeaks)
