"""A label is the same text in a settings file and on the command line."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from inferd.server.config.fields import Label
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.reconcile.desired import check_label


@pytest.mark.parametrize(
    "text",
    [
        "stable",
        "_x",
        "v1.2-rc_3",
        "Canary",
        "a" * 128,
        "a" * 129,
        "",
        "1",
        "12",
        "-x",
        ".x",
        "a b",
        "a/b",
        "ä",
        "a\n",
        "a=b",
    ],
)
def test_both_accept_and_refuse_the_same_texts(text: str) -> None:
    try:
        TypeAdapter(Label).validate_python(text)
    except ValidationError:
        with pytest.raises(InvalidRequest, match="expected a letter or _, then letters"):
            check_label(text)
    else:
        check_label(text)
