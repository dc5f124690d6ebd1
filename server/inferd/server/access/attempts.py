"""How many signatures of strangers are verified: what fails is counted for its address.

A verification takes up to a millisecond or two of the thread that serves everybody. A token that was good once is
outside of this, so that nobody who was let in is locked out by others behind the same address.
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

RATE: Final = 20.0  # failures per second of one address
BURST: Final = 40  # failures at once after a pause
_ADDRESSES: Final = 4096  # that are remembered; one that is forgotten begins anew
_TOKENS: Final = 4096  # good ones that are remembered


class Attempts:
    """Lives as long as the server: new keys are no new attempts. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._lock: Final = Lock()
        self._left: Final = Recent[str, RateBucket](_ADDRESSES)
        self._good: Final = Recent[bytes, bool](_TOKENS)

    def verified(self, digest: bytes, call: Credentials, verify: Callable[[], Caller]) -> Caller:
        """What `verify` gives for the token of this digest. Raises Unauthenticated, too, without asking it where too
        much of this address has failed lately."""
        if self._good.get(digest):
            try:
                return verify()
            except Unauthenticated:
                self._good.put(digest, False)
                raise
        left = self._of(address_of(call.peer))
        with self._lock:
            pause = left.take(self._clock())
        if pause:
            raise Unauthenticated(
                f"expected fewer bad tokens from one address: too many came, and this one was not looked at; the next"
                f" one will be in {pause:.2f} s"
            )
        identity = verify()
        with self._lock:
            left.give_back()
        self._good.put(digest, True)
        return identity

    def _of(self, address: str) -> RateBucket:
        found = self._left.get(address)
        if found is None:
            found = RateBucket(RATE, BURST, self._clock())
            self._left.put(address, found)
        return found
