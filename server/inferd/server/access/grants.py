"""What a caller may do: scopes, for the models whose names match."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from inferd.server.access.recent import Recent
from inferd.server.errors import Forbidden, ServingError, Unauthenticated

_MODELS: Final = 1024  # names whose answer is remembered, for each scope
_SHOWN: Final = 100
_LONGEST: Final = 256  # characters of a name that is remembered: callers may send any
NEEDED: Final = "expected 'authorization: Bearer TOKEN'"


class Scope(enum.Enum):
    """Kinds of things to do. `admin` brings `metadata` with it: an operator sees what is operated."""

    PREDICT = "predict"
    METADATA = "metadata"
    ADMIN = "admin"

    __hash__ = object.__hash__  # Enum's own is computed in Python, for every look-up


class Grants:
    """Scopes and patterns of models. Thread-safe. Compared by identity: equal ones are made once, see `Authority`."""

    def __init__(self, scopes: Iterable[str], models: Iterable[str], *, anonymous: bool = False) -> None:
        """`scopes` by their names; `models` are shell patterns; `anonymous`: of callers without credentials."""
        given = {Scope(name) for name in scopes}
        if Scope.ADMIN in given:
            given.add(Scope.METADATA)
        self.scopes: Final = frozenset(given)
        self.models: Final = tuple(models)
        self.anonymous: Final = anonymous
        self._known: Final = Recent[str, bool](_MODELS)

    def allows(self, scope: Scope, model: str) -> bool:
        """Whether this may be done with a model, whether or not there is one of this name."""
        return scope in self.scopes and self.covers(model)

    def allows_all(self, scope: Scope) -> bool:
        """Whether this may be done with every model."""
        return scope in self.scopes and "*" in self.models

    def covers(self, model: str) -> bool:
        """Whether a model's name matches."""
        known = self._known.get(model)
        if known is None:
            known = any(fnmatchcase(model, pattern) for pattern in self.models)
            if len(model) <= _LONGEST:
                self._known.put(model, known)
        return known

    def refusal(self, scope: Scope | None, model: str | None = None) -> ServingError:
        """What a caller with these grants is told: the same whether or not there is such a model. `scope`: None where
        any credentials will do."""
        if self.anonymous:
            return Unauthenticated(f"{NEEDED}, got none")
        if scope is None:
            return Forbidden("expected credentials, got none that count")
        what = "" if model is None else f" for model {model[:_SHOWN]!r}"
        return Forbidden(f"expected credentials with the scope {scope.value!r}{what}, got others")
