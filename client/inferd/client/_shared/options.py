"""The keyword arguments that every way to predict shares; `Client.predict` says what each of them means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from inferd.client._shared.core import MetadataLike


class ManyOptions(TypedDict, total=False):
    """What holds for every request of a series."""

    version: int | None
    label: str | None
    signature: str | None
    outputs: str | Sequence[str] | None
    timeout: float | None
    priority: int
    queue_timeout: float | None
    metadata: MetadataLike | None
    stateful: bool | None


class CallOptions(ManyOptions, total=False):
    """What holds for one request."""

    request_id: str
