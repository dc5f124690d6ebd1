"""Signed tokens, verified at a bounded cost whatever clients send."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from inferd.server.access.attempts import Attempts
from inferd.server.access.caller import Caller, Credentials
from inferd.server.access.jwt_tokens import JwtTokens
from inferd.server.access.recent import Recent
from inferd.server.errors import Unauthenticated

_REFUSED: Final = 4096  # tokens whose refusal is remembered
MEMORY: Final = 10.0  # seconds for which a refusal is remembered


class SignedTokens:
    """The tokens of one key set. Thread-safe.

    A token that failed is refused without another look for `MEMORY` seconds. A token whose claims are wrong is refused
    before its signature is verified. Signatures are verified within the bound of `attempts`.
    """

    def __init__(self, tokens: JwtTokens, attempts: Attempts, clock: Callable[[], float]) -> None:
        self._tokens: Final = tokens
        self._attempts: Final = attempts
        self._clock: Final = clock
        self._refused: Final = Recent[bytes, tuple[float, str]](_REFUSED)

    def verify(self, token: str, call: Credentials) -> Caller:
        """The caller that the token was issued to. Raises Unauthenticated, whose text shows nothing of the token."""
        digest = sha256(token.encode()).digest()
        refused = self._refused.get(digest)
        if refused is not None and self._clock() < refused[0]:
            raise Unauthenticated(refused[1])
        key = self._tokens.look(token)

        def verify() -> Caller:
            try:
                return self._tokens.verify(token, key)
            except Unauthenticated as error:
                self._refused.put(digest, (self._clock() + MEMORY, error.message))
                raise

        return self._attempts.verified(digest, call, verify)
