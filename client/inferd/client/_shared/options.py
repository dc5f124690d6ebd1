"""The keyword arguments that all prediction methods share. `Client.predict` describes each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from inferd.client._shared.core import MetadataLike


class ManyOptions(TypedDict, total=False):
    """Arguments that hold for every request of `predict_many`."""

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
    """Arguments of one request."""

    request_id: str
