"""Messages over a pair of unix sockets: a kind, some bytes, at most one descriptor. Tensors are in shared memory.

Each message is answered before the next one is sent. So the bytes of one read, and a descriptor with them, belong to
one message.

ChannelError
├── Closed       the other side has closed the channel
├── Silent       the time-out has passed
└── Garbled      the received bytes are no valid message
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
_FIRST_READ = 4096  # bytes; most messages are shorter
_LONGEST = 256 * 2**20
# Plain integers, because operations on enum members cost microseconds in each run of a model.
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC)
_SPACE = socket.CMSG_SPACE(4 * 4)


class ChannelError(Exception):
    """A message could not be sent or received."""


class Closed(ChannelError):
    """The other side has closed the channel."""


class Silent(ChannelError):
    """The other side has not answered, or has not read, within the time-out."""


class Garbled(ChannelError):
    """The received bytes are no valid message."""


class Kind(enum.IntEnum):
    """The kind of a message, which decides how its body is read."""

    ASK = 1  # JSON: an order, {"op": ...}
    DONE = 2  # JSON: the answer
    FAILED = 3  # JSON: an error
    RUN = 4  # integers: signature, outputs, inputs (see tensors)
    RAN = 5  # integers: outputs (see tensors)
    STAGE = 6  # integers: the number of the stage whose descriptor comes with the message


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(slots=True)
class ChannelMessage:
    """A received message. The receiver must close `descriptor`, unless it is None."""

    kind: Kind
    body: bytes
    descriptor: int | None = None

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Garbled."""
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
    """One end. Not thread-safe, but `shut` may be called from any thread and wakes a reader."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the socket of its other end."""
        own_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(own_end), other_end

    def set_timeout(self, seconds: float) -> None:
        """Sets how long `receive` and `send` wait; 0: for ever. Does nothing on a closed channel."""
        # The time-out of the kernel. Python's own would cost a poll before each call.
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def send(self, kind: Kind, body: bytes, descriptor: int | None = None) -> None:
        """Sends a message. Raises Closed, or Silent if the other side does not read. The caller still has to close the
        descriptor."""
        data = _HEAD.pack(len(body), kind) + body
        try:
            if descriptor is None:
                self._socket.sendall(data)
                return
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            sent = self._socket.sendmsg([data], ancillary)
            if sent < len(data):
                self._socket.sendall(data[sent:])
        except (BlockingIOError, TimeoutError):
            raise Silent from None
        except OSError as error:
            raise Closed(error.strerror) from None

    def send_json(self, kind: Kind, value: dict[str, Any], descriptor: int | None = None) -> None:
        """Sends JSON. A value of a type that JSON lacks is sent as its text. Raises as `send`."""
        self.send(kind, json.dumps(value, default=str).encode(), descriptor)

    def send_integers(self, kind: Kind, values: Sequence[int], descriptor: int | None = None) -> None:
        """Sends 64-bit integers. Raises as `send`."""
        self.send(kind, struct.pack(f"<{len(values)}q", *values), descriptor)

    def receive(self) -> ChannelMessage:
        """Waits for the next message. Raises ChannelError."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(_FIRST_READ, _SPACE, _CLOSE_ON_EXEC)
            descriptor = _descriptor(ancillary) if ancillary else None
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
        if flags & _TRUNCATED:
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
        """Ends both directions: readers on both sides get Closed. `close` is still needed to close the descriptor."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side has closed it before

    def close(self) -> None:
        """Closes the descriptor."""
        self._socket.close()


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The descriptor that came with a message; closes further ones."""
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            found.extend(numbers)
    for surplus in found[1:]:
        os.close(surplus)
    return found[0] if found else None
