"""A bound on failed signatures: failures are counted for the address that they come from.

Verifying a signature takes the thread that serves every call up to two milliseconds. A token that was valid once is
always verified, so that failures of others behind the same address do not lock out its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from inferd.server.access.caller import Caller, Credentials
from inferd.server.access.client_limits import address_of
from inferd.server.access.rate_bucket import RateBucket
from inferd.server.access.recent import Recent
from inferd.server.errors import Unauthenticated

RATE: Final = 20.0  # failures of one address per second
BURST: Final = 40  # failures at once after a pause
_ADDRESSES: Final = 4096  # addresses that are remembered; a forgotten one begins with the whole burst
_TOKENS: Final = 4096  # valid tokens that are remembered


class Attempts:
    """The failures of one server's callers. A change of the keys does not reset the count. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._lock: Final = Lock()
        self._buckets: Final = Recent[str, RateBucket](_ADDRESSES)
        self._good: Final = Recent[bytes, bool](_TOKENS)

    def verified(self, digest: bytes, call: Credentials, verify: Callable[[], Caller]) -> Caller:
        """The result of `verify` for the token with this digest. Raises Unauthenticated as `verify` does; and without
        calling it, when too many tokens of this address have failed lately."""
        if self._good.get(digest):
            try:
                return verify()
            except Unauthenticated:
                self._good.put(digest, False)
                raise
        bucket = self._bucket(address_of(call.peer))
        with self._lock:
            pause = bucket.take(self._clock())
        if pause:
            raise Unauthenticated(
                f"expected fewer bad tokens from one address: too many came, and this one was not looked at; the next"
                f" one will be in {pause:.2f} s"
            )
        identity = verify()
        with self._lock:
            bucket.give_back()
        self._good.put(digest, True)
        return identity

    def _bucket(self, address: str) -> RateBucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = RateBucket(RATE, BURST, self._clock())
            self._buckets.put(address, bucket)
        return bucket
