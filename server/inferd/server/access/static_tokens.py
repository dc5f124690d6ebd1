"""Bearer tokens in a file: `name: {sha256, scopes, models, expires}`. The file holds hashes of tokens, no token.

alice:
  sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  scopes: [predict, metadata]
  models: ["fraud-*"]
  expires: 2027-01-31T00:00:00Z
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Grants
from inferd.server.config.access_schema import Granted
from inferd.server.config.document import read_document
from inferd.server.config.errors import ConfigError, Problem, dotted
from inferd.server.config.layers import Layer, validated

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,128}")

GrantsOf = Callable[[Iterable[str], Iterable[str]], Grants]


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text.lower()):
        # The value is not shown: it may be the token itself.
        raise ValueError("expected the SHA-256 of the token, 64 hexadecimal digits, got something else")
    return text.lower()


def _moment(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z, got {text[:40]!r}") from None
    return text


class Entry(Granted):
    """The entry of one token."""

    sha256: Annotated[str, AfterValidator(_hash)]
    expires: Annotated[str, AfterValidator(_moment)] | None = None


class StaticTokens:
    """The tokens of one file as it was when this object was made. Thread-safe."""

    def __init__(self, file: Path, grants: GrantsOf) -> None:
        """Reads the file. Raises ConfigError, which names every wrong entry and shows no token."""
        self._by_hash: Final[dict[bytes, tuple[bytes, Caller]]] = {}
        for name, entry in _entries(file).items():
            digest = bytes.fromhex(entry.sha256)
            if digest[:8] in self._by_hash:
                raise ConfigError([Problem(str(file), dotted((name,)), "a token of its own", "another entry's")])
            caller = Caller(name, grants(entry.scopes, entry.models), _until(entry.expires))
            self._by_hash[digest[:8]] = digest, caller

    @property
    def expiries(self) -> dict[str, float]:
        """By name of the entry: seconds since the epoch at which its token expires, infinity: never."""
        return {caller.name: caller.until for _, caller in self._by_hash.values()}

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, token: bytes) -> Caller | None:
        """The caller with this token, even if it has expired; None for an unknown token."""
        digest = hashlib.sha256(token).digest()
        # The entry is found by 8 bytes of the hash: how long that takes reveals nothing, for a client cannot choose the
        # hash of its token. The comparison takes the same time wherever the hashes differ.
        known, caller = self._by_hash.get(digest[:8], (b"", None))
        return caller if hmac.compare_digest(known, digest) else None


def _entries(file: Path) -> dict[str, Entry]:
    document = read_document(file)
    problems: list[Problem] = []
    entries: dict[str, Entry] = {}
    layer = Layer(document, str(file))
    for name, given in document.items():
        line = document.line_of((name,))
        if not _NAME.fullmatch(name):
            wanted = "a name of letters, digits, '_', '.', '@' and '-', at most 128"
            problems.append(Problem(str(file), "", wanted, "another one", line=line))
        elif not isinstance(given, dict):
            problems.append(Problem(str(file), dotted((name,)), "sha256, scopes and models", "no mapping", line=line))
        else:
            try:
                entries[name] = validated(Entry, [layer.below((name,))], root=Entry)
            except ConfigError as error:
                problems.extend(replace(problem, key=f"{dotted((name,))}.{problem.key}") for problem in error.problems)
    if problems:
        raise ConfigError(problems)
    return entries


def _until(expires: str | None) -> float:
    if expires is None:
        return math.inf
    moment = datetime.fromisoformat(expires)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
