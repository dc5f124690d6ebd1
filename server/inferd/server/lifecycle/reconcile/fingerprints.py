"""Whether files that look touched have changed: hashes of what is served, taken and compared in the load pool.

The hash of a version is taken after it has become available, so that nobody waits for it. Until it is known every
change of the files counts as one of their content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from inferd.server.lifecycle.loading.pool import PoolLike
from inferd.server.lifecycle.published_state import PublishedState
from inferd.server.lifecycle.reconcile.mailbox import Post
from inferd.server.lifecycle.reconcile.model_state import Content, ModelState, VersionState
from inferd.server.lifecycle.servable import Servable
from inferd.server.observability.events import event, get
from inferd.server.repository.tree import Tree, content_hash, read_tree

log = get("lifecycle")


class Fingerprints:
    """Starts hashes and draws the conclusions. The manager's thread only; `post` brings results back to it.

    `touch` marks a model for the next decision.
    """

    def __init__(self, pool: PoolLike, post: Post, board: PublishedState, touch: Callable[[str], None]) -> None:
        self._pool = pool
        self._post = post
        self._board = board
        self._touch = touch

    def remember(self, model: ModelState, record: VersionState) -> None:
        """Takes the hash of what has just become available."""
        assert record.servable is not None
        assert record.content is not None
        tree = record.content.tree
        self._hash(model, record, tree, partial(self._remembered, record, record.servable, tree))

    def compare(self, model: ModelState, record: VersionState, settings: str) -> None:
        """Starts a hash where only that can tell whether the files have changed, and takes back what was said of files
        that are again what is served."""
        if record.servable is None:
            return
        stale = record.is_stale(settings)
        if (
            stale is False
            and record.loading is None
            and record.lost is None
            and (record.error or record.failure is not None)
        ):
            content = record.on_disk(settings)
            if content is not None and content == record.content:
                record.failure = None
                self._board.note(model, record, "")
        if stale is None and record.hashing is None and record.disk is not None:
            tree = record.hashing = record.disk.tree
            self._hash(model, record, tree, partial(self._compared, model, record, record.servable, tree))

    def _hash(self, model: ModelState, record: VersionState, tree: Tree, then: Callable[[str | None], None]) -> None:
        path = record.disk.path if record.disk is not None else None

        def job() -> None:
            digest = None
            try:
                if path is not None:
                    digest = content_hash(path, tree)
                    if read_tree(path) != tree:
                        digest = None  # it changed under our hands: the hash is of nothing
            except Exception as error:
                event(log, logging.DEBUG, "version cannot be hashed", path=str(path), reason=str(error))
            self._post(partial(then, digest))

        self._pool.submit(model.name, job, urgent=False)

    def _remembered(self, record: VersionState, servable: Servable, tree: Tree, digest: str | None) -> None:
        if record.servable is servable and record.content is not None and record.content.tree == tree:
            record.digest = digest

    def _compared(
        self, model: ModelState, record: VersionState, servable: Servable, tree: Tree, digest: str | None
    ) -> None:
        record.hashing = None
        self._touch(model.name)
        if record.servable is not servable or record.content is None:
            return
        if digest is not None and digest == record.digest:
            event(log, logging.DEBUG, "files touched, not changed", model=model.name, version=record.id.version)
            record.content = Content(tree, record.content.settings)
        else:
            record.differs = tree
