"""ModelStatistics: request counts, times and batch sizes of each version since the server started."""

from __future__ import annotations

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.access.rules import AccessRules
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.observability.model_metrics import MetricsSnapshot
from inferd.server.protocols.oip.metadata import MetadataMethods
from inferd.server.transport.calls import UnaryCall


class Statistics:
    """Answers from the metrics. Thread-safe."""

    def __init__(
        self, manager: ManagerLike, metrics: MetricsLike, metadata: MetadataMethods, rules: AccessRules
    ) -> None:
        self._manager = manager
        self._metrics = metrics
        self._metadata = metadata
        self._rules = rules

    def __call__(self, call: UnaryCall, request: pb.ModelStatisticsRequest, caller: Caller) -> None:
        """Handles one call: for the model that the request names, or for all that the caller may see."""
        if request.name:
            handle = self._metadata.acquire(request.name, request.version)
            servable_id = handle.servable.id
            handle.release()
            wanted = [servable_id.version] if request.version else None
            figures = self._of_model(self._manager.status(request.name), wanted)
        else:
            models = [m for m in self._manager.models() if self._rules.allows(caller, Scope.METADATA, m.name)]
            figures = [figure for model in models for figure in self._of_model(model, None)]
        call.reply(pb.ModelStatisticsResponse(model_stats=figures).SerializeToString())

    def _of_model(self, model: ModelStatus, wanted: list[int] | None) -> list[pb.ModelStatistics]:
        """The figures of a model's available versions; `wanted` restricts the versions."""
        return [
            statistics(model.name, status.id.version, self._metrics.model(model.name, status.id.version).snapshot())
            for status in sorted(model.versions, key=lambda version: version.id.version)
            if status.state is State.AVAILABLE and (wanted is None or status.id.version in wanted)
        ]


def statistics(name: str, version: int, now: MetricsSnapshot) -> pb.ModelStatistics:
    """The figures of one version. inferd measures the copies of inputs and outputs as part of the run: compute_input
    and compute_output have counts, but no time."""
    runs = sum(count for count, _ in now.batches.values())
    ok, ok_seconds = now.succeeded
    failed, failed_seconds = now.failed
    return pb.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=round(now.last_batch * 1000),
        inference_count=sum(rows * count for rows, (count, _) in now.batches.items()),
        execution_count=runs,
        inference_stats=pb.InferStatistics(
            success=_duration(ok, ok_seconds),
            fail=_duration(failed, failed_seconds),
            queue=_duration(ok, now.queue.total),
            compute_input=_duration(ok, 0.0),
            compute_infer=_duration(ok, now.compute.total),
            compute_output=_duration(ok, 0.0),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(count, 0.0),
                compute_infer=_duration(count, seconds),
                compute_output=_duration(count, 0.0),
            )
            for rows, (count, seconds) in sorted(now.batches.items())
        ],
    )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
