"""What a caller may do: scopes, for the models whose names match."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from inferd.server.access.recent import Recent
from inferd.server.errors import Forbidden, ServingError, Unauthenticated

_MODELS: Final = 1024  # names whose answer is remembered, for each set of grants
_SHOWN: Final = 100  # characters of a name that are shown in a refusal
_LONGEST: Final = 256  # characters of a name that is remembered: callers may send any
NEEDED: Final = "expected 'authorization: Bearer TOKEN'"


class Scope(enum.Enum):
    """Kinds of actions. `admin` includes `metadata`: an operator sees what is operated."""

    PREDICT = "predict"
    METADATA = "metadata"
    ADMIN = "admin"

    __hash__ = object.__hash__  # Enum's own is computed in Python, for every look-up


class Grants:
    """Scopes and patterns of models. Thread-safe. Compared by identity: `Authority` makes equal grants once."""

    def __init__(self, scopes: Iterable[str], models: Iterable[str], *, anonymous: bool = False) -> None:
        """`scopes` by their names; `models` are shell patterns; `anonymous`: of callers without credentials."""
        given = {Scope(name) for name in scopes}
        if Scope.ADMIN in given:
            given.add(Scope.METADATA)
        self.scopes: Final = frozenset(given)
        self.models: Final = tuple(models)
        self.anonymous: Final = anonymous
        self._every: Final = "*" in self.models
        self._known: Final = Recent[str, bool](_MODELS)

    def allows(self, scope: Scope, model: str) -> bool:
        """Whether this may be done with a model, whether or not there is one of this name."""
        return scope in self.scopes and self.covers(model)

    def allows_all(self, scope: Scope) -> bool:
        """Whether this may be done with every model."""
        return scope in self.scopes and self._every

    def covers(self, model: str) -> bool:
        """Whether a model's name matches a pattern. Remembered for names of usual length."""
        if self._every:
            return True
        known = self._known.young.get(model)
        if known is None:
            known = self._known.get(model)
        if known is None:
            known = any(fnmatchcase(model, pattern) for pattern in self.models)
            if len(model) <= _LONGEST:
                self._known.put(model, known)
        return known

    def refusal(self, scope: Scope | None, model: str | None = None) -> ServingError:
        """The error for a caller with these grants: the same whether or not there is such a model. `scope`: None where
        any credentials will do."""
        if self.anonymous:
            return Unauthenticated(f"{NEEDED}, got none")
        if scope is None:
            return Forbidden("expected credentials, got none that count")
        what = "" if model is None else f" for model {model[:_SHOWN]!r}"
        return Forbidden(f"expected credentials with the scope {scope.value!r}{what}, got others")


EVERYTHING: Final = Grants((scope.value for scope in Scope), ("*",))
"""Every scope for every model: the grants of all callers where nobody needs credentials."""
