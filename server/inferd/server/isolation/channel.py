"""Messages over a pair of unix sockets: a kind, some bytes, at most one descriptor. Small: tensors go beside them.

Each is answered before the next one is sent: what is read at once belongs to one message, and so does a descriptor.

ChannelError
├── Closed       the other side is gone
├── Silent       nothing came within the time
└── Garbled      what came is no message
"""

from __future__ import annotations

import array
import enum
import json
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_HEAD = struct.Struct("<II")  # bytes that follow, kind
_FIRST = 4096  # bytes asked for at once: most messages are shorter
_LONGEST = 256 * 2**20
# As plain numbers: the operations of an enum cost microseconds, and these are made for each run of a model.
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_CTRUNC)
_SPACE = socket.CMSG_SPACE(4 * 4)


class ChannelError(Exception):
    """The message did not get through."""


class Closed(ChannelError):
    """The other side is gone."""


class Silent(ChannelError):
    """Nothing came within the time."""


class Garbled(ChannelError):
    """What came is no message."""


class Kind(enum.IntEnum):
    """What a message is."""

    ASK = 1  # JSON: {"op": ...}
    DONE = 2  # JSON: the answer
    FAILED = 3  # JSON: an error
    RUN = 4  # integers: inputs
    RAN = 5  # integers: outputs
    STAGE = 6  # integers: the number of the shared memory that comes beside


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(slots=True)
class ChannelMessage:
    """`descriptor`: the receiver's to close, None: there is none."""

    kind: Kind
    body: bytes
    descriptor: int | None = None

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises Garbled."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Garbled("a message that is no JSON object")
        return value

    def integers(self) -> tuple[int, ...]:
        """The body as 64-bit integers. Raises Garbled."""
        count, rest = divmod(len(self.body), 8)
        if rest:
            raise Garbled("a message of broken integers")
        return struct.unpack(f"<{count}q", self.body)


class Channel:
    """One end. Not thread-safe, but `close` may be called from anywhere and wakes a reader."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the socket of its other end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def patience(self, seconds: float) -> None:
        """How long `receive` and `send` wait from now on; 0: for ever. A closed channel keeps nobody waiting."""
        # The kernel's own time-out: Python's would cost a poll before each call.
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def send(self, kind: Kind, body: bytes, descriptor: int | None = None) -> None:
        """Raises Closed, or Silent when the other side does not read. The descriptor stays the caller's."""
        data = _HEAD.pack(len(body), kind) + body
        try:
            if descriptor is None:
                self._socket.sendall(data)
                return
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            sent = self._socket.sendmsg([data], beside)
            if sent < len(data):
                self._socket.sendall(data[sent:])
        except (BlockingIOError, TimeoutError):
            raise Silent from None
        except OSError as error:
            raise Closed(error.strerror) from None

    def tell(self, kind: Kind, value: dict[str, Any], descriptor: int | None = None) -> None:
        """Sends JSON; what JSON does not know goes as text."""
        self.send(kind, json.dumps(value, default=str).encode(), descriptor)

    def tell_integers(self, kind: Kind, values: Sequence[int], descriptor: int | None = None) -> None:
        """Sends 64-bit integers."""
        self.send(kind, struct.pack(f"<{len(values)}q", *values), descriptor)

    def receive(self) -> ChannelMessage:
        """The next message. Raises ChannelError."""
        try:
            data, beside, flags, _ = self._socket.recvmsg(_FIRST, _SPACE, _CLOSE_ON_EXEC)
            descriptor = _descriptor(beside) if beside else None
            try:
                return self._message(data, descriptor, flags)
            except BaseException:
                if descriptor is not None:
                    os.close(descriptor)
                raise
        except (BlockingIOError, TimeoutError):
            raise Silent from None
        except OSError as error:
            raise Closed(error.strerror) from None

    def _message(self, data: bytes, descriptor: int | None, flags: int) -> ChannelMessage:
        if flags & _CUT:
            raise Garbled("too many descriptors")
        if len(data) < _HEAD.size:
            data += self._rest(_HEAD.size - len(data)) if data else b""
            if not data:
                raise Closed("end of stream")
        length, number = _HEAD.unpack_from(data)
        kind = _KINDS.get(number)
        if kind is None or length > _LONGEST or len(data) > _HEAD.size + length:
            raise Garbled(f"a message of unknown kind {number} or wrong length {length}")
        body = data[_HEAD.size :]
        if len(body) < length:
            body += self._rest(length - len(body))
        return ChannelMessage(kind, body, descriptor)

    def _rest(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._socket.recv(min(count, 2**20))
            if not part:
                raise Closed("end of stream")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._socket.fileno()

    def shut(self) -> None:
        """Ends both directions at once; a reader, here or there, sees Closed. The descriptor is closed by `close`."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was quicker

    def close(self) -> None:
        """Gives the descriptor back."""
        self._socket.close()


def _descriptor(beside: list[tuple[int, int, bytes]]) -> int | None:
    found: list[int] = []
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            found.extend(numbers)
    for surplus in found[1:]:
        os.close(surplus)
    return found[0] if found else None
