"""What the sync client remembers of models: how their inputs are typed, and whether a request may be sent twice."""

from __future__ import annotations

from typing import Any

from inferd.client._shared.arguments import metadata_request
from inferd.client._shared.core import METADATA_TIMEOUT, Call, Deadline, MetadataCache, is_final_refusal
from inferd.client._shared.errors import RequestError
from inferd.client._shared.inputs import described_arrays
from inferd.client._shared.models import ModelMetadata, to_metadata
from inferd.client._sync.connection import Connection


class Describer:
    """Metadata, asked for once and remembered. Thread-safe; two threads may ask the same at once, which is harmless."""

    def __init__(self, connection: Connection, get_metadata: Any) -> None:
        self._connection = connection
        self._get_metadata = get_metadata
        self._known = MetadataCache()

    def describe(self, call: Call, deadline: Deadline) -> ModelMetadata | None:
        """None where the server has no metadata to give. Raises RequestError."""
        return self._known.get(call.key) or self._ask(call, deadline)

    def rebuilt(self, call: Call, inputs: object, used: ModelMetadata, deadline: Deadline) -> bytes | None:
        """The request from fresh metadata, None where that is the old: a swap may have changed the element types."""
        fresh = self._ask(call, deadline)
        if fresh is None or fresh.signatures == used.signatures:
            return None
        return call.encode(described_arrays(inputs, fresh, call.signature))

    def may_repeat(self, call: Call, stateful: bool | None, error: RequestError, deadline: Deadline) -> bool:
        """Whether a prediction that failed so may be sent again. In doubt not: the model might remember the first."""
        if error.accepted is False:
            return True
        if stateful is not None:
            return not stateful
        known = self._known.get(call.key)
        if known is None:
            left = deadline.left()
            try:
                # Whoever answered is probably gone: wait for the connection instead of failing as the request did.
                known = self._ask(
                    call,
                    Deadline(METADATA_TIMEOUT if left is None else min(left, METADATA_TIMEOUT)),
                    wait_for_ready=True,
                )
            except RequestError:
                return False
        return known is None or not known.stateful

    def _ask(self, call: Call, deadline: Deadline, wait_for_ready: bool | None = None) -> ModelMetadata | None:
        try:
            answer = self._connection.invoke(
                self._get_metadata,
                metadata_request(*call.key),
                deadline=deadline,
                model=call.model,
                may_repeat=lambda error, left: True,
                wait_for_ready=wait_for_ready,
            )
        except RequestError as error:
            if is_final_refusal(error):
                return None
            raise
        found = to_metadata(answer)
        self._known.put(call.key, found)
        return found
