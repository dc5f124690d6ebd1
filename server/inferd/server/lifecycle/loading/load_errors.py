"""Errors of a load, turned into a LoadError that an operator can read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.backends.api import BackendError, LoadError
from inferd.server.errors import LayoutError, ServingError
from inferd.server.lifecycle.loading.cancellation import LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.mistaken import explained
from inferd.server.observability.events import event, get

log = get("lifecycle")


@contextmanager
def load_errors(request: LoadRequest) -> Iterator[None]:
    """Within this, every error becomes a LoadError that an operator can read. LoadCancelled is no error and passes.

    A file that is not what its name says (a Git LFS pointer, a web page, an archive) explains the error, whatever it
    is; it is looked for after a load has failed only.
    """
    try:
        with _as_load_errors(request):
            yield
    except LoadError as error:
        reason = explained(str(error), request.version)
        if reason == str(error):
            raise
        raise LoadError(reason) from error


@contextmanager
def _as_load_errors(request: LoadRequest) -> Iterator[None]:
    try:
        yield
    except (LoadCancelled, LoadError):
        raise
    except (BackendError, LayoutError, ServingError) as error:
        raise LoadError(str(error)) from error
    except MemoryError:
        raise LoadError("not enough memory to load it") from None
    except OSError as error:
        raise LoadError(f"{error.filename or request.version.path}: {error.strerror or error}") from error
    except Exception as error:
        event(log, logging.ERROR, "a load failed in an unforeseen way", error=error, servable=str(request.id))
        raise LoadError(f"{type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, of bounded length."""
    return (str(error).strip().splitlines() or ["no message"])[0][:500]
