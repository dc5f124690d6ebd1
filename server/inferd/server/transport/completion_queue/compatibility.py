"""Whether the completion-queue transport works with the installed grpcio.

An upgrade that changes grpcio's private binding must cause a log line and the use of the public transport, never an
outage. So an untested minor version is not tried at all; a tested one must have all parts of the binding and must
answer one call over loopback.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence

import grpc

from inferd.server.config.schema import Inflight as InflightConfig
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport import listen
from inferd.server.transport.calls import MethodTable, UnaryCall

TESTED = ("1.81", "1.85")
"""Minor versions of grpcio with which the protocol and fault tests have passed."""

_PARTS = (
    "CompletionQueue", "Server", "ReceiveCloseOnServerOperation", "ReceiveMessageOperation",
    "SendInitialMetadataOperation", "SendMessageOperation", "SendStatusFromServerOperation",
)  # fmt: skip
_ECHO = "/inferd.SelfCheck/Echo"
_LIMIT = 5.0  # seconds for the call over loopback


def why_not() -> str | None:
    """None when the completion queue can be used; else the reason, for a log line. Takes a few milliseconds."""
    version = str(grpc.__version__)
    if ".".join(version.split(".")[:2]) not in TESTED:
        return f"grpcio {version} is not one of those tested ({', '.join(f'{minor}.x' for minor in TESTED)})"
    try:
        from grpc._cython import cygrpc
    except ImportError as error:
        return f"grpcio {version} has no core binding: {error}"
    missing = [part for part in _PARTS if not hasattr(cygrpc, part)]
    if missing:
        return f"the core binding of grpcio {version} lacks {', '.join(missing)}"
    try:
        return _loopback()
    except Exception as error:
        return f"a first call to itself failed: {type(error).__name__}: {error}"


def _loopback() -> str | None:
    from inferd.server.transport.completion_queue.transport import CompletionQueueTransport

    def echo(calls: Sequence[UnaryCall], _arrived_at: float) -> None:
        (call,) = calls
        call.reply(call.request)

    failed: concurrent.futures.Future[None] = concurrent.futures.Future()
    transport = CompletionQueueTransport(
        MethodTable({_ECHO: echo}, {}),
        ServerConfig(),
        InflightBounds(InflightConfig()),
        [listen.Address("127.0.0.1:0")],
        on_fatal=lambda: failed.set_result(None),
    )
    (address,) = transport.start()
    try:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            answer = channel.unary_unary(_ECHO)(b"check", timeout=_LIMIT)
    finally:
        transport.stop(_LIMIT)
    if answer != b"check" or failed.done():
        return f"a first call to itself answered {answer!r} instead of b'check'"
    return None
