"""The Python client of inferd: NumPy arrays in, NumPy arrays out.

    from inferd.client import Client

    with Client("localhost:8001") as client:
        answer = client.predict("digits", {"image": array})
        answer["probabilities"], answer.version

`AsyncClient` has the same methods for asyncio. Every public name is in this package; its modules are private.
"""

from inferd.client._aio.client import AsyncClient
from inferd.client._aio.stream import AsyncPredictStream
from inferd.client._shared.config import NO_RETRIES, KeepAlive, RetryPolicy, Tls
from inferd.client._shared.errors import (
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    FailedPrecondition,
    InferdError,
    InvalidArgument,
    InvalidInput,
    InvalidResponse,
    MessageTooLarge,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from inferd.client._shared.models import (
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
from inferd.client._shared.prediction import Prediction
from inferd.client._shared.values import Inputs, InputValue
from inferd.client._sync.client import Client
from inferd.client._sync.stream import PredictStream
from inferd.wire.dtypes import DType

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
    "InputValue",
    "Inputs",
    "InvalidArgument",
    "InvalidInput",
    "InvalidResponse",
    "KeepAlive",
    "MessageTooLarge",
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
