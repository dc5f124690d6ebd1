"""Whether a caller may load the models of an ensemble's steps, which a load of the ensemble loads with it."""

from __future__ import annotations

from collections.abc import Iterable

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.access.rules import AccessRules
from inferd.server.errors import NotFound, ServingError
from inferd.server.lifecycle.interfaces import ManagerLike


def authorize_parts(rules: AccessRules, manager: ManagerLike, caller: Caller, names: Iterable[str]) -> None:
    """Raises Forbidden or Unauthenticated if a load of these models would load a step's model, at any depth, that the
    caller may not operate. The text does not name that model."""
    waiting = list(names)
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        try:
            parts = manager.status(name).parts
        except NotFound:
            continue
        for part in parts:
            if part in seen:
                continue
            seen.add(part)
            waiting.append(part)
            if manager.serving(part) is None:
                try:
                    rules.authorize(caller, Scope.ADMIN, part)
                except ServingError as error:
                    raise type(error)(
                        f"model {name[:100]!r} is an ensemble, and the model of a step is not served: expected "
                        "credentials with the scope 'admin' for that model, got others"
                    ) from None
