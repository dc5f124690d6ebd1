"""Who a caller is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.server.access.grants import Grants


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A caller. `name` is "" for one without credentials, "jwt:..." and "certificate:..." for what came from there, so
    that nobody takes another's name. `until`: seconds since the epoch after which the credentials count no more."""

    name: str
    grants: Grants
    until: float = math.inf


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
        """Common name and alternative names of the client's certificate, once it is verified; else none."""
        ...
