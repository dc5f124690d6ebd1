"""The queue and the batches: a gated model is held while requests queue up.

`Held` starts calls one by one and waits until each is in the queue. Then the model is released, and the journal of the
gate shows which rows shared a run, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from differential.requests import (
    INFER,
    INFER_STREAM,
    PREDICT,
    STREAM,
    TFS,
    native,
    native_predict,
    oip,
    oip_infer,
    oip_json,
    rows,
    tfs,
    tfs_predict,
)
from differential.scene import Notes
from differential.scenes.native import MARKS
from differential.side import Pairs, Side

NATIVE, OIP, TFS_ANSWER = native_predict.PredictResponse, oip_infer.ModelInferResponse, tfs_predict.PredictResponse


class Held:
    """Requests to a gated model that is held in its first run. A context manager: at its end the model is released,
    and all responses and the journal are noted."""

    def __init__(self, notes: Notes, case: str, model: str, *, open_at_end: bool = True) -> None:
        self.notes, self.case, self.model = notes, case, model
        self.side: Side = notes.side
        self._open = open_at_end
        self._ends: dict[str, Callable[[], Any]] = {}
        self._pool = ThreadPoolExecutor(8)
        self.queued = 0

    def __enter__(self) -> Held:
        self.side.gates.close(self.model)
        self.native("first", rows(100), wait=False)
        self.side.gates.held(self.model)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            if self._open:
                self.side.gates.open(self.model)
            for name, end in self._ends.items():
                self.notes.see(f"{self.case}: {name}", end())
            self.notes.see(f"{self.case}: runs", self.side.gates.journal(self.model))
        self.side.gates.open(self.model)
        self._pool.shutdown()

    def native(self, name: str, x: Any, *, wait: bool = True, **more: Any) -> Any:
        """Over our own protocol. Gives the call."""
        call = self.side.begin(PREDICT, native(self.model, {"x": x}, **more))
        self._ends[name] = lambda: self.side.outcome(call, NATIVE)
        self._wait(wait)
        return call

    def oip(self, name: str, x: Any, *, wait: bool = True, **more: Any) -> Any:
        """Over the Open Inference Protocol."""
        call = self.side.begin(INFER, oip(self.model, {"x": x}, **more))
        self._ends[name] = lambda: self.side.outcome(call, OIP)
        self._wait(wait)
        return call

    def tfs(self, name: str, x: Any, *, wait: bool = True, metadata: Pairs = (), **more: Any) -> Any:
        """Over TensorFlow Serving's."""
        call = self.side.begin(f"{TFS}Predict", tfs(self.model, {"x": x}, **more), metadata)
        self._ends[name] = lambda: self.side.outcome(call, TFS_ANSWER)
        self._wait(wait)
        return call

    def rest(self, name: str, x: Any, *, wait: bool = True, **more: Any) -> Future[Any]:
        """Over HTTP."""
        path = f"/v2/models/{self.model}/infer"
        asked = self._pool.submit(self.side.rest, "POST", path, oip_json({"x": x}, **more))
        self._ends[name] = asked.result
        self._wait(wait)
        return asked

    def _wait(self, wait: bool) -> None:
        if wait:
            self.queued += 1
            self.side.waiting(self.model, self.queued)


def play(notes: Notes) -> None:
    """All cases with held models."""
    _protocols(notes)
    _priorities(notes)
    _culprits(notes)
    _full(notes)
    _expired(notes)
    _cancelled(notes)
    _buckets(notes)
    _split(notes)
    _ensembles(notes)
    _streams(notes)


def _protocols(notes: Notes) -> None:
    for model in ("gated", "single"):
        with Held(notes, f"protocols, {model}", model) as held:
            held.native("native", rows(1))
            held.oip("oip", rows(2, 3))
            held.tfs("tfs", rows(4))
            held.rest("rest", rows(5))
            held.native("one output", rows(6), outputs=["y"])
            held.oip("other order", rows(7), outputs=["y", "z"])
            held.oip("typed", rows(8), raw=False)
            held.rest("binary", rows(9), parameters={"binary_data_output": True})
            held.native("no rows", np.zeros((0, 4), np.float32))
            held.native("wide", rows(*range(20, 27)))
            held.native("last", rows(10))


def _priorities(notes: Notes) -> None:
    for model in ("gated", "single"):
        with Held(notes, f"priorities, {model}", model) as held:
            # Far apart, because priorities age: a second of waiting counts as much as one step of priority.
            for i, priority in enumerate((300, 100, 200, 0, 300, 100, 1000, 200)):
                held.native(f"{i} of priority {priority}", rows(i), priority=priority)
            held.oip("oip 100", rows(8), parameters={"priority": 100})
            held.oip("oip 200", rows(9), parameters={"priority": 200})
            held.tfs("tfs 200", rows(10), metadata=[("inferd-priority", "200")])
            held.rest("rest 100", rows(11), parameters={"priority": 100})


def _culprits(notes: Notes) -> None:
    for name, mark in MARKS.items():
        with Held(notes, f"culprit {name}", "gated") as held:
            held.native("innocent 1", rows(1, 2))
            held.oip("culprit", rows(3, mark))
            held.tfs("innocent 2", rows(4))
            held.rest("innocent 3", rows(5))
    with Held(notes, "two culprits", "gated") as held:
        held.native("one", rows(MARKS["breaks"]))
        held.native("innocent", rows(1))
        held.rest("other", rows(MARKS["refuses"]))
    with Held(notes, "all culprits", "gated") as held:
        for i in range(4):
            held.native(f"culprit {i}", rows(MARKS["raises"], i))


