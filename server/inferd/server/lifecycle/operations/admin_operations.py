"""Operators' requests on their way to the manager's thread: each becomes a command, and a future for the caller."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial

from inferd.server.errors import Unavailable, Unsupported
from inferd.server.lifecycle.operations.commands import Command, Commands
from inferd.server.lifecycle.operations.load_overrides import OverrideReader, Replacement
from inferd.server.lifecycle.operations.outcome import Outcome
from inferd.server.lifecycle.reconcile.mailbox import Post
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels


class AdminOperations:
    """Thread-safe. `Manager` says what each request means and what its future raises.

    scan       has the source look, and gives the number of the listing that will show what is there now
    post       brings a job to the manager's thread
    spawn      runs a job on a thread of its own
    """

    def __init__(
        self,
        commands: Commands,
        named: ConfiguredModels,
        substitution: OverrideReader | None,
        *,
        scan: Callable[[], int],
        post: Post,
        spawn: Callable[[str, Callable[[], None]], None],
        stopping: Callable[[], bool],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._commands = commands
        self._named = named
        self._substitution = substitution
        self._scan = scan
        self._post = post
        self._spawn = spawn
        self._stopping = stopping
        self._clock = clock
        self._wall_clock = wall_clock
        self._replacing = threading.Lock()

    def load(self, name: str, version: int | None, by: str) -> Future[ModelStatus]:
        """A load of what is on disk."""
        after = self._scan()
        asked_at = self._clock()
        return self.ask(name, lambda: self._commands.load(name, version, by, asked_at), after)

    def load_with(self, name: str, replacement: Replacement, by: str) -> Future[ModelStatus]:
        """A load that brings settings or files of its own."""
        after = self._scan()
        asked_at = self._clock()
        if self._substitution is None:
            raise Unsupported("this manager takes no settings or files with a load")
        make = partial(self._substitution.make, name, replacement, by, self._wall_clock())
        future: Future[ModelStatus] = Future()
        # Followed to its end also when nobody waits any more: it may have to be undone, and its files be removed.
        outcome: Future[ModelStatus] = Future()
        outcome.add_done_callback(partial(_pass_on, future))

        def job() -> None:  # writes files: not for a thread that others wait for
            if future.cancelled():
                return
            try:
                begin = self._commands.load_with(name, make(), outcome, asked_at)
            except Exception as error:
                outcome.set_exception(error)
            else:
                self.ask(name, begin, after, outcome)

        self._spawn("inferd-load-with", job)
        return future

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], by: str
    ) -> tuple[Future[ModelStatus], ...]:
        """Other named models in the place of those so far."""
        with self._replacing:
            change = self._named.replace(models)
            after = self._scan()
        asked_at = self._clock()
        added = (
            self.ask(name, partial(self._commands.adopt_configured_models, name, by, asked_at), after)
            for name in sorted(change.changed)
        )
        removed = (
            self.ask(name, partial(self._commands.withdraw_configured_models, name), after)
            for name in sorted(change.removed)
        )
        return (*added, *removed)

    def ask(
        self,
        name: str,
        begin: Callable[[], Outcome | None],
        after: int = 0,
        future: Future[ModelStatus] | None = None,
    ) -> Future[ModelStatus]:
        """A command that begins once the listing `after` has come. Refused while the manager stops."""
        future = future or Future()
        # On the manager's thread, but for whoever asked: what it keeps is told apart by that.
        command = Command(name, partial(contextvars.copy_context().run, begin), future, after)

        if self._stopping() or not self._post(partial(self._commands.add, command)):
            _refuse(future)
        return future


def _refuse(future: Future[ModelStatus]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(Unavailable("the server is shutting down"))


def _pass_on(future: Future[ModelStatus], outcome: Future[ModelStatus]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    error = outcome.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome.result())


def when_all(wishes: Sequence[Future[ModelStatus]], done: Callable[[BaseException | None], None]) -> None:
    """Calls `done` once all have ended, with the first error among them: on the thread that ends the last one, or at
    once."""
    if not wishes:
        done(None)
        return
    lock = threading.Lock()
    left = len(wishes)
    errors: list[BaseException] = []

    def ended(wish: Future[ModelStatus]) -> None:
        nonlocal left
        try:
            error = wish.exception()
        except CancelledError:
            error = Unavailable("the server is shutting down")
        with lock:
            left -= 1
            if error is not None:
                errors.append(error)
            last = left == 0
        if last:
            done(errors[0] if errors else None)

    for wish in wishes:
        wish.add_done_callback(ended)
