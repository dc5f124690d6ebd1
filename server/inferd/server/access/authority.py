"""From a call to the identity of its caller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Final

from inferd.server.access.attempts import Attempts
from inferd.server.access.caller import Caller, Credentials
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.grants import NEEDED, Grants
from inferd.server.access.jwt_tokens import JwtTokens
from inferd.server.access.recent import Recent
from inferd.server.access.signed_tokens import SignedTokens
from inferd.server.access.static_tokens import StaticTokens
from inferd.server.config.access_schema import Auth
from inferd.server.config.errors import ConfigError, Problem
from inferd.server.errors import Unauthenticated
from inferd.server.observability.events import event, get

_log = get("security")

HEADER: Final = "authorization"
_TOKENS: Final = 4096  # verified tokens that are remembered
_LONGEST: Final = 8192  # characters of a token; a longer one is not looked into


class _AuthorityState:
    """What counts until a file changes: the verifiers, and what they have verified."""

    __slots__ = ("known", "signed", "static")

    def __init__(self, static: StaticTokens | None, signed: SignedTokens | None) -> None:
        self.static: Final = static
        self.signed: Final = signed
        self.known: Final = Recent[str, Caller](_TOKENS)


class Authority:
    """Tells callers apart. Thread-safe. `open` names what needs no credentials.

    A call costs one look-up by its `authorization`: a token that was verified is remembered until it expires or a file
    changes. `clock` gives seconds for what bad tokens may cost.
    """

    def __init__(self, config: Auth, clock: Callable[[], float] = monotonic) -> None:
        """Reads the files. Raises ConfigError."""
        self._config: Final = config
        self._clock: Final = clock
        self._attempts: Final = Attempts(clock)
        self._grants: Final = Recent[object, Grants](_TOKENS)
        self._certified: Final = Recent[tuple[str, ...], Caller](_TOKENS)
        self._certificates: Final = {
            name: Caller(f"certificate:{name}", self._granted(given.scopes, given.models))
            for name, given in config.certificates.items()
        }
        unknown = config.anonymous
        self.anonymous: Final = Caller("", Grants(unknown.scopes, unknown.models, anonymous=True))
        self.open: Final = frozenset(config.open)
        self._state = self._read()

    def identify(self, call: Credentials) -> Caller:
        """Who calls; the anonymous identity where a call shows nothing. Raises Unauthenticated for credentials that do
        not count."""
        known = self.remembered(call)
        if known is not None:
            return known
        given = call.metadata(HEADER)
        if given is None:
            return self._by_certificate(call.certificate())
        return self._verified(self._state, given, call)

    def remembered(self, call: Credentials) -> Caller | None:
        """The same for a caller who was identified before; None where that has to be found out. Never raises."""
        given = call.metadata(HEADER)
        if given is not None:
            known = self._state.known.get(given)
            return known if known is not None and time() < known.until else None
        return self._certified.get(tuple(call.certificate())) if self._certificates else self.anonymous

    def watch(self, files: FileWatch) -> None:
        """Takes over what changes in the files, and keeps what was where that cannot be used."""
        paths = [path for path in (self._config.tokens_file, self._jwks_file) if path is not None]
        if paths:
            files.follow("credentials", paths, self._again)

    @property
    def _jwks_file(self) -> str | None:
        return None if self._config.jwt is None else self._config.jwt.jwks_file

    def _read(self) -> _AuthorityState:
        config = self._config
        problems: list[Problem] = []
        static, tokens = None, None
        try:
            static = None if config.tokens_file is None else StaticTokens(Path(config.tokens_file), self._granted)
        except ConfigError as error:
            problems.extend(error.problems)
        try:
            tokens = None if config.jwt is None else JwtTokens(config.jwt, self._granted)
        except ConfigError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)
        signed = None if tokens is None else SignedTokens(tokens, self._attempts, self._clock)
        return _AuthorityState(static, signed)

    def _again(self) -> None:
        self._state = self._read()  # with an empty memory: what was taken back is not remembered either
        static = self._state.static
        event(_log, logging.INFO, "credentials read again", entries=None if static is None else len(static))

    def _verified(self, state: _AuthorityState, given: str, call: Credentials) -> Caller:
        kind, _, token = given.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Unauthenticated(f"{NEEDED}, got another form")
        if len(token) > _LONGEST:
            raise Unauthenticated(f"expected a token of at most {_LONGEST} characters, got more")
        identity = None if state.static is None else state.static.find(token.encode())
        if identity is None and state.signed is not None and token.count(".") == 2:
            identity = state.signed.verify(token, call)
        if identity is None:
            raise Unauthenticated("expected a token that is known here, got another")
        if time() >= identity.until:
            raise Unauthenticated("expected a token that has not expired, got one that has")
        state.known.put(given, identity)
        return identity

    def _by_certificate(self, names: Sequence[str]) -> Caller:
        if not names:
            return self.anonymous
        key = tuple(names)
        known = self._certified.get(key)
        if known is None:
            known = next((self._certificates[name] for name in key if name in self._certificates), self.anonymous)
            self._certified.put(key, known)
        return known

    def _granted(self, scopes: Iterable[str], models: Iterable[str]) -> Grants:
        """One object for equal grants: what is made for each kind of caller is made once."""
        key = (frozenset(scopes), tuple(models))
        found = self._grants.get(key)
        if found is None:
            found = Grants(*key)
            self._grants.put(key, found)
        return found


def make_authority(config: Auth) -> Authority | None:
    """None where nobody needs credentials. Raises ConfigError."""
    return Authority(config) if config.enabled else None
