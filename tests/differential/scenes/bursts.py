"""Bursts: many valid and invalid calls at once over one connection, of every protocol, form and caller. The response to
each does not depend on which of them are handled together. The batches do, so they are not compared here."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from differential.requests import INFER, PREDICT, STREAM, TFS, native, oip, oip_infer, oip_json, rows, tfs, tfs_predict
from differential.scene import Notes
from differential.scenes import access
from differential.scenes import native as natives
from differential.scenes import oip as oips
from differential.scenes import tfs as tfss

from inferd.v1 import predict_service_pb2 as native_predict

ROUNDS = 16
AT_ONCE = 64
_CALLERS = ("all", "all", "all", "predict", "rows", "nobody", "expired")
_CULPRITS = ("refuses", "breaks", "raises", "output missing", "leaves")
# Their responses depend on the batch (rounding) or on the number of calls before.
_LEFT_OUT = ("digits", "count", "split in four", "split")


def _pool() -> list[tuple[str, str, Any, Any]]:
    """Name, method, request, answer."""
    found: list[tuple[str, str, Any, Any]] = []
    for protocol, method, answer, module in (
        ("native", PREDICT, native_predict.PredictResponse, natives),
        ("oip", INFER, oip_infer.ModelInferResponse, oips),
        ("tfs", f"{TFS}Predict", tfs_predict.PredictResponse, tfss),
    ):
        for name, request in {**module.good(), **module.bad()}.items():
            if not any(part in name for part in _LEFT_OUT):
                found.append((f"{protocol} {name}", method, request, answer))
    return found


def _likely(chance: random.Random) -> tuple[str, str, Any, Any]:
    """A request whose form is shared by many others, or shared but for its outputs. Some make their batch fail."""
    mark = natives.MARKS[chance.choice(_CULPRITS)] if chance.random() < 0.08 else chance.randrange(1000)
    x = {"x": rows(*([chance.randrange(1000)] * chance.randrange(3)), mark)}
    model = chance.choice(("rows", "rows", "rows", "proven", "optional"))
    outputs = [["y"]] if model == "optional" else [[], [], ["y"], ["y", "z"]]
    wanted = chance.choice(outputs)
    kind = chance.randrange(3)
    if kind == 0:
        request: Any = native(
            model, x, outputs=wanted, request_id=str(chance.randrange(99)) if chance.random() < 0.5 else ""
        )
        return f"native {model}", PREDICT, request, native_predict.PredictResponse
    if kind == 1:
        return f"oip {model}", INFER, oip(model, x, outputs=wanted), oip_infer.ModelInferResponse
    return f"tfs {model}", f"{TFS}Predict", tfs(model, x, outputs=wanted), tfs_predict.PredictResponse


def play(notes: Notes) -> None:
    """In each round all calls are started before the first response is read."""
    side = notes.side
    pool = _pool()
    callers = access.callers()
    with ThreadPoolExecutor(4) as threads:
        for number in range(ROUNDS):
            chance = random.Random(number)
            begun = []
            rest = []
            for i in range(AT_ONCE):
                name, method, request, answer = _likely(chance) if chance.random() < 0.75 else chance.choice(pool)
                caller = chance.choice(_CALLERS)
                case = f"{number}.{i}: {name} by {caller}"
                begun.append((case, side.begin(method, request, callers[caller]), answer))
                if i % 16 == 0:
                    body = oip_json({"x": rows(chance.randrange(1000))})
                    headers = dict(callers[caller])
                    asked = threads.submit(side.rest, "POST", "/v2/models/rows/infer", body, headers)
                    rest.append((f"{number}.{i}: rest by {caller}", asked))
            for case, call, answer in begun:
                notes.see(case, side.outcome(call, answer))
            for case, asked in rest:
                notes.see(case, asked.result())
    chance = random.Random("stream")
    for number in range(4):
        requests = []
        for i in range(60):
            mark = natives.MARKS[chance.choice(_CULPRITS)] if chance.random() < 0.08 else i
            requests.append(native(chance.choice(("rows", "proven")), {"x": rows(mark)}, request_id=f"{i:02}"))
        answer = side.stream(STREAM, requests, native_predict.PredictStreamResponse, callers["all"])
        answer["answers"].sort(key=lambda each: each["request_id"])
        notes.see(f"stream {number}", answer)
