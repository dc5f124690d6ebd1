"""Compressed messages: they are inflated here, not by gRPC's core, so that what comes out is bounded.

The core would inflate a message before anybody can count it: a few kilobytes become `grpc.max_message`, for each call
of a connection at once. So both transports ask the core for messages as they were sent. The core does not tell whether
a message is compressed, but its first bytes do. No protobuf message begins as gzip does. A message that begins as zlib
(gRPC's deflate) does is taken for compressed if it is a whole zlib stream, whose checksum is right.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Callable
from typing import Final

from inferd.server.config.schema import Grpc
from inferd.server.errors import Code
from inferd.server.inference.failures import Failure, refusal
from inferd.server.inference.inflight import InflightBounds

UNINFLATED: Final = [("grpc.per_message_decompression", 0)]
"""gRPC's channel arguments with which the core hands messages over as they were sent."""
_GZIP: Final = b"\x1f\x8b"
COMPRESSED: Final = (_GZIP, b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""First bytes of compressed messages: gzip, and zlib with a window of 32 KiB at each level."""
_LONG: Final = 16 * 2**10  # bytes of a compressed message that is not tried on the calling thread
_EITHER: Final = zlib.MAX_WBITS | 32  # gzip or zlib, by the first bytes
_STEP: Final = 2**20  # the most bytes inflated before they are counted
_MOST_WAITING: Final = 256  # messages that wait to be inflated
_SHORT: Final = 64 * 2**10  # what inflates to this is inflated on the calling thread

Then = Callable[[bytes | Failure, int], None]
"""Called once with the inflated message and the bytes that are counted for it, which the callee must release; or with
the failure that ends the call, and 0."""


class Inflater:
    """Inflates messages of calls within `grpc.max_message` and `inflight.bytes`. Thread-safe.

    Long messages are inflated one after the other on a thread of its own, which is started for the first of them: the
    transport's loop serves other calls meanwhile.
    """

    def __init__(self, config: Grpc, inflight: InflightBounds) -> None:
        self._refuses = config.compression == "refuse"
        self._most = config.max_message
        self._inflight = inflight
        self._full = refusal(Code.RESOURCE_EXHAUSTED, inflight.full)
        self._too_long = refusal(
            Code.RESOURCE_EXHAUSTED,
            f"expected a message of at most {config.max_message} bytes, inflated too (grpc.max_message)",
        )
        self._waiting: queue.SimpleQueue[tuple[bytes, int, Callable[[], bool], Then] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def short(self, message: bytes) -> bytes | Failure | None:
        """The inflated message where it is short; the message itself where it is not compressed; the failure where
        compressed messages are refused. None: `inflate` must be called. Nothing is counted."""
        if len(message) > _LONG and not self._refuses:
            return None
        stream = zlib.decompressobj(_EITHER)
        try:
            start = stream.decompress(message[:_SHORT], _SHORT)
        except zlib.error as error:
            return _broken(message, str(error))
        if self._refuses:
            return _REFUSED
        if not stream.eof:  # more comes out, or the message ends too early, which `inflate` reports
            return None
        return _broken(message, "something follows it") if stream.unused_data or len(message) > _SHORT else start

    def inflate(self, message: bytes, own: int, wanted: Callable[[], bool], then: Then) -> None:
        """Inflates a message and calls `then`, on the inflater's thread; at once, with a failure, where too many wait.

        own      bytes that are counted for the call already
        wanted   whether the call still waits for it; else it is dropped, and `then` is not called
        """
        if self._waiting.qsize() >= _MOST_WAITING:
            then(self._full, 0)
            return
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="inferd-inflate", daemon=True).start()
        self._waiting.put((message, own, wanted, then))

    def release(self, counted: int) -> None:
        """Takes the bytes of an inflated message off the count."""
        self._inflight.release(counted)

    def stop(self) -> None:
        """Ends the thread once it has inflated what waits."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            message, own, wanted, then = item
            if wanted():
                then(*self.inflated(message, own))
            del item, message, wanted, then  # or the message would be kept until the next one comes

    def inflated(self, message: bytes, own: int) -> tuple[bytes | Failure, int]:
        """The inflated message and the bytes that are counted for it, which the caller must release; or the failure
        that ends the call, and 0."""
        stream = zlib.decompressobj(_EITHER)
        parts: list[bytes] = []
        held = at = 0
        rest = b""  # of the message, at most _SHORT bytes: every step copies it
        try:
            while not stream.eof:
                if not rest:
                    rest = message[at : at + _SHORT]
                    at += len(rest)
                ends = not rest
                part = stream.decompress(rest, _STEP)
                rest = stream.unconsumed_tail
                if ends and not part and not stream.eof:
                    raise _Ended(_broken(message, "it is cut short"))
                if held + len(part) > self._most:
                    raise _Ended(self._too_long)
                if not self._inflight.hold(len(part), own + held):
                    raise _Ended(self._full)
                held += len(part)
                parts.append(part)
            if stream.unused_data or at < len(message):
                raise _Ended(_broken(message, "something follows it"))
            return b"".join(parts), held
        except _Ended as ended:
            outcome = ended.outcome
        except zlib.error as error:
            outcome = _broken(message, str(error))
        self._inflight.release(held)
        return outcome, 0


class _Ended(Exception):
    def __init__(self, outcome: bytes | Failure) -> None:
        super().__init__()
        self.outcome = outcome


def _broken(message: bytes, why: str) -> bytes | Failure:
    """What a message is that cannot be inflated: a message that only begins as zlib does, or broken gzip."""
    if message.startswith(_GZIP):
        return refusal(Code.INVALID_ARGUMENT, f"the message begins as gzip, but cannot be inflated: {why}")
    return message


_REFUSED: Final = refusal(
    Code.UNIMPLEMENTED, "expected a message that is not compressed: this server takes none (grpc.compression: refuse)"
)
