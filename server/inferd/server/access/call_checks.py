"""The rule book with what else the edges ask of every call: its request id."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority
from inferd.server.access.caller import Credentials
from inferd.server.access.client_limits import Limiter
from inferd.server.access.grants import Scope
from inferd.server.access.locality import is_local
from inferd.server.access.rules import AccessRules, make_access_rules
from inferd.server.config.schema import Admin, ServerConfig


class CallChecks(AccessRules):
    """The rules, and request ids. Thread-safe."""

    def __init__(self, admin: Admin, authority: Authority | None = None, limiter: Limiter | None = None) -> None:
        super().__init__(admin, authority, limiter)
        # Unique across servers without asking the system for randomness on every request.
        self._prefix = secrets.token_hex(4)
        self._count = itertools.count(1)

    def local(self, call: Credentials) -> bool:
        """Whether the caller is on this machine and not behind a proxy, as far as it can be told."""
        return is_local(call)

    def admit_admin(self, call: Credentials) -> str:
        """Gives what the caller is called in the record. Raises Forbidden, Unauthenticated."""
        caller = self.authenticate(call, locate=True)
        self.authorize(caller, Scope.ADMIN)
        return caller.operator

    def request_id(self, call: Credentials, given: str) -> str:
        """The request's own id, else the one in metadata, else a new one."""
        return given or call.metadata("x-request-id") or f"{self._prefix}-{next(self._count):x}"

    def new_id(self) -> str:
        """An id that no other request has."""
        return f"{self._prefix}-{next(self._count):x}"


def make_call_checks(config: ServerConfig) -> CallChecks:
    """With all that the settings ask for. Raises ConfigError."""
    rules = make_access_rules(config)
    return CallChecks(config.admin, rules.authority, rules.limiter)
