"""Compares a version that refuses seeded data with the version that it would replace.

Seeded data shows nothing by itself: a model may ask for other data. But if the version in service answers the very data
that the new one refuses, callers would notice the difference. The new version is then held back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Timeout
from time import monotonic
from typing import Any

from inferd.backends.api import Array, LoadError
from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.server.observability.events import event, get
from inferd.server.scheduling.ensemble.scheduler import Acquire
from inferd.server.scheduling.qualification.contract import SeededRefusal
from inferd.server.scheduling.rejection import Reason
from inferd.server.scheduling.request import callback_request

log = get("lifecycle")

_LIMIT = 30.0  # seconds in which the version in service must have answered all data
_PAUSE = 0.1  # seconds between two tries while its queue is full
_PASSING = frozenset({Reason.FULL, Reason.GAVE_WAY, Reason.TOO_LATE})


class HeldBack(LoadError):
    """A version is not served, because the one that it would replace answers what it refuses. To load it again is of no
    use until its files change, unless an operator insists."""


def check_successor(
    id: ServableId,  # noqa: A002
    refusals: Sequence[SeededRefusal],
    acquire: Acquire,
    cancellation: Cancellation,
) -> None:
    """Raises HeldBack if the version in service, older than `id` or the same, answers data that `id` refuses. Blocks
    while that version runs. A stateful version is not asked: its answers would change. Raises LoadCancelled."""
    try:
        handle = acquire(id.name, None)
    except ServingError:
        return  # nothing is in service
    try:
        servable = handle.servable
        if servable.id.version > id.version or servable.stateful or not servable.serves:
            return
        until = monotonic() + _LIMIT
        for refusal in refusals:
            for inputs in refusal.data():
                if not _fits(servable, refusal.signature, inputs):
                    continue
                if _answers(servable, refusal.signature, inputs, until, cancellation):
                    raise HeldBack(_text(id, servable, refusal))
    finally:
        handle.release()


def _text(id: ServableId, servable: Any, refusal: SeededRefusal) -> str:  # noqa: A002
    before = f"version {servable.id.version}"
    if servable.id.version == id.version:
        before = "the content that is in service"
    return (
        f"held back: it fails on seeded data that {before} answers (signature {refusal.signature!r}): "
        f"{refusal.reason}. It is loaded when its files change, or an operator loads version {id.version} by number"
    )


def _fits(servable: Any, signature: str, inputs: Mapping[str, Array]) -> bool:
    known = servable.signatures.get(signature)
    if known is None:
        return False
    try:
        check_request(servable.id, known, inputs, ())
    except InvalidRequest:
        return False
    return True


def _answers(servable: Any, signature: str, inputs: dict[str, Array], until: float, cancellation: Cancellation) -> bool:
    nbytes = sum(array.nbytes for array in inputs.values())
    while True:
        cancellation.check()
        done: Future[Any] = Future()
        request = callback_request(signature, inputs, done.set_result, deadline=until, nbytes=nbytes)
        rejected = servable.scheduler.submit((request,))
        if not rejected:
            try:
                return done.result(max(0.0, until - monotonic()) + 1.0).error is None
            except Timeout:
                request.cancel()
                rejected = ()
        if not any(rejection.reason in _PASSING for rejection in rejected) or monotonic() >= until:
            event(log, logging.INFO, "the version in service could not be asked", servable=str(servable.id))
            return False
        threading.Event().wait(_PAUSE)
