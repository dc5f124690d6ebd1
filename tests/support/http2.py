"""A client that sends HTTP/2 frames itself, for what no gRPC client does: it does not read, or stops in the middle."""

from __future__ import annotations

import select
import socket
import struct
import time
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_LARGEST = 16384  # bytes of a frame


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(path: str, *more: tuple[str, str]) -> bytes:
    """The header block of a gRPC call, without compression."""
    fields = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"),
        ("content-type", "application/grpc"), *more,
    ]  # fmt: skip
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    length = len(text)
    if length < 127:
        return bytes([length]) + text.encode()
    rest, encoded = length - 127, b"\x7f"
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest]) + text.encode()


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix."""
    return bytes([compressed]) + struct.pack(">I", len(payload)) + payload


class RawClient:
    """One connection. `window`: the bytes that the server may send on each stream; None: HTTP/2's 64 KiB."""

    def __init__(self, port: int, window: int | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        settings = b"" if window is None else struct.pack(">HI", 4, window)
        self.sock.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.frames: list[tuple[int, int, int, bytes]] = []  # those that came, except data
        self.data: dict[int, int] = {}  # bytes of data that came, by stream
        self._received = b""
        self._next = 1
        self._initial = 65535
        self._windows = {0: 65535}
        self.closed = False

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def call(self, path: str, *metadata: tuple[str, str]) -> int:
        """Opens a stream and returns its number."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._initial
        self.sock.sendall(frame(HEADERS, END_HEADERS, stream, head(path, *metadata)))
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False, timeout: float = 30) -> int:
        """Sends data as far as the server's windows allow. Returns the bytes sent: fewer when the stream has ended, or
        when the server takes no more."""
        at = 0
        until = time.monotonic() + timeout
        while at < len(data) and not self.closed:
            if stream not in self._windows or time.monotonic() > until:
                return at
            size = min(_LARGEST, len(data) - at, self._windows[stream], self._windows[0])
            self.read(0.0 if size > 0 else 0.05)
            if size > 0 and stream in self._windows:
                last = end and at + size == len(data)
                try:
                    self.sock.sendall(frame(DATA, END_STREAM if last else 0, stream, data[at : at + size]))
                except OSError:
                    self.closed = True
                    return at
                self._windows[stream] -= size
                self._windows[0] -= size
                at += size
        return at

    def open_window(self, stream: int, size: int) -> None:
        """Lets the server send so many more bytes on a stream and on the connection."""
        for number in (0, stream):
            self.sock.sendall(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", size)))

    def read(self, timeout: float) -> None:
        """Reads the frames that have come, waiting up to `timeout` seconds for the first."""
        while not self.closed and select.select([self.sock], [], [], timeout)[0]:
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            self._received += data
            self._parse()
            timeout = 0.0

    def ended(self, stream: int, timeout: float = 60.0) -> bool:
        """Waits until the server has ended a stream or the connection. False: it has not."""
        until = time.monotonic() + timeout
        while stream in self._windows and not self.closed:
            if time.monotonic() > until:
                return False
            self.read(0.1)
        return True

    def _parse(self) -> None:
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                return
            kind, flags = self._received[3], self._received[4]
            stream = int.from_bytes(self._received[5:9], "big")
            payload = self._received[9 : 9 + size]
            self._received = self._received[9 + size :]
            self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self.data[stream] = self.data.get(stream, 0) + len(payload)
        else:
            self.frames.append((kind, flags, stream, payload))
        if kind == WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:
                    for other in self._windows:
                        self._windows[other] += value - self._initial if other else 0
                    self._initial = value
            self._reply(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._reply(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM or (kind in {HEADERS, DATA} and flags & END_STREAM):
            self._windows.pop(stream, None)

    def _reply(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            self.closed = True
