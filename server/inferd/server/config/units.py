"""Times, sizes and shares with units: "2s", "250ms", "64MiB", "0.1%".

In a file, the environment or a flag, a number without a unit is refused, because its unit would be a guess. In Python a
number means seconds, bytes or a share of 1, so that a value that was dumped can be read again.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

TIMES: Final = {
    unit: Decimal(of) for unit, of in {"us": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "h": "3600"}.items()
}
SIZES: Final = {
    unit: Decimal(of)
    for unit, of in {
        "B": 1,
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
    }.items()
}
# Upper bounds: larger values are mistakes. Within them the arithmetic is exact.
_LONGEST: Final = Decimal(10) * 365 * 86400
_LARGEST: Final = Decimal(2**60)

WRITTEN: Final = "written"
"""Key of the validation context: the values come from text, so a number without a unit is refused."""


def seconds(value: Any) -> float:
    """The seconds of a time with a unit. Raises ValueError."""
    return float(_quantity(value, TIMES, "2s", _LONGEST))


def size(value: Any) -> int:
    """The bytes of a size with a unit. Raises ValueError."""
    found = _quantity(value, SIZES, "64MiB", _LARGEST)
    if found != found.to_integral_value():
        raise ValueError(f"expected a whole number of bytes, got {value!r}")
    return int(found)


def show_seconds(value: float) -> str:
    """The text that `seconds` reads back as exactly this value."""
    exact = Decimal(repr(float(value)))
    for unit in ("s", "ms", "us"):
        scaled = exact / TIMES[unit]
        if scaled == scaled.to_integral_value():
            return f"{scaled:.0f}{unit}"
    return f"{exact:f}s"


def show_size(value: int) -> str:
    """The text that `size` reads back as exactly this value."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % int(SIZES[unit]) == 0:
            return f"{value // int(SIZES[unit])}{unit}"
    return f"{value}B"


def share(value: Any) -> float:
    """The share, from 0 to 1, that a text such as "0.1%" means. Raises ValueError."""
    found = _quantity(value, {"%": Decimal("0.01")}, "0.1%", Decimal(1))
    return float(found)


def ratio(value: Any) -> float:
    """The ratio, from 0 to 100, that a text such as "110%" means. Raises ValueError."""
    return float(_quantity(value, {"%": Decimal("0.01")}, "110%", Decimal(100)))


def show_share(value: float) -> str:
    """The text that `share` reads back as exactly this value."""
    return f"{(Decimal(repr(float(value))) * 100).normalize():f}%"


def _quantity(value: Any, units: dict[str, Decimal], example: str, most: Decimal) -> Decimal:
    wanted = f"expected a number with a unit ({', '.join(units)}), such as {example!r}"
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return Decimal(0)
    text = value.strip() if isinstance(value, str) else ""
    if text == "0":
        return Decimal(0)
    match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]+|%)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"{wanted}, got {value!r}")
    found = Decimal(match[1]) * units[match[2]]
    if found > most:
        raise ValueError(f"{wanted}, of a sensible magnitude, got {value!r}")
    return found


def _is_python_number(value: Any, info: ValidationInfo) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not (info.context or {}).get(WRITTEN)


def _read_seconds(value: Any, info: ValidationInfo) -> float:
    if not _is_python_number(value, info):
        return seconds(value)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"expected seconds, at least 0, got {value!r}")
    return float(value)


def _read_size(value: Any, info: ValidationInfo) -> int:
    if not _is_python_number(value, info):
        return size(value)
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise ValueError(f"expected a whole number of bytes, at least 0, got {value!r}")
    return int(value)


def _read_share(value: Any, info: ValidationInfo) -> float:
    if not _is_python_number(value, info):
        return share(value)
    if not 0 <= value <= 1:
        raise ValueError(f"expected a share from 0 to 1, got {value!r}")
    return float(value)


def _read_ratio(value: Any, info: ValidationInfo) -> float:
    if not _is_python_number(value, info):
        return ratio(value)
    if not 0 <= value <= 100:
        raise ValueError(f"expected a ratio from 0 to 100, got {value!r}")
    return float(value)


def _schema(units: dict[str, Decimal], example: str) -> WithJsonSchema:
    pattern = rf"^\s*(0|[0-9]+(\.[0-9]+)?\s*({'|'.join(units)}))\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Seconds = Annotated[
    float,
    BeforeValidator(_read_seconds),
    PlainSerializer(show_seconds, return_type=str, when_used="json"),
    _schema(TIMES, "2s"),
]
"""Seconds; written with a unit."""

Size = Annotated[
    int,
    BeforeValidator(_read_size),
    PlainSerializer(show_size, return_type=str, when_used="json"),
    _schema(SIZES, "64MiB"),
]
"""Bytes; written with a unit."""

Share = Annotated[
    float,
    BeforeValidator(_read_share),
    PlainSerializer(show_share, return_type=str, when_used="json"),
    _schema({"%": Decimal("0.01")}, "0.1%"),
]
"""A share from 0 to 1; written in per cent."""

Ratio = Annotated[
    float,
    BeforeValidator(_read_ratio),
    PlainSerializer(show_share, return_type=str, when_used="json"),
    _schema({"%": Decimal("0.01")}, "110%"),
]
"""One value in relation to another, from 0 to 100; written in per cent."""
