"""Work for the load pool: loads of versions, and hashes of their files. Results come back as events."""

from __future__ import annotations

import logging
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
    """Runs loads and hashes in the load pool. It keeps no state. Thread-safe."""

    def __init__(self, loader: LoaderLike, pool: PoolLike, mailbox: Mailbox) -> None:
        self._loader = loader
        self._pool = pool
        self._mailbox = mailbox

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
        try:
            servable = self._loader.load(request, cancellation)
        except LoadCancelled as cancelled:
            self._mailbox.post(LoadAborted(id, generation, str(cancelled)))
        except HeldBack as error:
            self._failed(id, generation, str(error), held_back=True)
        except LoadError as error:
            self._failed(id, generation, str(error) or type(error).__name__)
        except BaseException as error:
            self._failed(id, generation, f"{type(error).__name__}: {error}")
        else:
            if not self._mailbox.post(LoadSucceeded(id, generation, servable)):
                self._loader.unload(servable)  # the manager has ended meanwhile

    def _failed(self, id: ServableId, generation: int, reason: str, *, held_back: bool = False) -> None:  # noqa: A002
        self._mailbox.post(LoadFailed(id, generation, readable(reason)[:_LONGEST_REASON], held_back))

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
