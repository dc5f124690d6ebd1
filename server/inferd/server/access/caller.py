"""Who calls, and what a call shows of its caller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.server.access.grants import Grants


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A caller, known by its credentials: its name and what it may do. Shared by all calls with the same credentials.

    name    "" without credentials; "jwt:..." and "certificate:..." say where a name comes from, so that no caller can
            take the name of another
    until   seconds since the epoch after which the credentials no longer count
    peer    the caller's address for people; "" unless the caller was located (see `AccessRules.authenticate`)
    local   the caller is on the server's own machine and not behind a proxy; False unless the caller was located
    """

    name: str
    grants: Grants
    until: float = math.inf
    peer: str = ""
    local: bool = False

    @property
    def operator(self) -> str:
        """What a located caller is called in the record of an operator's action: its name, else its address."""
        return self.name or self.peer


class Credentials(Protocol):
    """What a call shows of its caller, on every transport."""

    @property
    def peer(self) -> str:
        """The client's address in gRPC's form: "ipv4:127.0.0.1:5000", "ipv6:[::1]:5000", "unix:..."."""
        ...

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key or header (lower case)."""
        ...

    def certificate(self) -> Sequence[str]:
        """Common name and alternative names of the client's verified certificate; empty without one."""
        ...
