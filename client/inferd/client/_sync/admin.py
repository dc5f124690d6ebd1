"""Questions about models and the operators' calls, blocking."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import grpc

from inferd.client._shared.arguments import asked, metadata_request
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
    """The half of `Client` that speaks inferd.v1.ModelService.

    Questions (list_models, status, metadata) are tried again as predictions are. Changes (load, unload, set_label,
    rollback) never are: after a lost connection nobody knows whether they were done; `status` tells.
    """

    timeout: float

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = model_service_pb2_grpc.ModelServiceStub(connection.channel)  # type: ignore[no-untyped-call]

    def list_models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """Every model, by name."""
        answer = self._ask(self._stub.ListModels, pb.ListModelsRequest(), "", timeout)
        return tuple(map(to_model_status, answer.models))

    def status(self, model: str, *, timeout: float | None = None) -> ModelStatus:
        """One model. Raises NotFound."""
        answer = self._ask(self._stub.GetModelStatus, asked(pb.GetModelStatusRequest, model), model, timeout)
        return to_model_status(answer.model)

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """How a version is called; neither version nor label: the newest one. Raises NotFound, Unavailable."""
        request = metadata_request(model, version, label)
        return to_metadata(self._ask(self._stub.GetModelMetadata, request, model, timeout))

    def watch(self, model: str | None = None, *, timeout: float | None = None) -> Iterator[VersionChange]:
        """The state of every version now, then every change, until the server drains or the timeout has passed.

        timeout: seconds, None: no limit, because a watch has no natural end. Leaving the loop ends the call. Raises
        RequestError when the connection breaks (a timeout simply ends it); watch again to go on.
        """
        self._connection.check()
        request = asked(pb.WatchModelsRequest, model or "")
        return self._watching(request, Deadline(math.inf if timeout is None else timeout).whole)

    def load(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Loads a model, or one version of it, and waits until it answers or has failed. Lifts an unload or a pin."""
        request = asked(pb.LoadModelRequest, model, version=version)
        return self._change(self._stub.LoadModel, request, model, timeout)

    def unload(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Takes a model, or one version of it, out of service until it is loaded again. Requests in flight finish."""
        request = asked(pb.UnloadModelRequest, model, version=version)
        return self._change(self._stub.UnloadModel, request, model, timeout)

    def set_label(self, model: str, label: str, version: int | None, *, timeout: float | None = None) -> AdminReply:
        """Points a label to an available version; version None removes the label."""
        request = asked(pb.SetLabelRequest, model, label=label, version=version)
        return self._change(self._stub.SetLabel, request, model, timeout)

    def rollback(self, model: str, *, to: int | None = None, timeout: float | None = None) -> AdminReply:
        """Pins a model to an earlier version (None: the next older one) and waits until that one answers."""
        request = asked(pb.RollbackRequest, model, to=to)
        return self._change(self._stub.Rollback, request, model, timeout)

    def _ask(self, method: Any, request: object, model: str, timeout: float | None) -> Any:
        deadline = Deadline(self.timeout if timeout is None else timeout)
        return self._connection.invoke(
            method, request, deadline=deadline, model=model, may_repeat=lambda error, left: True
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
                raise error from None
        finally:
            call.cancel()
