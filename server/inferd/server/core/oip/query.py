"""A request of the Open Inference Protocol in no protocol's words."""

from __future__ import annotations

from inferd.server.core.inference import Query
from inferd.server.core.oip.options import Options
from inferd.server.core.oip.words import version_of
from inferd.wire.oip import OipRequest


def query(
    protocol: str, request: OipRequest, asked: Options, deadline: float | None, nbytes: int, started: float
) -> Query:
    """Raises InvalidRequest for a version that cannot be one."""
    version, label = version_of(request.model_version)
    return Query(
        protocol,
        request.model_name,
        version,
        label,
        "",
        request.inputs,
        tuple(dict.fromkeys(output.name for output in request.outputs)),
        asked.priority,
        asked.queue_timeout,
        deadline,
        nbytes,
        started,
    )
