"""The types of the values of settings, each with its check. Errors say what was expected and what was found."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from inferd.server.config.units import Seconds, Size
from inferd.wire.dtypes import DType

_SHOWN: Final = 8  # names in one message
LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_DEVICE: Final = re.compile(r"cpu|auto|cuda:[0-9]{1,3}")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%A-Za-z0-9]*:[0-9A-Fa-f:.%A-Za-z0-9]*\]")


class Section(BaseModel):
    """Base of all sections. Frozen; an unknown key is an error. The text under a key documents it (see `meanings`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


def one_is_a_list(value: Any) -> Any:
    """Makes a list of one item of a single text; leaves other values alone."""
    return (value,) if isinstance(value, str) else value


ALL_ROOTS: Final = "*"
"""Stands for every root and configured model in the keys of `Allowances`."""


def _for_all_roots(value: Any) -> Any:
    """Makes a mapping of a list that is for all roots; leaves other values alone."""
    return {ALL_ROOTS: value} if isinstance(value, (str, list, tuple)) else value


def split_host_port(text: str) -> tuple[str, int]:
    """The host (an IPv6 address without its brackets) and the port of "HOST:PORT". Raises ValueError."""
    wanted = f"expected HOST:PORT, such as 0.0.0.0:8001 or [::]:8001, with a port up to 65535, got {text!r}"
    host, colon, port = text.rpartition(":")
    if not colon or not _HOST.fullmatch(host):
        raise ValueError(wanted)
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(wanted)
    return host.strip("[]"), int(port)


def _listen_address(text: str) -> str:
    if text.startswith("unix:"):
        if text == "unix:":
            raise ValueError(f"expected a path after unix:, got {text!r}")
        return text
    split_host_port(text)
    return text


def _http_address(text: str) -> str:
    split_host_port(text)
    return text


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise ValueError(f"expected cpu, cuda:N or auto, got {text!r}")
    return text


def _label(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise ValueError(
            f"expected a label: a letter or _, then letters, digits, '_', '.' or '-', at most 128, got {text!r}"
        )
    return text


def _absolute(text: str) -> str:
    if not os.path.isabs(text) or "\0" in text:
        raise ValueError(f"expected an absolute path, got {text!r}")
    return text


def _dtype(text: str) -> str:
    known = [d.name for d in DType]
    if text == DType.STRING.oip_name:
        return DType.STRING.name
    if text not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {text!r}")
    return text


def distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the items. Raises ValueError if one of them occurs twice."""
    repeated = duplicates(map(repr, value))
    if repeated:
        raise ValueError(f"expected every item once, got {repeated} more than once")
    return value


def duplicates(names: Iterable[str]) -> str:
    """The names that occur more than once, as text; "" for none. Of many, the first few."""
    found = sorted(name for name, times in Counter(names).items() if times > 1)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError("expected more than 0, got 0")
    return value


def _within(most: float, shown: str) -> AfterValidator:
    def check(value: float) -> float:
        if value > most:
            raise ValueError(f"expected at most {shown}, which is gRPC's own bound, got {value}")
        return value

    return AfterValidator(check)


_INT32: Final = 2**31 - 1

Count = Annotated[int, Strict(), Field(ge=1)]
"""A whole number, at least 1; true and "1" are refused."""

Interval = Annotated[Seconds, AfterValidator(_above_zero)]
Room = Annotated[Size, AfterValidator(_above_zero)]
GrpcInterval = Annotated[Interval, _within(_INT32 // 1000, "2147483s")]
GrpcRoom = Annotated[Room, _within(_INT32, "2147483647B")]
GrpcCount = Annotated[Count, _within(_INT32, "2147483647")]
"""Values that gRPC's core keeps as 32-bit integers: times in milliseconds, sizes in bytes, counts."""
Flag = Annotated[bool, Strict()]
Version = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Dimension = Annotated[int, Strict(), Field(ge=-1, lt=2**63)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)]
"""A list of texts; a single text is a list of one."""
CodeKind = Literal["aoti", "custom_ops", "python"]
CodeKinds = Annotated[tuple[CodeKind, ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)]
Allowances = Annotated[dict[Text, CodeKinds], BeforeValidator(_for_all_roots)]
"""Directory: the kinds of code that models in it may bring along. A list stands for {"*": that list}."""

AbsolutePath = Annotated[str, AfterValidator(_absolute)]
AbsolutePaths = Annotated[tuple[AbsolutePath, ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)]

ListenAddress = Annotated[str, AfterValidator(_listen_address)]
ListenAddresses = Annotated[tuple[ListenAddress, ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)]
HttpAddresses = Annotated[
    tuple[Annotated[str, AfterValidator(_http_address)], ...],
    BeforeValidator(one_is_a_list),
    AfterValidator(distinct),
]
Device = Annotated[str, AfterValidator(_device)]
Label = Annotated[str, AfterValidator(_label)]
DTypeName = Annotated[str, AfterValidator(_dtype)]
