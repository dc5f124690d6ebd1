"""Work for the load pool: loads of versions, and hashes of their files. Results come back as events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from inferd.backends.api import LoadError
from inferd.server.lifecycle.loading.cancellation import Cancellation, LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.pool import PoolLike
from inferd.server.lifecycle.loading.predecessor import HeldBack
from inferd.server.lifecycle.reconcile.events import (
    DiskFilesHashed,
    Event,
    LoadAborted,
    LoadFailed,
    LoadSucceeded,
    ServedFilesHashed,
)
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.state import ServableId
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.layout import readable
from inferd.server.repository.tree import Tree, content_hash, read_tree

log = get("lifecycle")

_LONGEST_REASON = 2000  # errors travel in gRPC's trailers, which are small

Hashed = Callable[[ServableId, int, Tree, str | None], ServedFilesHashed | DiskFilesHashed]


class LoadRunner:
    """Runs loads and hashes in the load pool. Thread-safe.

    A load that takes longer than `timeout` seconds has failed. What a framework does cannot be interrupted: its thread
    goes on, what it loads in the end is closed, and until then the same version is not loaded again.
    """

    def __init__(self, loader: LoaderLike, pool: PoolLike, mailbox: Mailbox, *, timeout: float = 3600.0) -> None:
        self._loader = loader
        self._pool = pool
        self._mailbox = mailbox
        self._timeout = timeout
        self._lock = threading.Lock()
        self._given_up: set[ServableId] = set()  # versions whose load goes on although it has failed

    def load(self, request: LoadRequest, cancellation: Cancellation) -> None:
        """Queues a load; ends in LoadSucceeded, LoadFailed or LoadAborted."""
        self._pool.submit(request.id.name, partial(self._load, request, cancellation))

    def hash_served(self, id: ServableId, generation: int, disk: VersionOnDisk, tree: Tree) -> None:  # noqa: A002
        """Hashes the files from which a generation was loaded; ends in ServedFilesHashed."""
        self._pool.submit(id.name, partial(self._hash, id, generation, disk, tree, ServedFilesHashed), urgent=False)

    def hash_on_disk(self, id: ServableId, generation: int, disk: VersionOnDisk, tree: Tree) -> None:  # noqa: A002
        """Hashes files that look different from those of the generation that serves; ends in DiskFilesHashed."""
        self._pool.submit(id.name, partial(self._hash, id, generation, disk, tree, DiskFilesHashed), urgent=False)

    def stop(self) -> None:
        """Drops what has not begun."""
        self._pool.stop()

    def _load(self, request: LoadRequest, cancellation: Cancellation) -> None:
        id, generation = request.id, request.generation  # noqa: A001
        with self._lock:
            hangs = id in self._given_up
        if hangs:
            self._failed(id, generation, "an earlier load of this version has not come back yet (load.timeout)")
            return
        limit = _TimeLimit(self._timeout, partial(self._give_up, request, cancellation))
        result: Event
        servable = None
        try:
            servable = self._loader.load(request, cancellation)
            result = LoadSucceeded(id, generation, servable)
        except LoadCancelled as cancelled:
            result = LoadAborted(id, generation, str(cancelled))
        except HeldBack as error:
            result = self._failure(id, generation, str(error), held_back=True)
        except LoadError as error:
            result = self._failure(id, generation, str(error) or type(error).__name__)
        except BaseException as error:
            result = self._failure(id, generation, f"{type(error).__name__}: {error}")
        in_time = limit.over()
        if not in_time:
            with self._lock:
                self._given_up.discard(id)
        if not (in_time and self._mailbox.post(result)) and servable is not None:
            self._loader.unload(servable)  # it came too late, or the manager has ended meanwhile

    def _give_up(self, request: LoadRequest, cancellation: Cancellation) -> None:
        reason = f"it was not loaded within {self._timeout:g} s (load.timeout)"
        with self._lock:
            self._given_up.add(request.id)
        event(log, logging.ERROR, "a load hangs and is given up", servable=str(request.id))
        cancellation.cancel(reason)
        self._failed(request.id, request.generation, reason)

    def _failed(self, id: ServableId, generation: int, reason: str) -> None:  # noqa: A002
        self._mailbox.post(self._failure(id, generation, reason))

    def _failure(self, id: ServableId, generation: int, reason: str, *, held_back: bool = False) -> LoadFailed:  # noqa: A002
        return LoadFailed(id, generation, readable(reason)[:_LONGEST_REASON], held_back)

    def _hash(
        self,
        id: ServableId,  # noqa: A002
        generation: int,
        disk: VersionOnDisk,
        tree: Tree,
        done: Hashed,
    ) -> None:
        path, rule = disk.path, disk.rule
        digest = None
        try:
            digest = content_hash(path, tree, rule)
            if read_tree(path, rule) != tree:
                digest = None  # the files changed while they were read: the hash says nothing
        except Exception as error:
            event(log, logging.DEBUG, "version cannot be hashed", path=str(path), reason=str(error))
        self._mailbox.post(done(id, generation, tree, digest))


class _TimeLimit:
    """Calls `late` on a thread of its own when `over` was not called within `seconds`."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self._late = late
        self._lock = threading.Lock()
        self._ended = False
        self._timer = threading.Timer(seconds, self._passed)
        self._timer.daemon = True
        self._timer.name = "inferd-load-limit"
        try:
            self._timer.start()
        except RuntimeError as error:  # the system gives no thread: rather no limit than no load
            event(log, logging.ERROR, "no thread can be started", error=error)

    def over(self) -> bool:
        """The work is done. Whether that was in time; if not, `late` was called."""
        self._timer.cancel()
        with self._lock:
            in_time, self._ended = not self._ended, True
            return in_time

    def _passed(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._late()  # under the lock: `over` returns after it
