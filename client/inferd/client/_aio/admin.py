"""Questions about models and the operators' calls, for asyncio."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from inferd.client._aio.connection import AsyncConnection, always
from inferd.client._shared.arguments import asked, metadata_request
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
    """The half of `AsyncClient` that speaks inferd.v1.ModelService: questions are tried again, changes never."""

    timeout: float

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_models(self, *, timeout: float | None = None) -> tuple[ModelStatus, ...]:
        """Every model, by name."""
        answer = await self._ask("ListModels", pb.ListModelsRequest(), "", timeout)
        return tuple(map(to_model_status, answer.models))

    async def status(self, model: str, *, timeout: float | None = None) -> ModelStatus:
        """One model. Raises NotFound."""
        answer = await self._ask("GetModelStatus", asked(pb.GetModelStatusRequest, model), model, timeout)
        return to_model_status(answer.model)

    async def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """How a version is called; neither version nor label: the newest one. Raises NotFound, Unavailable."""
        request = metadata_request(model, version, label)
        return to_metadata(await self._ask("GetModelMetadata", request, model, timeout))

    async def watch(self, model: str | None = None, *, timeout: float | None = None) -> AsyncIterator[VersionChange]:
        """The state of every version now, then every change, until the server drains or the timeout has passed.

        timeout: seconds, None: no limit. Raises RequestError when the connection breaks; a timeout simply ends it.
        """
        connection = self._connection
        limit = Deadline(math.inf if timeout is None else timeout).whole
        call = connection.methods.models.WatchModels(
            asked(pb.WatchModelsRequest, model or ""), timeout=limit, metadata=connection.metadata(())
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
        """Loads a model, or one version of it, and waits until it answers or has failed. Lifts an unload or a pin."""
        return await self._change("LoadModel", asked(pb.LoadModelRequest, model, version=version), model, timeout)

    async def unload(self, model: str, *, version: int | None = None, timeout: float | None = None) -> AdminReply:
        """Takes a model, or one version of it, out of service until it is loaded again. Requests in flight finish."""
        return await self._change("UnloadModel", asked(pb.UnloadModelRequest, model, version=version), model, timeout)

    async def set_label(
        self, model: str, label: str, version: int | None, *, timeout: float | None = None
    ) -> AdminReply:
        """Points a label to an available version; version None removes the label."""
        request = asked(pb.SetLabelRequest, model, label=label, version=version)
        return await self._change("SetLabel", request, model, timeout)

    async def rollback(self, model: str, *, to: int | None = None, timeout: float | None = None) -> AdminReply:
        """Pins a model to an earlier version (None: the next older one) and waits until that one answers."""
        return await self._change("Rollback", asked(pb.RollbackRequest, model, to=to), model, timeout)

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
