"""TensorFlow Serving's recorded warm-up: assets.extra/tf_serving_warmup_requests, a TFRecord of PredictionLog messages.

    record          length (uint64), checksum, PredictionLog, checksum
    PredictionLog   classify_log = 2, regress_log = 3, multi_inference_log = 4, session_run_log = 5, predict_log = 6 or
                    predict_streamed_log = 7
    each log        request = 1, response = 2

The TFRecord framing and the outer messages are parsed by hand, because they have few fields and a file of many
megabytes is then not copied. Checksums are not verified: a damaged record fails when its message is parsed.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.backends.api import DEFAULT_SIGNATURE, LoadError
from inferd.backends.files import FileRule
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
MOST_BYTES = 2**30
_DIRECTORIES = (Path(), Path("model.savedmodel"))
_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4  # bytes before and after a message: length and checksum, checksum
_CLASSIFY, _REGRESS, _MULTI, _SESSION, _PREDICT, _STREAMED = 2, 3, 4, 5, 6, 7

_M = TypeVar("_M", bound=Message)


def recorded(directory: Path, rule: FileRule | None = None) -> Iterator[WarmupRequest]:
    """The warm-up requests recorded in a version's directory; none if it has no such file. `rule`: where files may be
    read; None: below the directory. Raises LoadError (TensorFlow Serving fails the load, too) for a file that is cut
    short, has more than MAX_RECORDS, or has other contents."""
    rule = rule or FileRule(os.path.abspath(directory))
    for subdirectory in _DIRECTORIES:
        file = directory / subdirectory / FILE
        try:
            data = rule.read(file, MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LoadError(f"{FILE} cannot be read: {error.strerror or error}") from None
        yield from requests_in(data)


def requests_in(data: bytes) -> Iterator[WarmupRequest]:
    """The requests in the content of such a file. Raises LoadError."""
    for number, record in enumerate(records(data), 1):
        if number > MAX_RECORDS:
            raise LoadError(f"{FILE}: expected at most {MAX_RECORDS} records, got more")
        yield from _requests(f"record {number} of {FILE.name}", record)


def records(data: bytes) -> Iterator[bytes]:
    """The messages in a TFRecord file. Raises LoadError for a file that is cut short."""
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
            yield WarmupRequest(name, decoded.inputs, decoded.signature or DEFAULT_SIGNATURE)
        elif kind in (_CLASSIFY, _REGRESS):
            # ClassificationRequest and RegressionRequest have the same fields.
            single = _parsed(pb.ClassificationRequest(), request)
            signature = single.model_spec.signature_name or DEFAULT_SIGNATURE
            yield WarmupRequest(name, {"inputs": serialized(single.input)}, signature)
        elif kind == _MULTI:
            multi = _parsed(pb.MultiInferenceRequest(), request)
            rows = serialized(multi.input)
            for task in multi.tasks:
                yield WarmupRequest(name, {"inputs": rows}, task.model_spec.signature_name or DEFAULT_SIGNATURE)
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
    """Field number and content of the log in a PredictionLog; the last one if there are several, as in protobuf. Raises
    Unrecognised, IndexError."""
    log = (0, b"")
    for number, content in _fields(record):
        if number in (_CLASSIFY, _REGRESS, _MULTI, _SESSION, _PREDICT, _STREAMED):
            log = (number, content)
    return log


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
