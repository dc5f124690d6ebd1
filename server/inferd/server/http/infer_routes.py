"""The routes that infer. They are matched here and not by the web framework, whose part of a short request would cost
more than all else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from inferd.server.http.error_boundary import RestErrorBoundary, RoutedRequest
    from inferd.server.http.reply import Reply


class InferEndpoint(Protocol):
    """Answers the requests of one protocol. Used on the event loop."""

    @property
    def boundary(self) -> RestErrorBoundary: ...

    async def __call__(self, request: RoutedRequest, target: InferTarget) -> Reply:
        """Reads the body of a request, and answers it."""
        ...


@dataclass(frozen=True, slots=True)
class InferTarget:
    """What the path of a request names.

    method    verb and template of the route, as the log names what was called
    version   a number or a label as text on the Open Inference Protocol, only digits on TensorFlow Serving's; "": none
    label     None: none
    """

    method: str
    endpoint: InferEndpoint
    model: str
    version: str = ""
    label: str | None = None


class InferRoutes:
    """Finds the target of a path."""

    def __init__(self, routes: Sequence[tuple[str, str, InferEndpoint]]) -> None:
        """Each route is its template, the pattern of its paths (with the groups model, version and label), and its
        endpoint."""
        self._routes = [(f"POST {template}", re.compile(pattern), endpoint) for template, pattern, endpoint in routes]

    def match(self, path: str) -> InferTarget | None:
        """The target of a POST to this decoded path. None: no route that infers; the web framework knows the others."""
        for method, pattern, endpoint in self._routes:
            found = pattern.fullmatch(path)
            if found is not None:
                return InferTarget(method, endpoint, **found.groupdict())
        return None
