"""Streams: PredictStream and ModelStreamInfer, message by message and all at once."""

from __future__ import annotations

from typing import Any

from differential.requests import INFER_STREAM, STREAM, native, native_predict, oip, oip_infer, rows
from differential.scene import Notes
from differential.scenes import native as natives
from differential.scenes import oip as oips

NATIVE = native_predict.PredictStreamResponse
OIP = oip_infer.ModelStreamInferResponse


def play(notes: Notes) -> None:
    """All unary requests as messages of one stream, each sent after the response to the one before. Then many messages
    at once to a model that is not batched."""
    side = notes.side
    talk = side.talk(STREAM, NATIVE, [("x-request-id", "of-the-stream")])
    for turn in ("first", "again"):
        for name, request in {**natives.good(), **natives.bad()}.items():
            request.request_id = request.request_id[:100] or name
            talk.send(request)
            notes.see(f"native: {name} ({turn})", talk.read())
        for name, mark in natives.MARKS.items():
            talk.send(native("rows", {"x": rows(1, mark)}, request_id=name))
            notes.see(f"native: marked: {name} ({turn})", talk.read())
    talk.send(b"\xff\xff")
    notes.see("native: garbage", talk.read())
    talk.send(native("rows", {"x": rows(1)}))
    notes.see("native: no id", talk.read())
    notes.see("native: end", talk.end())
    for turn in ("first", "again"):
        # A new stream for each group, in case a failure ends the stream.
        for group, requests in (("good", oips.good()), ("bad", oips.bad())):
            talk = side.talk(INFER_STREAM, OIP)
            for name, request in requests.items():
                request.id = name
                talk.send(request)
                notes.see(f"oip: {group}: {name} ({turn})", talk.read())
            notes.see(f"oip: {group}: end ({turn})", talk.end())
    talk = side.talk(INFER_STREAM, OIP)
    for name, mark in natives.MARKS.items():
        talk.send(oip("rows", {"x": rows(1, mark)}, id=name))
        notes.see(f"oip: marked: {name}", talk.read())
    talk.send(b"\xff\xff")
    notes.see("oip: garbage", talk.read())
    notes.see("oip: marked: end", talk.end())
    for name, parameters in _FINALS.items():
        request = oip("several", {"x": rows(1)}, id=name, parameters=parameters)
        notes.see(f"oip: {name}", side.stream(INFER_STREAM, [request, request], OIP))
    _many(notes)


_FINALS: dict[str, dict[str, Any]] = {
    "no final response": {"triton_enable_empty_final_response": False},
    "final response": {"triton_enable_empty_final_response": True},
    "final of a wrong kind": {"triton_enable_empty_final_response": 1},
}


def _many(notes: Notes) -> None:
    side = notes.side
    x = {"x": rows(3)}
    for method in (STREAM, INFER_STREAM):
        kind = NATIVE if method == STREAM else OIP
        notes.see(f"{method}: nothing", side.stream(method, [], kind))
        notes.see(f"{method}: garbage alone", side.stream(method, [b"\xff\xff"], kind))
        notes.see(f"{method}: empty message", side.stream(method, [b""], kind))
    ordered = [oip("scalar" if i % 7 == 3 else "several", x, id=str(i)) for i in range(150)]
    notes.see("oip: many", side.stream(INFER_STREAM, ordered, OIP))
    mixed = [native("scalar" if i % 7 == 3 else "several", x, request_id=str(i)) for i in range(150)]
    ready = side.stream(STREAM, mixed, NATIVE)
    # Native responses come in the order in which they are ready.
    ready["answers"].sort(key=lambda answer: answer["request_id"])
    notes.see("native: many", ready)
    unary = side.ask(STREAM, mixed[0], NATIVE)
    notes.see("native: called as unary", unary)
