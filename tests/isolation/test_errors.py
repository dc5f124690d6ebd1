"""A model's errors are sent from its worker process; no error may end the process."""

from __future__ import annotations

import json

from inferd.backends.api import BackendError, BrokenContract, IncompleteArtefact, InvalidInput, LoadError
from inferd.server.isolation.description import error_from_plain, error_to_plain


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def received(error: BaseException) -> Exception:
    """The error that the server receives."""
    return error_from_plain(json.loads(json.dumps(error_to_plain(error), default=str)))


def test_an_error_whose_text_cannot_be_read_is_sent() -> None:
    arrived = received(Mute())
    assert (type(arrived).__name__, str(arrived)) == ("Mute", "it cannot say what")


def test_a_long_error_is_truncated() -> None:
    assert len(str(received(ValueError("x" * 10_000_000)))) == 100_000


def test_an_unpaired_surrogate_is_sent() -> None:
    assert str(received(ValueError("\udcff"))) == "\udcff"


def test_the_kind_of_an_error_of_a_backend_is_kept() -> None:
    for kind in (BackendError, BrokenContract, InvalidInput, LoadError, IncompleteArtefact):
        assert type(received(kind("why"))) is kind
