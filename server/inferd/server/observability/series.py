"""All series that the server exports: name, labels, help, buckets. No other module declares a series.

prometheus_client adds `process_*` (CPU, resident memory, open files) and `python_info`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

SECONDS: Final = (
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

_SERVABLE: Final = ("model", "version")


@dataclass(frozen=True, slots=True)
class Series:
    """One declared series. The name of a counter is given without its `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = ()

    def counter(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.help, labels=self.labels)

    def gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def histogram(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


REQUESTS: Final = Series("inferd_requests", "Requests answered, by canonical code.", (*_SERVABLE, "protocol", "code"))
REQUEST_SECONDS: Final = Series(
    "inferd_request_seconds", "From receipt to reply, refusals included.", _SERVABLE, SECONDS
)
QUEUE_SECONDS: Final = Series(
    "inferd_request_queue_seconds", "Wait in the queue, of requests that were queued.", _SERVABLE, SECONDS
)
COMPUTE_SECONDS: Final = Series(
    "inferd_request_compute_seconds", "Run of the batch that the request was in.", _SERVABLE, SECONDS
)
BATCH_ROWS: Final = Series("inferd_batch_rows", "Rows per run of the model.", _SERVABLE, ROWS)
BATCH_REQUESTS: Final = Series("inferd_batch_requests", "Requests that ran in batches.", _SERVABLE)
BATCH_COMPUTE: Final = Series("inferd_batch_compute_seconds", "Time that batches ran.", _SERVABLE)
VERIFIED: Final = Series(
    "inferd_batch_verified_rows", "Rows of batches that ran again alone, see batching.verify.", _SERVABLE
)
DIFFERENCES: Final = Series(
    "inferd_batch_differences", "Of these, rows whose output was another one in the batch.", _SERVABLE
)
BATCH_LIMIT: Final = Series(
    "inferd_batch_limit_rows",
    "Most rows of a batch, 0: unbatched, by why: off, declared, contested (declared against the server's finding), "
    "proven, unproven, steps (an ensemble).",
    (*_SERVABLE, "basis"),
)
DROPPED: Final = Series(
    "inferd_dropped",
    "Requests dropped unserved: expired, cancelled, late, or the queue was full.",
    (*_SERVABLE, "reason"),
)
QUEUE_REQUESTS: Final = Series("inferd_queue_requests", "Requests that wait.", _SERVABLE)
QUEUE_BYTES: Final = Series("inferd_queue_bytes", "Bytes of input that wait.", _SERVABLE)
STATE: Final = Series(
    "inferd_servable_state",
    "1 for the state a version is in: start, loading, available, lost, unloading, failed.",
    (*_SERVABLE, "state"),
)
WORKER_RESTARTS: Final = Series(
    "inferd_worker_restarts", "Worker processes that ended unasked, each replaced by another one.", _SERVABLE
)
WORKER_BYTES: Final = Series("inferd_worker_resident_bytes", "Memory of the worker process.", _SERVABLE)
LOAD_SECONDS: Final = Series("inferd_servable_load_seconds", "Last load, with its warm-up.", _SERVABLE)
VERSION_INFO: Final = Series(
    "inferd_version_info",
    "Always 1; where a loaded version comes from: the git commit and the training run that its provenance names.",
    (*_SERVABLE, "commit", "run"),
)
MODEL_ERROR: Final = Series(
    "inferd_model_error",
    "1 for a model that cannot be read, lacks a version that is asked for, or lies where nobody serves it.",
    ("model",),
)
LOADS: Final = Series("inferd_loads", "Loads that ended, by result: ok, failed.", ("model", "result"))
INFLIGHT_CALLS: Final = Series(
    "inferd_inflight_calls", "Calls between receipt and the end of the writing of their answers."
)
INFLIGHT_BYTES: Final = Series(
    "inferd_inflight_bytes",
    "Bytes that are held for calls: messages, also incomplete and inflated ones, and unwritten answers.",
)
CLIENT_REFUSALS: Final = Series(
    "inferd_client_refusals", "Requests refused by limits.clients, by reason: rate, concurrency.", ("reason",)
)
CREDENTIAL_EXPIRY: Final = Series(
    "inferd_credential_expiry_timestamp_seconds",
    "Unix time at which a certificate, or the next token of the tokens file, expires.",
    ("credential",),
)
EXPIRED_TOKENS: Final = Series("inferd_expired_tokens", "Tokens of the tokens file that have expired.")
READY: Final = Series("inferd_ready", "1 when the server is ready.")
BUILD: Final = Series("inferd_build_info", "Always 1; what runs.", ("version",))
ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Series))

# With several serving processes (server.workers), in addition to all of these:
GROUP_WORKERS: Final = Series("inferd_group_workers", "Processes that serve.")
GROUP_RESTARTS: Final = Series("inferd_group_restarts", "Processes started in the place of one that died or left.")
GROUP_REQUESTS: Final = Series("inferd_group_requests", "Requests answered, by process.", ("worker",))
