"""From the credentials of a call to its caller."""

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
_LONGEST: Final = 8192  # characters of a token; a longer one is refused unread


class _AuthorityState:
    """The verifiers, and the tokens that they have verified. Replaced as a whole when a file changes."""

    __slots__ = ("known", "signed", "static")

    def __init__(self, static: StaticTokens | None, signed: SignedTokens | None) -> None:
        self.static: Final = static
        self.signed: Final = signed
        self.known: Final = Recent[str, Caller](_TOKENS)


class Authority:
    """Finds out who calls. Thread-safe. `open` is the setting `auth.open`: what needs no credentials.

    A call costs one look-up of its `authorization`: a verified token is remembered until it expires or a file changes.
    `clock` gives seconds, for the bound on failed tokens.
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
        granted = config.anonymous
        self.anonymous: Final = Caller("", Grants(granted.scopes, granted.models, anonymous=True))
        self.open: Final = frozenset(config.open)
        self._state = self._read()

    def identify(self, call: Credentials) -> Caller:
        """Who calls; `anonymous` for a call without credentials. Raises Unauthenticated for credentials that are not
        valid."""
        authorization = call.metadata(HEADER)
        if authorization is None:
            return self._by_certificate(call.certificate()) if self._certificates else self.anonymous
        state = self._state
        known = state.known.young.get(authorization) or state.known.get(authorization)
        if known is not None and time() < known.until:
            return known
        return self._verified(state, authorization, call)

    def watch(self, files: FileWatch) -> None:
        """Reads the files again when they change. Unusable content leaves the present state in force."""
        paths = [path for path in (self._config.tokens_file, self._jwks_file) if path is not None]
        if paths:
            files.follow("credentials", paths, self._reload)

    @property
    def token_expiries(self) -> dict[str, float]:
        """By name of a token in the file, as it is now: when it expires, in Unix time; infinity: never."""
        static = self._state.static
        return {} if static is None else static.expiries

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

    def _reload(self) -> None:
        self._state = self._read()  # nothing is remembered: a token that was revoked may have been
        static = self._state.static
        event(_log, logging.INFO, "credentials read again", entries=None if static is None else len(static))

    def _verified(self, state: _AuthorityState, authorization: str, call: Credentials) -> Caller:
        kind, _, token = authorization.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Unauthenticated(f"{NEEDED}, got another form")
        if len(token) > _LONGEST:
            raise Unauthenticated(f"expected a token of at most {_LONGEST} characters, got more")
        caller = None if state.static is None else state.static.find(token.encode())
        if caller is None and state.signed is not None and token.count(".") == 2:
            caller = state.signed.verify(token, call)
        if caller is None:
            raise Unauthenticated("expected a token that is known here, got another")
        if time() >= caller.until:
            raise Unauthenticated("expected a token that has not expired, got one that has")
        state.known.put(authorization, caller)
        return caller

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
        """One object for equal grants, so that decisions for a model are remembered once for all their callers."""
        key = (frozenset(scopes), tuple(models))
        found = self._grants.get(key)
        if found is None:
            found = Grants(*key)
            self._grants.put(key, found)
        return found


def make_authority(config: Auth) -> Authority | None:
    """The authority of a server; None if the settings ask nobody for credentials. Raises ConfigError."""
    return Authority(config) if config.enabled else None
