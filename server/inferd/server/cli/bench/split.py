"""Where the time of a request goes, as the server itself measures it: the difference of two ModelStatistics.

The call is the Open Inference Protocol's, so that it works with every server that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferd.client import Client, InferdError
from inferd.oip.v1 import control_pb2 as pb

_METHOD = "/inference.GRPCInferenceService/ModelStatistics"
_LIMIT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """What the server has counted for a version since it started. Times in nanoseconds.

    requests   answered requests
    total      from receipt to reply; of that, `queue` is their waits until their batch ran
    rows       rows that were run
    runs       runs of the model
    rows_run   for each row the duration of the run that it was in, summed up
    """

    requests: int = 0
    total: int = 0
    queue: int = 0
    rows: int = 0
    runs: int = 0
    rows_run: int = 0

    def since(self, before: ServerTimes) -> dict[str, Any] | None:
        """Means over the requests between two readings, in milliseconds; None if the server counted none.

        `compute_ms` is the run of the batch that a row was in. `rest_ms` is what is left of a request's time in the
        server: its answer is split off, written and sent.
        """
        requests, runs, rows = self.requests - before.requests, self.runs - before.runs, self.rows - before.rows
        if requests <= 0:
            return None
        total, queue = (self.total - before.total) / requests / 1e6, (self.queue - before.queue) / requests / 1e6
        compute = (self.rows_run - before.rows_run) / rows / 1e6 if rows > 0 else 0.0
        return {
            "requests": requests,
            "total_ms": total,
            "queue_ms": queue,
            "compute_ms": compute,
            "rest_ms": max(0.0, total - queue - compute),
            "rows_per_run": rows / runs if runs > 0 else None,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """A version whose figures are asked for, over the client's connection."""

    client: Client
    model: str
    version: int

    def times(self) -> ServerTimes | None:
        """The server's figures; None if it does not tell them: it does not speak the protocol, or refuses."""
        # The client's own connection: the same address, certificates and token as the load.
        method = self.client._connection.channel.unary_unary(
            _METHOD,
            request_serializer=pb.ModelStatisticsRequest.SerializeToString,
            response_deserializer=pb.ModelStatisticsResponse.FromString,
        )
        request = pb.ModelStatisticsRequest(name=self.model, version=str(self.version))
        try:
            answer = self.client._ask(method, request, self.model, _LIMIT)
        except InferdError:
            return None
        if not answer.model_stats:
            return None
        found = answer.model_stats[0]
        times = found.inference_stats
        rows_run = sum(each.batch_size * each.compute_infer.ns for each in found.batch_stats)
        return ServerTimes(
            times.success.count,
            times.success.ns,
            times.queue.ns,
            found.inference_count,
            found.execution_count,
            rows_run,
        )


def network_ms(latency: Mapping[str, float], server: Mapping[str, Any] | None) -> float | None:
    """What is left of the callers' mean latency outside the server: the network and the client itself."""
    if server is None or "mean" not in latency:
        return None
    return max(0.0, latency["mean"] - float(server["total_ms"]))
