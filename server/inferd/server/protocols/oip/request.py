"""A request of the Open Inference Protocol in no protocol's words."""

from __future__ import annotations

from inferd.server.inference.service import Query
from inferd.server.protocols.oip.error_messages import version_of
from inferd.server.protocols.oip.request_options import RequestOptions
from inferd.wire.oip import OipRequest
from inferd.wire.tensors import decode


def query(
    protocol: str, request: OipRequest, asked: RequestOptions, deadline: float | None, nbytes: int, started: float
) -> Query:
    """Inputs in shared memory are read now. Raises InvalidRequest for a version that cannot be one, WireError for
    shared inputs that do not have the bytes of their shape."""
    version, label = version_of(request.model_version)
    for name, place in asked.sources.items():
        given = request.shared[name]
        request.inputs[name] = decode(name, given.dtype, given.shape, place.read())
        nbytes += place.size
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
        form=request.form,
    )
