"""The methods of the asyncio client for the state of models and for operators."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from inferd.client._aio.connection import AsyncConnection, always
from inferd.client._shared.arguments import metadata_request, model_request
from inferd.client._shared.config import ADMIN_TIMEOUT
from inferd.client._shared.core import Deadline
from inferd.client._shared.errors import DeadlineExceeded
from inferd.client._shared.models import (
    AdminReply,
    ModelMetadata,
    ModelStatus,
    VersionChange,
    to_change,
    to_metadata,
    to_model_status,
)
from inferd.v1 import model_service_pb2 as pb


class AsyncAdminCalls:
    """The methods of `AsyncClient` that call inferd.v1.ModelService.

    Queries (list_models, status, metadata) are retried like predictions; their default timeout is the client's. Changes
    (load, unload, set_label, rollback) are never retried; their default timeout is 300 s. After a lost connection it is
    not known whether a change was made: use `status`. All methods raise RequestError, InvalidInput and ClientClosed.
    """

    timeout: float

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """The state of every model, sorted by name."""
        answer = await self._ask("ListModels", pb.ListModelsRequest(), "", timeout)
        return tuple(map(to_model_status, answer.models))

    async def status(self, model: str, *, timeout: float | None = None) -> ModelStatus:
        """The state of one model. Raises NotFound."""
        answer = await self._ask("GetModelStatus", model_request(pb.GetModelStatusRequest, model), model, timeout)
        return to_model_status(answer.model)

    async def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """The signatures of a version. Without `version` and `label`, the newest available version is described.
        Raises NotFound, and Unavailable if the version is not available."""
        request = metadata_request(model, version, label)
        return to_metadata(await self._ask("GetModelMetadata", request, model, timeout))

    async def watch(self, model: str | None = None, *, timeout: float | None = None) -> AsyncIterator[VersionChange]:
        """Yields the current state of every version, then every change.

        `model` limits it to one model. The watch ends when the server shuts down, or after `timeout` seconds (None: no
        limit) without an error. Raises RequestError if the connection breaks; call `watch` again to continue.
        """
        connection = self._connection
        limit = Deadline(math.inf if timeout is None else timeout).timeout
        call = connection.methods.models.WatchModels(
            model_request(pb.WatchModelsRequest, model or ""), timeout=limit, metadata=connection.metadata(())
        )
        try:
            async for message in connection.messages(call, model or ""):
                yield to_change(message)
        except DeadlineExceeded:
            if timeout is None:
                raise
        finally:
            call.cancel()

    async def load(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Loads a model, or one version of it, and waits until it is available or has failed. Ends an earlier `unload`
        or `rollback` of the model."""
        return await self._change(
            "LoadModel", model_request(pb.LoadModelRequest, model, version=version), model, timeout
        )

    async def unload(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Takes a model, or one version of it, out of service until `load` is called. Requests in flight are
        finished."""
        return await self._change(
            "UnloadModel", model_request(pb.UnloadModelRequest, model, version=version), model, timeout
        )

    async def set_label(
        self, model: str, label: str, version: int | None, *, timeout: float | None = None
    ) -> AdminReply:
        """Assigns a label to an available version; `version` None removes the label."""
        request = model_request(pb.SetLabelRequest, model, label=label, version=version)
        return await self._change("SetLabel", request, model, timeout)

    async def rollback(self, model: str, *, to: int | None = None, timeout: float | None = None) -> AdminReply:
        """Pins a model to an earlier version (None: the next older one) and waits until that version is available."""
        return await self._change("Rollback", model_request(pb.RollbackRequest, model, to=to), model, timeout)

    async def _ask(self, method: str, request: object, model: str, timeout: float | None) -> Any:
        connection = self._connection
        return await connection.invoke(
            getattr(connection.methods.models, method),
            request,
            deadline=Deadline(self.timeout if timeout is None else timeout),
            model=model,
            may_repeat=always,
        )

    async def _change(self, method: str, request: object, model: str, timeout: float | None) -> AdminReply:
        connection = self._connection
        answer = await connection.invoke(
            getattr(connection.methods.models, method),
            request,
            deadline=Deadline(ADMIN_TIMEOUT if timeout is None else timeout),
            model=model,
        )
        return AdminReply(to_model_status(answer.model), answer.persistent)
