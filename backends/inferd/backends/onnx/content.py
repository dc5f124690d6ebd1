"""A model's bytes, kept for instances that are made later.

ONNX Runtime copies every weight into its session. A second copy in memory would double the memory of a large model.
From SPOOLED_FROM bytes on, the bytes are therefore kept in a private, unnamed temporary file: other processes cannot
change or truncate it, and the system can move its pages to disk. If such a file cannot be written, the bytes stay in
memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import IO

from inferd.backends.onnx.messages import FileSource, MemorySource, Source

SPOOLED_FROM = 32 * 2**20  # bytes
_CHUNK = 1 << 28


class ModelContent:
    """The model file's bytes, and its external data by location. Thread-safe until closed.

    `nested`: some external data belongs to nodes, branches or functions, not to the main graph.
    """

    def __init__(self, model: bytes, external: Mapping[str, bytes], *, nested: bool) -> None:
        self.nested = nested
        parts = {"": model, **external}  # no external data has an empty location
        self._sizes = {location: len(data) for location, data in parts.items()}
        self._memory: dict[str, bytes] | None = parts
        self._file: IO[bytes] | None = None
        if sum(self._sizes.values()) >= SPOOLED_FROM:
            self._spool(parts)

    @property
    def spooled(self) -> bool:
        """Whether the bytes are kept in a file."""
        return self._file is not None

    def read(self) -> tuple[bytes, dict[str, bytes]]:
        """The model's bytes and its external data. Raises OSError if the private file cannot be read, ValueError if
        the content is closed."""
        if self._memory is not None:
            parts = dict(self._memory)
        elif self._file is not None:
            parts = {}
            position = 0
            for location, size in self._sizes.items():
                parts[location] = _read(self._file.fileno(), position, size)
                position += size
        else:
            raise ValueError("the model is closed")
        return parts.pop(""), parts

    def model_source(self) -> Source:
        """The model's bytes without its external data, to be read piece by piece on one thread. Raises ValueError if
        the content is closed."""
        if self._memory is not None:
            return MemorySource(self._memory[""])
        if self._file is not None:
            return FileSource(self._file.fileno(), self._sizes[""])
        raise ValueError("the model is closed")

    def close(self) -> None:
        """Frees the memory and the private file. May be called again."""
        self._memory = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spool(self, parts: Mapping[str, bytes]) -> None:
        try:
            file = tempfile.TemporaryFile(buffering=0, prefix="inferd-onnx-")  # noqa: SIM115 - closed by close()
        except OSError:
            return
        try:
            for data in parts.values():
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file.fileno(), rest) :]
        except OSError:  # for example, the disk is full
            file.close()
            return
        self._file = file
        self._memory = None


def _read(descriptor: int, position: int, size: int) -> bytes:
    chunks = []
    while size:
        chunk = os.pread(descriptor, min(size, _CHUNK), position)
        if not chunk:
            raise OSError("the private copy of the model ended early")
        chunks.append(chunk)
        position += len(chunk)
        size -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
