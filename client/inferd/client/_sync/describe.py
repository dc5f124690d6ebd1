"""The models' metadata that the blocking client remembers: element types of inputs, and whether a retry is safe."""

from __future__ import annotations

from typing import Any

from inferd.client._shared.arguments import metadata_request
from inferd.client._shared.core import METADATA_TIMEOUT, Call, Deadline, MetadataCache, is_final_refusal
from inferd.client._shared.errors import RequestError
from inferd.client._shared.inputs import described_arrays
from inferd.client._shared.models import ModelMetadata, to_metadata
from inferd.client._sync.connection import Connection


class Describer:
    """Fetches and remembers the metadata of models. Thread-safe; if two threads fetch the same metadata at the same
    time, it is fetched twice, which does no harm."""

    def __init__(self, connection: Connection, get_metadata: Any) -> None:
        self._connection = connection
        self._get_metadata = get_metadata
        self._known = MetadataCache()

    def describe(self, call: Call, deadline: Deadline) -> ModelMetadata | None:
        """The metadata of the call's model; None if the server does not offer metadata. Raises RequestError."""
        return self._known.get(call.key) or self._ask(call, deadline)

    def rebuilt(self, call: Call, inputs: object, used: ModelMetadata, deadline: Deadline) -> bytes | None:
        """The request, made again from the model's current metadata; None if its signatures equal those of `used`.
        Another version may have become the served one, with other element types. Raises RequestError."""
        fresh = self._ask(call, deadline)
        if fresh is None or fresh.signatures == used.signatures:
            return None
        return call.encode(described_arrays(inputs, fresh, call.signature))

    def may_repeat(self, call: Call, stateful: bool | None, error: RequestError, deadline: Deadline) -> bool:
        """Whether a prediction that failed with `error` may be sent again. False in case of doubt: the model may keep
        state, and may have received the first request."""
        if error.accepted is False:
            return True
        if stateful is not None:
            return not stateful
        known = self._known.get(call.key)
        if known is None:
            remaining = deadline.remaining()
            try:
                # The server is probably gone: wait for a connection instead of failing at once as the request did.
                known = self._ask(
                    call,
                    Deadline(METADATA_TIMEOUT if remaining is None else min(remaining, METADATA_TIMEOUT)),
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
                may_repeat=lambda error, deadline: True,
                wait_for_ready=wait_for_ready,
            )
        except RequestError as error:
            if is_final_refusal(error):
                return None
            raise
        found = to_metadata(answer)
        self._known.put(call.key, found)
        return found
