"""Replays the recorded calls of unmodified clients (record.py), byte for byte."""

from __future__ import annotations

import base64
import json

from differential.methods import STREAMS, answer_of
from differential.record import RECORDED
from differential.scene import Notes


def play(notes: Notes) -> None:
    """Every call in the recorded order. On a stream, each message waits for the response to the one before."""
    side = notes.side
    for i, call in enumerate(json.loads(RECORDED.read_text())):
        if "http" in call:
            method, path, headers, body = call["http"]
            case = f"{i}: {call['client']} {method} {path}"
            notes.see(case, side.rest(method, path, base64.b64decode(body) or None, headers))
            continue
        method, metadata, messages = call["grpc"]
        metadata = [tuple(pair) for pair in metadata]
        data = [base64.b64decode(message) for message in messages]
        case = f"{i}: {call['client']} {method}"
        kind = answer_of(method)
        if method.rpartition("/")[2] not in STREAMS:
            notes.see(case, side.ask(method, data[0], kind, metadata))
            continue
        talk = side.talk(method, kind, metadata)
        for j, message in enumerate(data):
            talk.send(message)
            notes.see(f"{case}: {j}", talk.read())
        notes.see(f"{case}: end", talk.end())
