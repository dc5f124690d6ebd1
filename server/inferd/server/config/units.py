"""Times and sizes as people write them: "2s", "250ms", "64MiB". A bare number is refused: its unit would be a guess."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def _quantity(value: Any, units: dict[str, float] | dict[str, int], example: str) -> float:
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if text == "0" or value == 0:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"expected a number with a unit ({', '.join(units)}), such as {example!r}, got {value!r}")
    return float(match[1]) * units[match[2]]


def seconds(value: Any) -> float:
    """A time in seconds. Raises ValueError."""
    return _quantity(value, _TIMES, "2s")


def size(value: Any) -> int:
    """A size in bytes. Raises ValueError."""
    return int(_quantity(value, _SIZES, "64MiB"))


def _pass(convert: Any) -> Any:
    # A default that is already a number of seconds or bytes passes when a frozen model is copied or dumped and read again.
    return BeforeValidator(lambda value: value if isinstance(value, float) else convert(value))


Seconds = Annotated[float, _pass(seconds)]
"""Seconds; written with a unit."""

Size = Annotated[int, BeforeValidator(size)]
"""Bytes; written with a unit."""
