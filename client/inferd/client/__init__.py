"""The Python client of inferd: NumPy in, NumPy out.

    from inferd.client import Client

    with Client("localhost:8001") as client:
        answer = client.predict("digits", {"image": array})
        answer["probabilities"], answer.version

`AsyncClient` has the same shape for asyncio. Everything public is here; the modules behind are private.
"""

from inferd.wire.dtypes import DType

from ._aio import AsyncClient
from ._aio_stream import AsyncPredictStream
from ._config import NO_RETRIES, KeepAlive, RetryPolicy, Tls
from ._errors import (
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    FailedPrecondition,
    InferdError,
    InvalidArgument,
    InvalidInput,
    InvalidResponse,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from ._models import (
    AdminReply,
    ModelMetadata,
    ModelStatus,
    Override,
    Signature,
    TensorSpec,
    VersionChange,
    VersionState,
    VersionStatus,
)
from ._prediction import Prediction
from ._stream import PredictStream
from ._sync import Client

__all__ = [
    "NO_RETRIES",
    "AdminReply",
    "AsyncClient",
    "AsyncPredictStream",
    "Cancelled",
    "Client",
    "ClientClosed",
    "DType",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InferdError",
    "InvalidArgument",
    "InvalidInput",
    "InvalidResponse",
    "KeepAlive",
    "ModelMetadata",
    "ModelStatus",
    "NotFound",
    "Overloaded",
    "Override",
    "PermissionDenied",
    "PredictStream",
    "Prediction",
    "RequestError",
    "RetryPolicy",
    "ServerFailure",
    "Signature",
    "TensorSpec",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "VersionChange",
    "VersionState",
    "VersionStatus",
]
