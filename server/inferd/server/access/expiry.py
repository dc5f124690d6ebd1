"""When the credentials of a server expire: its certificates and authorities, and the tokens of its callers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority
    from inferd.server.access.tls import TlsFiles

TOKENS: Final = "tokens"
"""Stands for the tokens of `auth.tokens_file` in `next_expiries`: it may hold many."""
SOON: Final = 14 * 86400.0
"""Seconds before its end at which a credential is worth a warning."""


class Expiry:
    """Reads what the files hold now. Thread-safe: the parts that it asks are. `clock` gives Unix time."""

    def __init__(self, authority: Authority | None, tls: Sequence[TlsFiles], clock: Callable[[], float] = time) -> None:
        self._authority = authority
        self._tls = tuple(tls)
        self._clock = clock

    def next_expiries(self) -> Mapping[str, float]:
        """By credential ("server.tls.certificate", "tokens"): the Unix time at which the next one expires that has not
        expired; of a certificate also when it has."""
        now = self._clock()
        found = self._certificates()
        left = [until for until in self._tokens().values() if now < until < math.inf]
        return found | ({TOKENS: min(left)} if left else {})

    def expired_tokens(self) -> int:
        """The number of tokens in the file that have expired."""
        now = self._clock()
        return sum(until <= now for until in self._tokens().values())

    def warnings(self) -> Iterator[str]:
        """For operators: what has expired, and what soon will. Names of entries and settings, no secrets."""
        now = self._clock()
        everything = {f"the token {name!r}": until for name, until in self._tokens().items()}
        everything |= {f"the certificate of {where}": until for where, until in self._certificates().items()}
        for what, until in everything.items():
            if until - now > SOON:
                continue
            moment = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M UTC")
            yield f"{what} {'expires' if until > now else 'has expired'} on {moment}"

    def _tokens(self) -> Mapping[str, float]:
        return {} if self._authority is None else self._authority.token_expiries

    def _certificates(self) -> dict[str, float]:
        return {where: until for files in self._tls for where, until in files.expiries.items()}
