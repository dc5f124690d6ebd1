"""Generated requests: valid requests of every protocol with random changes to fields or bytes. The seed is fixed, so
both sides get the same requests. The name of a case is its number and the changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from differential.requests import INFER, PREDICT, TFS, oip_infer, oip_json, rows, tfs_predict
from differential.scene import Notes
from differential.scenes import native as natives
from differential.scenes import oip as oips
from differential.scenes import tfs as tfss
from google.protobuf.message import DecodeError, Message

from inferd.v1 import predict_service_pb2 as native_predict

COUNT = 500
_LONGEST = 1_000_000  # microseconds: a queue timeout below it might or might not pass
_NAMES = (
    "",
    "x",
    "y",
    "z",
    "in",
    "out",
    "rows",
    "several",
    "factor",
    "w",
    "serving_default",
    "other",
    "stable",
    "ä",
    "x" * 300,
)
_NUMBERS = (0, 1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 16, 99, -1, -2, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63))


def play(notes: Notes) -> None:
    """COUNT requests of each protocol."""
    side = notes.side
    for name, seed, method, kind, answer, requests in (
        ("native", 1, PREDICT, native_predict.PredictRequest, native_predict.PredictResponse, natives.good()),
        ("oip", 2, INFER, oip_infer.ModelInferRequest, oip_infer.ModelInferResponse, oips.good()),
        ("tfs", 3, f"{TFS}Predict", tfs_predict.PredictRequest, tfs_predict.PredictResponse, tfss.good()),
    ):
        # The stateful model would couple the cases, and large requests take long.
        chosen = [r for r in requests.values() if r.ByteSize() < 600 and b"counting" not in r.SerializeToString()]
        for i, (case, data) in enumerate(_changed(random.Random(seed), chosen, kind)):
            notes.see(f"{name} {i}: {case}", side.ask(method, data, answer))
    for i, (path, body) in enumerate(_bodies(random.Random(4))):
        notes.see(f"rest {i}: {path}", side.rest("POST", path, body, {"Content-Type": "application/json"}))


def _changed(chance: random.Random, requests: list[Any], kind: type[Message]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    while len(found) < COUNT:
        request = kind()
        request.CopyFrom(chance.choice(requests))
        told = [_change(chance, request) for _ in range(chance.choice((0, 1, 1, 1, 2, 3)))]
        data = request.SerializeToString(deterministic=True)
        if chance.random() < 0.3:
            data, how = _bytes(chance, data)
            told.append(how)
        if _harmless(kind, data):
            found.append((", ".join(told) or "as it is", data))
    return found


def _harmless(kind: type[Message], data: bytes) -> bool:
    """Whether the response cannot depend on time: no short timeout is set."""
    try:
        request: Any = kind.FromString(data)
    except DecodeError:
        return True
    if isinstance(request, native_predict.PredictRequest):
        return not 0 < request.queue_timeout_us < _LONGEST
    if isinstance(request, oip_infer.ModelInferRequest) and "timeout" in request.parameters:
        return request.parameters["timeout"].int64_param >= _LONGEST
    return True


def _change(chance: random.Random, message: Any) -> str:
    """Changes one field somewhere in the message. Gives a description of the change."""
    where = ""
    while True:
        fields = [field for field in message.DESCRIPTOR.fields if not _map(field)]
        if not fields:
            return f"{where} nothing"
        field = chance.choice(fields)
        where += f".{field.name}"
        value = getattr(message, field.name)
        if _is_repeated(field):
            if field.message_type is None:
                return where + _change_list(chance, field, value)
            if not value or chance.random() < 0.2:
                return where + _change_messages(chance, value)
            message = chance.choice(value)
        elif field.message_type is not None:
            if chance.random() < 0.1:
                message.ClearField(field.name)
                return f"{where} cleared"
            value.SetInParent()
            message = value
        else:
            try:
                setattr(message, field.name, _value(chance, field))
            except (ValueError, TypeError):
                message.ClearField(field.name)
            return f"{where} set"


def _change_list(chance: random.Random, field: Any, values: Any) -> str:
    kind = chance.choice(("cleared", "one more", "one less", "other order", "replaced"))
    try:
        if kind == "cleared":
            del values[:]
        elif kind == "one more":
            values.append(_value(chance, field))
        elif kind == "one less" and values:
            del values[chance.randrange(len(values))]
        elif kind == "other order":
            kept = list(values)
            chance.shuffle(kept)
            values[:] = kept
        elif values:
            values[chance.randrange(len(values))] = _value(chance, field)
    except (ValueError, TypeError):
        return " unchanged"
    return f" {kind}"


def _change_messages(chance: random.Random, values: Any) -> str:
    if values and chance.random() < 0.5:
        del values[chance.randrange(len(values))]
        return " one less"
    if values:
        values.append(chance.choice(values))
        return " one twice"
    values.add()
    return " an empty one"


def _value(chance: random.Random, field: Any) -> Any:
    kinds: dict[int, Callable[[], Any]] = {
        field.CPPTYPE_STRING: lambda: (
            chance.randbytes(chance.choice((0, 1, 4, 16, 32)))
            if field.type == field.TYPE_BYTES
            else chance.choice(_NAMES)
        ),
        field.CPPTYPE_BOOL: lambda: chance.random() < 0.5,
        field.CPPTYPE_DOUBLE: lambda: chance.choice((0.0, 1.5, -1.0, float("nan"), float("inf"), 1e300)),
        field.CPPTYPE_FLOAT: lambda: chance.choice((0.0, 1.5, -1.0, float("nan"), float("inf"))),
    }
    return kinds.get(field.cpp_type, lambda: chance.choice(_NUMBERS))()


def _map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == field.LABEL_REPEATED


def _bytes(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    at = chance.randrange(len(data) + 1)
    kind = chance.choice(("bit", "cut", "more", "less", "twice", "tail"))
    if kind == "bit" and at < len(data):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        return bytes(changed), f"bit at {at}"
    if kind == "cut":
        return data[:at], f"cut at {at}"
    if kind == "more":
        return data[:at] + chance.randbytes(3) + data[at:], f"more at {at}"
    if kind == "less":
        return data[:at] + data[at + 2 :], f"less at {at}"
    if kind == "twice":
        return data + data[at:], f"twice from {at}"
    return data + chance.randbytes(4), "tail"


def _bodies(chance: random.Random) -> list[tuple[str, str]]:
    x = rows(1, 2)
    bodies: list[tuple[str, Any]] = [
        ("/v2/models/rows/infer", json.loads(oip_json({"x": x}, id="i", outputs=[{"name": "y"}]))),
        ("/v2/models/scalar/infer", json.loads(oip_json({"x": x, "factor": np.array(3, np.int32)}))),
        ("/v2/models/several/infer", json.loads(oip_json({"inputs": np.array([b"one"], object)}))),
        ("/v1/models/rows:predict", {"instances": x.tolist()}),
        ("/v1/models/rows:predict", {"inputs": {"x": x.tolist()}, "signature_name": "serving_default"}),
        ("/v1/models/several:predict", {"instances": ["one", {"b64": "b25l"}], "signature_name": "classes"}),
        ("/v1/models/several:classify", {"examples": [{"inputs": "one"}], "signature_name": "classes"}),
    ]
    found = []
    for _ in range(COUNT):
        path, document = chance.choice(bodies)
        document = json.loads(json.dumps(document))
        for _ in range(chance.choice((0, 1, 1, 2))):
            document = _json(chance, document)
        text = json.dumps(document)
        if chance.random() < 0.2:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(("", ",", "}", '"', "[", "0", "NaN", "\\u0000", " ")) + text[at + 1 :]
        found.append((path, text))
    return found


def _json(chance: random.Random, value: Any) -> Any:
    """The document with one thing changed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if chance.random() < 0.1:
            return {(f"{k}s" if k == key else k): v for k, v in value.items()}
        return {k: _json(chance, v) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:at] + value[at + 1 :]
        if chance.random() < 0.2:
            return [*value, value[at]]
        return [_json(chance, each) if i == at else each for i, each in enumerate(value)]
    return chance.choice((None, True, 0, -1, 1.5, 2**40, "x", "FP32", "", [], [1], {}, {"x": 1}, 1e40))
