"""The short cuts (`rpc.burst`, `rpc.lone`) where callers have to say who they are: for those who are known already and
may predict with the model. Everybody else is looked at alone, behind the guard, which knows what to tell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inferd.server.access.grants import Scope
from inferd.server.inference.request_groups import TargetCache
from inferd.server.protocols.common.codec import Codec
from inferd.server.transport.calls import UnaryCall
from inferd.wire.request_forms import MessageLayout

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority


class KnownCallers:
    """A protocol's Codec for such callers. Thread-safe."""

    def __init__(self, speech: Codec, authority: Authority) -> None:
        self._speech = speech
        self._remembered = authority.remembered
        self.protocol = speech.protocol
        self.names = speech.names
        self.layouts = speech.layouts
        self.encode_one = speech.encode_one
        self.encode = speech.encode
        self.target = speech.target
        self._targets = TargetCache(speech.target)

    def request_ids(
        self, calls: Sequence[UnaryCall], messages: Sequence[tuple[MessageLayout[Any], bytes]]
    ) -> Sequence[str | None]:
        """See Codec: None also for callers who may not, or of whom nobody knows yet whether they may."""
        ids = self._speech.request_ids(calls, messages)
        return [
            id_ if self._may(call, layout) else None
            for call, (layout, _), id_ in zip(calls, messages, ids, strict=True)
        ]

    def request_id(self, call: UnaryCall, layout: MessageLayout[Any], message: bytes) -> str | None:
        """The same for one call."""
        return self._speech.request_id(call, layout, message) if self._may(call, layout) else None

    def _may(self, call: UnaryCall, layout: MessageLayout[Any]) -> bool:
        caller = self._remembered(call)
        if caller is None:
            return False
        target = self._targets[layout.form]
        return target is not None and caller.grants.allows(Scope.PREDICT, target.model)
