"""Loads under way: run in the load pool, held until they are let in, and remembered when they fail.

Started and ended on the manager's thread; `post` brings results back to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from inferd.backends.api import LoadError
from inferd.server.lifecycle.loading.cancellation import LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.pool import PoolLike
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.backoff import Backoff, LoadFailure
from inferd.server.lifecycle.reconcile.mailbox import Post
from inferd.server.lifecycle.reconcile.model_state import Loading, ModelState, VersionState
from inferd.server.lifecycle.reconcile.unloader import Unloader
from inferd.server.lifecycle.servable import Servable
from inferd.server.observability.events import event, get
from inferd.server.repository.layout import readable

log = get("lifecycle")

_LONGEST_REASON = 2000  # errors travel in gRPC's trailers, which are small


class Loads:
    """`loaded` and `ended` are called with the outcome, on the manager's thread; `ended` with the reason of a failure,
    or None for a load that was cancelled."""

    def __init__(
        self,
        loader: LoaderLike,
        pool: PoolLike,
        closer: Unloader,
        admission: ActivationBarrier | None,
        *,
        post: Post,
        loaded: Callable[[ModelState, VersionState, Loading, Servable], None],
        ended: Callable[[ModelState, VersionState, Loading, str | None], None],
        backoff: Backoff,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._loader = loader
        self._pool = pool
        self._closer = closer
        self._admission = admission
        self._post = post
        self._loaded = loaded
        self._ended = ended
        self._backoff = backoff
        self._clock = clock
        self._wall_clock = wall_clock

    def start(self, model: ModelState, record: VersionState, request: LoadRequest, loading: Loading) -> None:
        """Queues a load."""
        self._pool.submit(model.name, partial(self._run, model, record, request, loading))

    def _run(self, model: ModelState, record: VersionState, request: LoadRequest, loading: Loading) -> None:
        """On a thread of the load pool."""
        try:
            servable = self._loader.load(request, loading.cancellation)
        except LoadCancelled as cancelled:
            self._post(partial(self._cancelled, model, record, loading, str(cancelled)))
        except LoadError as error:
            self._post(partial(self._failed, model, record, loading, str(error) or type(error).__name__))
        except BaseException as error:
            self._post(partial(self._failed, model, record, loading, f"{type(error).__name__}: {error}"))
        else:
            arrived = self._loaded if self._admission is None else partial(self._wait_to_be_let_in, self._admission)
            if not self._post(partial(arrived, model, record, loading, servable)):
                self._loader.unload(servable)  # the manager has ended meanwhile

    def _wait_to_be_let_in(
        self,
        admission: ActivationBarrier,
        model: ModelState,
        record: VersionState,
        loading: Loading,
        servable: Servable,
    ) -> None:
        def decided(refusal: str | None, given_up: str = "") -> None:
            if loading.give_up is None:
                return  # decided before
            loading.give_up = None
            given_up = given_up or loading.cancellation.reason
            if refusal is None and not given_up:
                self._loaded(model, record, loading, servable)
                return
            self._closer.end(model, record, servable)
            if refusal is None:
                self._cancelled(model, record, loading, given_up)
                return
            self._remember(record, loading, refusal)
            self._ended(model, record, loading, refusal)

        def give_up(reason: str) -> None:
            withdraw()
            # Also when it is wanted again by then: the question has been taken back.
            self._post(partial(decided, None, reason))

        def tell(refusal: str | None) -> None:
            self._post(partial(decided, refusal))

        loading.give_up = give_up
        withdraw = admission.loaded(record.id, loading.content, tell)
        if loading.cancellation():
            give_up(loading.cancellation.reason)

    def _cancelled(self, model: ModelState, record: VersionState, loading: Loading, reason: str) -> None:
        record.cut = f"the load of generation {loading.generation} was cut short: {reason}"
        event(
            log,
            logging.INFO,
            "version load cut short",
            model=record.id.name,
            version=record.id.version,
            generation=loading.generation,
            reason=reason,
        )
        self._ended(model, record, loading, None)

    def _failed(self, model: ModelState, record: VersionState, loading: Loading, reason: str) -> None:
        reason = readable(reason)[:_LONGEST_REASON]
        if self._admission is not None:
            self._admission.failed(record.id, loading.content, reason)
        self._remember(record, loading, reason)
        self._ended(model, record, loading, reason)

    def _remember(self, record: VersionState, loading: Loading, reason: str) -> None:
        before = record.failure
        same = before is not None and before.content == loading.content
        tries = before.tries + 1 if before is not None and same else 1
        delay = self._backoff.delay(tries)
        record.cut = ""
        record.failure = LoadFailure(loading.content, reason, tries, self._clock() + delay, self._wall_clock() + delay)
        event(
            log,
            logging.WARNING if tries == 1 else logging.DEBUG,  # the same failure again and again is no news
            "version not loaded",
            model=record.id.name,
            version=record.id.version,
            generation=loading.generation,
            reason=reason,
            tries=tries,
            next_in=delay,
        )
