"""TensorFlow Serving's recorded warm-up: assets.extra/tf_serving_warmup_requests, a TFRecord of PredictionLog messages.

    record          length (uint64), checksum, PredictionLog, checksum
    PredictionLog   classify_log = 2, regress_log = 3, multi_inference_log = 4, session_run_log = 5, predict_log = 6 or
                    predict_streamed_log = 7
    each log        request = 1, response = 2

The envelopes are read by hand: they are three numbers, and a file of many megabytes is not copied for them. Checksums
are not checked: a record that is not what it was fails as a message.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.backends.api import LoadError
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.loading.warmup_requests import WarmupRequest
from inferd.server.protocols.tfs.examples import serialized
from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.wire.reader import Unrecognised, read_field, read_varint
from inferd.wire.tensors import WireError
from inferd.wire.tfs import decode_request

_log = logging.getLogger("inferd.lifecycle")

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000  # TensorFlow Serving's own limit
_PLACES = (Path(), Path("model.savedmodel"))
_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4
_CLASSIFY, _REGRESS, _MULTI, _SESSION, _PREDICT, _STREAMED = 2, 3, 4, 5, 6, 7

_M = TypeVar("_M", bound=Message)


def recorded(directory: Path) -> Iterator[WarmupRequest]:
    """The requests recorded beside a version, none when there is no such file. Raises LoadError, as TensorFlow Serving
    fails the load: for a file that is cut short, holds more than MAX_RECORDS, or something else."""
    for place in _PLACES:
        file = directory / place / FILE
        try:
            data = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LoadError(f"{FILE} cannot be read: {error.strerror or error}") from None
        for number, record in enumerate(records(data), 1):
            if number > MAX_RECORDS:
                raise LoadError(f"{FILE}: expected at most {MAX_RECORDS} records, got more")
            yield from _requests(f"record {number} of {FILE.name}", record)


def records(data: bytes) -> Iterator[bytes]:
    """The messages in a TFRecord file. Raises LoadError where it is cut short."""
    at = 0
    number = 0
    while at < len(data):
        number += 1
        if at + _HEAD > len(data):
            raise LoadError(f"{FILE}: record {number} is cut short")
        (size,) = _LENGTH.unpack_from(data, at)
        end = at + _HEAD + size
        if end + _TAIL > len(data):
            raise LoadError(f"{FILE}: record {number} is cut short: {size} bytes are announced")
        yield data[at + _HEAD : end]
        at = end + _TAIL


def _requests(name: str, record: bytes) -> Iterator[WarmupRequest]:
    try:
        kind, log = _only_log(record)
        request = _request(log)
        if kind == _PREDICT:
            decoded = decode_request(request)
            yield WarmupRequest(name, decoded.inputs, decoded.signature)
        elif kind in (_CLASSIFY, _REGRESS):
            # The two messages have the same fields.
            found = _parsed(pb.ClassificationRequest(), request)
            yield WarmupRequest(name, {"inputs": serialized(found.input)}, found.model_spec.signature_name)
        elif kind == _MULTI:
            several = _parsed(pb.MultiInferenceRequest(), request)
            rows = serialized(several.input)
            for task in several.tasks:
                yield WarmupRequest(name, {"inputs": rows}, task.model_spec.signature_name)
        elif kind in (_SESSION, _STREAMED):
            what = "a session run" if kind == _SESSION else "a streamed prediction"
            _log.warning("%s is not replayed: it is %s, which is not offered here", name, what)
        else:
            raise LoadError(f"{name}: expected a predict, classify, regress or multi-inference log")
    except (Unrecognised, IndexError, DecodeError):
        raise LoadError(f"{name}: not a PredictionLog") from None
    except (WireError, InvalidRequest, ImportError) as error:
        raise LoadError(f"{name}: {error}") from None


def _parsed(kind: _M, data: bytes) -> _M:
    kind.ParseFromString(data)
    return kind


def _only_log(record: bytes) -> tuple[int, bytes]:
    """Number and content of the log in a PredictionLog. Raises Unrecognised, IndexError."""
    found = (0, b"")
    for number, content in _fields(record):
        if number in (_CLASSIFY, _REGRESS, _MULTI, _SESSION, _PREDICT, _STREAMED):
            found = (number, content)
    return found


def _request(log: bytes) -> bytes:
    for number, content in _fields(log):
        if number == 1:
            return content
    return b""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 != 2:
            raise Unrecognised
        start, at = read_field(message, at, len(message))
        yield tag >> 3, message[start:at]
