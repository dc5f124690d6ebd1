"""The lock that keeps a second server out of a state directory: two would overwrite each other's overrides."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from inferd.server.lifecycle.operations.overrides import OverridesError

FILE = "lock"


def claim(directory: Path) -> int:
    """Locks a state directory, which is made if need be, and gives the descriptor that holds the lock. The system
    releases the lock when the descriptor is closed or the process ends, in whatever way. Raises OverridesError when
    another server has the lock or the directory cannot be used."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OverridesError(
            f"server.state_dir: expected a directory that can be written to, got {directory}: {error.strerror or error}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise OverridesError(
            f"server.state_dir: {directory} is in use by another server (process {holder}): each needs its own"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise OverridesError(f"server.state_dir: {directory} cannot be locked: {error.strerror or error}") from error
    return descriptor
