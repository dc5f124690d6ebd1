"""Checks the arguments of calls, except inputs and metadata: their types, and whether they fit into a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from inferd.client._shared.errors import InvalidInput
from inferd.v1 import model_service_pb2 as pb

MessageT = TypeVar("MessageT")
_WHOLE = ((int, np.integer), "a whole number")
_TEXT = ((str,), "text")
_EXPECTED: Mapping[str, tuple[tuple[type, ...], str]] = {
    "model": _TEXT,
    "version": _WHOLE,
    "label": _TEXT,
    "signature": _TEXT,
    "request_id": _TEXT,
    "priority": _WHOLE,
    "to": _WHOLE,
    "queue_timeout": ((int, float, np.number), "seconds"),
}
_MAY_BE_NONE = ("version", "label", "signature", "to", "queue_timeout")


def check_choice(version: int | None, label: str | None) -> None:
    """Raises InvalidInput if both a version and a label are given."""
    if version is not None and label is not None:
        raise InvalidInput(f"version={version} and label={label!r} are both given; one of them chooses the version")


def mistyped(given: Mapping[str, object]) -> str:
    """What is wrong with the first argument of a wrong type, "" if all types are right. `given`: arguments by name."""
    for name, value in given.items():
        if name == "outputs":
            if value is None or (isinstance(value, Iterable) and all(isinstance(item, str) for item in value)):
                continue
            return f"outputs is {value!r}; expected names"
        types, description = _EXPECTED[name]
        if not isinstance(value, types) and not (value is None and name in _MAY_BE_NONE):
            return f"{name} is {value!r}; expected {description}"
    return ""


def model_request(message: Callable[..., MessageT], model: str, **fields: Any) -> MessageT:
    """A request message of ModelService for a model. Raises InvalidInput for a value that does not fit into it."""
    try:
        return message(name=model, **{"to_version" if key == "to" else key: value for key, value in fields.items()})
    except (TypeError, ValueError, UnicodeError) as error:
        wrong_type = mistyped({"model": model, **fields})
        too_large = (
            f"{name} is {value}; expected a number of 64 bits"
            for name, value in fields.items()
            if isinstance(value, int)
        )
        raise InvalidInput(wrong_type or next(too_large, str(error))) from None


def metadata_request(model: str, version: int | None, label: str | None) -> pb.GetModelMetadataRequest:
    """The request for a version's metadata. Raises InvalidInput."""
    check_choice(version, label)
    return model_request(pb.GetModelMetadataRequest, model, version=version, label=label)
