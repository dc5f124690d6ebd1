"""How one protocol's hot method is read and written by the short cuts (`rpc.burst`, `rpc.lone`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from inferd.backends.api import Array
from inferd.server.inference.queued_groups import BatchShare
from inferd.server.inference.request_groups import GroupTarget
from inferd.server.lifecycle.interfaces import ServableLike
from inferd.server.transport.calls import UnaryCall
from inferd.wire.request_forms import MessageLayout, MessageLayouts


class Codec(Protocol):
    """What one protocol's messages say. Thread-safe.

    protocol   name in the metrics
    layouts    of the requests
    names      whether the status of a refused request names its id
    """

    protocol: str
    names: bool

    @property
    def layouts(self) -> MessageLayouts[Any]: ...

    def target(self, facts: Any) -> GroupTarget | None:
        """What requests of this form want; None where it is something special."""
        ...

    def request_ids(
        self, calls: Sequence[UnaryCall], messages: Sequence[tuple[MessageLayout[Any], bytes]]
    ) -> Sequence[str | None]:
        """What is echoed in the answers; None where a call has to be looked at alone."""
        ...

    def request_id(self, call: UnaryCall, layout: MessageLayout[Any], message: bytes) -> str | None:
        """The same for one call."""
        ...

    def encode(self, share: BatchShare, request_ids: Sequence[str]) -> list[bytes]:
        """The answers. Raises WireError for outputs that cannot travel."""
        ...

    def encode_one(self, servable: ServableLike, signature: str, outputs: dict[str, Array], request_id: str) -> bytes:
        """The same for one call."""
        ...
