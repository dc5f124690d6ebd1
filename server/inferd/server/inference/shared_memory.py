"""System shared memory: regions that a client on this machine has registered, read and written as files.

The server never maps a region into its memory: a client that truncates the file while the server reads a mapping would
kill the server (SIGBUS). Reading costs one copy, as receiving a message does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from weakref import finalize

from inferd.server.errors import AlreadyExists, ExecutionFailed, InvalidRequest, NotFound, Unsupported
from inferd.wire.oip.values import Parameter, Parameters

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
OFF = "client shared memory is disabled: set server.shared_memory to the beginning that keys must have"
_KEY = re.compile(r"/?[A-Za-z0-9_.\-]{1,255}")
_RESERVED = "triton_python_backend_shm_region_"
_MAX_REGIONS = 1024


class Region:
    """One registered region: `size` bytes from `offset` in the file `key`. The file stays open as long as this object
    lives. Thread-safe."""

    def __init__(self, name: str, key: str, offset: int, size: int, descriptor: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.size = size
        self._descriptor = descriptor
        finalize(self, os.close, descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` in the region. Raises InvalidRequest where the file has become shorter."""
        data = os.pread(self._descriptor, size, self.offset + offset)
        if len(data) != size:
            raise InvalidRequest(
                f"shared memory region '{self.name}': expected {size} bytes, only {len(data)} are left"
            )
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Writes all of `data` at `offset` in the region. Raises OSError."""
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, memoryview(data)[done:], self.offset + offset + done)


@dataclass(frozen=True, slots=True)
class RegionPlace:
    """The part of a region that holds an input, or that receives an output."""

    region: Region
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes. Raises InvalidRequest."""
        return self.region.read(self.offset, self.size)

    def write(self, output: str, data: bytes | memoryview) -> Parameters:
        """Writes an output. Returns the parameters of the answer that say where it is. Raises ExecutionFailed when it
        does not fit."""
        if len(data) > self.size:
            raise ExecutionFailed(
                f"shared memory size specified with the request for output '{output}' ({self.size} bytes) should be at "
                f"least {len(data)} bytes to hold the results"
            )
        self.region.write(self.offset, data)
        where = {
            REGION: Parameter("string_param", self.region.name),
            SIZE: Parameter("int64_param", len(data)),
        }
        if self.offset:
            where[OFFSET] = Parameter("int64_param", self.offset)
        return where


class Regions:
    """The registered regions. Thread-safe.

    prefix      keys must begin with it ("/": any key); None: shared memory is disabled
    limit       bytes that the inputs of one request may have together
    directory   where the files of the keys lie
    """

    def __init__(self, prefix: str | None, limit: int, directory: str = "/dev/shm") -> None:
        self._prefix = prefix
        self._limit = limit
        self._directory = directory
        self._lock = Lock()
        self._regions: dict[str, Region] = {}

    @property
    def enabled(self) -> bool:
        """Whether clients may use shared memory."""
        return self._prefix is not None

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Registers `size` bytes from `offset` in the file `key` under a name. Raises InvalidRequest, AlreadyExists,
        Unsupported."""
        self._check_enabled()
        if not name:
            raise InvalidRequest("expected a name for the shared memory region, got none")
        self._check_key(key)
        region = self._open(name, key, offset, size)
        with self._lock:
            if name in self._regions:
                raise AlreadyExists(f"shared memory region '{name[:200]}' already in manager")
            if len(self._regions) >= _MAX_REGIONS:
                raise InvalidRequest(f"expected at most {_MAX_REGIONS} shared memory regions")
            self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Removes one region, or all for "". A region that a request still uses stays open until the request ends.
        Raises Unsupported."""
        self._check_enabled()
        with self._lock:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str) -> Iterable[Region]:
        """One region, or all for "". Raises NotFound, Unsupported."""
        self._check_enabled()
        with self._lock:
            return [self._found(name)] if name else list(self._regions.values())

    def place(self, what: str, parameters: Parameters) -> RegionPlace | None:
        """The part of a region that the parameters of a tensor name; None where they name none. `what` names the tensor
        in error texts. Raises InvalidRequest, NotFound, Unsupported."""
        region = parameters.get(REGION)
        if region is None:
            for key in (SIZE, OFFSET):
                if key in parameters:
                    raise InvalidRequest(f"{what}: parameter '{key}' is given without '{REGION}'")
            return None
        self._check_enabled()
        if region.kind != "string_param":
            raise InvalidRequest(f"{what}: invalid value for parameter '{REGION}': expected string_param")
        size, offset = _number(what, parameters, SIZE), _number(what, parameters, OFFSET)
        if size is None:
            raise InvalidRequest(f"{what}: parameter '{SIZE}' is expected together with '{REGION}'")
        offset = offset or 0
        with self._lock:
            found = self._found(str(region.value))
        if offset + size > found.size:
            raise InvalidRequest(
                f"{what}: invalid offset + byte size for shared memory region '{found.name}': it holds {found.size} "
                f"bytes, got offset {offset} and {size} bytes"
            )
        return RegionPlace(found, offset, size)

    def admit(self, size: int) -> None:
        """Raises InvalidRequest when the inputs of one request, which are copied, have more than the allowed bytes."""
        if size > self._limit:
            raise InvalidRequest(f"expected inputs of at most {self._limit} bytes in shared memory, got {size}")

    def _found(self, name: str) -> Region:
        found = self._regions.get(name)
        if found is None:
            raise NotFound(f"Unable to find shared memory region: '{name[:200]}'")
        return found

    def _check_enabled(self) -> None:
        if self._prefix is None:
            raise Unsupported(OFF)

    def _check_key(self, key: str) -> None:
        plain = key.removeprefix("/")
        if _KEY.fullmatch(key) is None or plain in (".", ".."):
            raise InvalidRequest(
                f"shared memory key {key[:100]!r}: expected letters, digits, '_', '-' and '.' behind a '/'"
            )
        if plain.startswith(_RESERVED):
            raise InvalidRequest(f"shared memory key {key[:100]!r}: names beginning with {_RESERVED!r} are reserved")
        prefix = (self._prefix or "").removeprefix("/")
        if not plain.startswith(prefix):
            raise InvalidRequest(
                f"shared memory key {key[:100]!r}: expected {self._prefix!r} in front (server.shared_memory)"
            )

    def _open(self, name: str, key: str, offset: int, size: int) -> Region:
        path = os.path.join(self._directory, key.removeprefix("/"))
        try:
            # O_NONBLOCK: a FIFO must not block the server. O_NOFOLLOW: a link must not lead out of the directory.
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags)
        except OSError as error:
            raise InvalidRequest(f"Unable to open shared memory region: '{key[:100]}': {error.strerror}") from None
        region = Region(name, key, offset, size, descriptor)
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or offset + size > info.st_size or size == 0:
            raise InvalidRequest(
                f"failed to register shared memory region '{name[:200]}': invalid args: '{key[:100]}' holds "
                f"{info.st_size} bytes, got offset {offset} and {size} bytes"
            )
        return region


def _number(what: str, parameters: Parameters, key: str) -> int | None:
    given = parameters.get(key)
    if given is None:
        return None
    if given.kind != "int64_param" or int(given.value) < 0:
        raise InvalidRequest(f"{what}: invalid value for parameter '{key}': expected int64_param of at least 0")
    return int(given.value)
