"""The methods of the blocking client for the state of models and for operators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import grpc

from inferd.client._shared.arguments import metadata_request, model_request
from inferd.client._shared.config import ADMIN_TIMEOUT
from inferd.client._shared.core import Deadline, request_error
from inferd.client._shared.errors import ClientClosed
from inferd.client._shared.models import (
    AdminReply,
    ModelMetadata,
    ModelStatus,
    VersionChange,
    to_change,
    to_metadata,
    to_model_status,
)
from inferd.client._sync.connection import Connection
from inferd.v1 import model_service_pb2 as pb
from inferd.v1 import model_service_pb2_grpc


class AdminCalls:
    """The methods of `Client` that call inferd.v1.ModelService. Thread-safe.

    Queries (list_models, status, metadata) are retried like predictions; their default timeout is the client's. Changes
    (load, unload, set_label, rollback) are never retried; their default timeout is 300 s. After a lost connection it is
    not known whether a change was made: use `status`. All methods raise RequestError, InvalidInput and ClientClosed.
    """

    timeout: float

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = model_service_pb2_grpc.ModelServiceStub(connection.channel)  # type: ignore[no-untyped-call]

    def list_models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """The state of every model, sorted by name."""
        answer = self._ask(self._stub.ListModels, pb.ListModelsRequest(), "", timeout)
        return tuple(map(to_model_status, answer.models))

    def status(self, model: str, *, timeout: float | None = None) -> ModelStatus:
        """The state of one model. Raises NotFound."""
        answer = self._ask(self._stub.GetModelStatus, model_request(pb.GetModelStatusRequest, model), model, timeout)
        return to_model_status(answer.model)

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """The signatures of a version. Without `version` and `label`, the newest available version is described.
        Raises NotFound, and Unavailable if the version is not available."""
        request = metadata_request(model, version, label)
        return to_metadata(self._ask(self._stub.GetModelMetadata, request, model, timeout))

    def watch(self, model: str | None = None, *, timeout: float | None = None) -> Iterator[VersionChange]:
        """Yields the current state of every version, then every change.

        `model` limits it to one model. The watch ends when the server shuts down, or after `timeout` seconds (None: no
        limit) without an error. Leaving the loop ends the call. Raises RequestError if the connection breaks; call
        `watch` again to continue.
        """
        self._connection.check()
        request = model_request(pb.WatchModelsRequest, model or "")
        return self._watching(request, Deadline(math.inf if timeout is None else timeout).timeout)

    def load(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Loads a model, or one version of it, and waits until it is available or has failed. Ends an earlier `unload`
        or `rollback` of the model."""
        request = model_request(pb.LoadModelRequest, model, version=version)
        return self._change(self._stub.LoadModel, request, model, timeout)

    def unload(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Takes a model, or one version of it, out of service until `load` is called. Requests in flight are
        finished."""
        request = model_request(pb.UnloadModelRequest, model, version=version)
        return self._change(self._stub.UnloadModel, request, model, timeout)

    def set_label(self, model: str, label: str, version: int | None, *, timeout: float | None = None) -> AdminReply:
        """Assigns a label to an available version; `version` None removes the label."""
        request = model_request(pb.SetLabelRequest, model, label=label, version=version)
        return self._change(self._stub.SetLabel, request, model, timeout)

    def rollback(self, model: str, *, to: int | None = None, timeout: float | None = None) -> AdminReply:
        """Pins a model to an earlier version (None: the next older one) and waits until that version is available."""
        request = model_request(pb.RollbackRequest, model, to=to)
        return self._change(self._stub.Rollback, request, model, timeout)

    def _ask(self, method: Any, request: object, model: str, timeout: float | None) -> Any:
        deadline = Deadline(self.timeout if timeout is None else timeout)
        return self._connection.invoke(
            method, request, deadline=deadline, model=model, may_repeat=lambda error, deadline: True
        )

    def _change(self, method: Any, request: object, model: str, timeout: float | None) -> AdminReply:
        deadline = Deadline(ADMIN_TIMEOUT if timeout is None else timeout)
        answer = self._connection.invoke(method, request, deadline=deadline, model=model)
        return AdminReply(to_model_status(answer.model), answer.persistent)

    def _watching(self, request: pb.WatchModelsRequest, timeout: float | None) -> Iterator[VersionChange]:
        call = self._connection.stream_call(self._stub.WatchModels, request, timeout)
        try:
            for message in call:
                yield to_change(message)
        except grpc.RpcError as failure:
            error = request_error(failure, request.name)
            if self._connection.closing:
                raise ClientClosed("the client was closed while it watched") from None
            if timeout is None or error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._connection.diagnosis.explained(error) from None
        finally:
            call.cancel()
