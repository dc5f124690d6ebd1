"""Errors of a model on their way from its worker process: none of them may take the process along."""

from __future__ import annotations

import json

from inferd.server.isolation.description import error_from_plain, error_to_plain


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def told(error: BaseException) -> Exception:
    """What arrives."""
    return error_from_plain(json.loads(json.dumps(error_to_plain(error), default=str)))


def test_an_error_that_cannot_say_what_it_is() -> None:
    arrived = told(Mute())
    assert (type(arrived).__name__, str(arrived)) == ("Mute", "it cannot say what")


def test_an_error_of_any_length_is_cut() -> None:
    assert len(str(told(ValueError("x" * 10_000_000)))) == 100_000


def test_half_of_a_character_arrives() -> None:
    assert str(told(ValueError("\udcff"))) == "\udcff"