def _full(notes: Notes) -> None:
    with Held(notes, "full", "bounded") as held:
        for i in range(6):
            held.native(f"taken {i}", rows(i))
        for i in range(2):
            held.native(f"refused {i}", rows(10), wait=False).exception()
            held.oip(f"refused {i}, oip", rows(11), wait=False).exception()
            held.tfs(f"refused {i}, tfs", rows(12), wait=False).exception()
            held.rest(f"refused {i}, rest", rows(13), wait=False).result()
        held.native("refused, high priority", rows(14), wait=False, priority=1).exception()


def _expired(notes: Notes) -> None:
    for model in ("gated", "single"):
        with Held(notes, f"expired, {model}", model) as held:
            held.native("patient", rows(1))
            # Do not wait until these are in the queue: they may have left it by then.
            late = [
                held.native("queue timeout", rows(2), wait=False, queue_timeout_us=50_000),
                held.oip("oip timeout", rows(3), wait=False, parameters={"timeout": 50_000}),
                held.native("a microsecond", rows(5), wait=False, queue_timeout_us=1),
                held.oip("oip, a microsecond", rows(6), wait=False, parameters={"timeout": 1}),
            ]
            held.rest("rest timeout", rows(4), wait=False, parameters={"timeout": 50_000}).result()
            for call in late:
                call.exception()
            held.side.waiting(model, 1)


def _cancelled(notes: Notes) -> None:
    with Held(notes, "cancelled", "gated") as held:
        held.native("before", rows(1))
        gone = [held.native("cancelled", rows(2)), held.oip("cancelled, oip", rows(3))]
        held.native("after", rows(4))
        for call in gone:
            call.cancel()
        held.side.waiting("gated", 2)
    with Held(notes, "cancelled in the run", "gated") as held:
        call = held.native("in the run", rows(2))
        held.native("beside it", rows(3))
        held.side.gates.release("gated")
        held.side.gates.held("gated")
        ended = held.side.answered("gated", "CANCELLED")
        call.cancel()
        held.side.until(lambda: held.side.answered("gated", "CANCELLED") > ended, "the server notices the cancel")


def _buckets(notes: Notes) -> None:
    with Held(notes, "buckets", "ragged") as held:
        for i, width in enumerate((4, 4, 3, 4, 3, 5, 3, 4)):
            held.native(f"{i} of width {width}", np.full((1, width), i, np.float32))
        held.oip("oip of width 3", np.full((2, 3), 9, np.float32))
    with Held(notes, "outputs", "gated") as held:
        for i, outputs in enumerate((["y"], ["z"], [], ["y", "z"], ["y"])):
            held.native(f"{i} of {outputs}", rows(i), outputs=outputs)


def _split(notes: Notes) -> None:
    with Held(notes, "split", "split") as held:
        held.native("large", rows(*range(20)))
        held.native("small", rows(50))
        held.native("cut off", rows(51, 52, 53))
    with Held(notes, "split, culprit", "split") as held:
        held.native("large", rows(1, 2, 3, 4, 5, 6, 7, 8, 9, MARKS["breaks"], 11, 12))
        held.native("small", rows(50))


def _ensembles(notes: Notes) -> None:
    side = notes.side
    side.gates.close("gated")
    calls = [side.begin(PREDICT, native("gated_chain", {"x": rows(i)})) for i in range(1)]
    side.gates.held("gated")
    for i in range(1, 4):
        calls.append(side.begin(PREDICT, native("gated_chain", {"x": rows(i)})))
        side.waiting("gated", i)
    side.gates.open("gated")
    for i, call in enumerate(calls):
        notes.see(f"ensemble: {i}", side.outcome(call, NATIVE))
    notes.see("ensemble: runs", side.gates.journal("gated"))


def _streams(notes: Notes) -> None:
    side = notes.side
    side.gates.close("gated")
    ordered = side.talk(INFER_STREAM, oip_infer.ModelStreamInferResponse)
    ready = side.talk(STREAM, native_predict.PredictStreamResponse)
    ordered.send(oip("gated", {"x": rows(0)}, id="0"))
    side.gates.held("gated")
    for i in range(1, 4):
        ordered.send(oip("gated", {"x": rows(i)}, id=str(i)))
        side.waiting("gated", i)
    ordered.send(oip("rows", {"x": rows(9)}, id="quick"))
    ordered.send(oip("nobody", {"x": rows(9)}, id="wrong"))
    ready.send(native("gated", {"x": rows(4)}, request_id="slow"))
    side.waiting("gated", 4)
    for i in range(3):
        ready.send(native("rows", {"x": rows(i)}, request_id=f"quick {i}"))
        notes.see(f"streams: native {i}", ready.read())
    side.gates.open("gated")
    notes.see("streams: native end", ready.end())
    notes.see("streams: oip", ordered.end())
    notes.see("streams: runs", side.gates.journal("gated"))
    side.gates.close("gated")
    broken = side.talk(STREAM, native_predict.PredictStreamResponse)
    broken.send(native("gated", {"x": rows(0)}, request_id="0"))
    side.gates.held("gated")
    for i in range(1, 4):
        broken.send(native("gated", {"x": rows(i)}, request_id=str(i)))
        side.waiting("gated", i)
    broken.cancel()
    side.waiting("gated", 0)
    side.gates.open("gated")
    notes.see("streams: runs of a stream broken off", side.gates.journal("gated"))
