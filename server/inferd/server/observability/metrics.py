"""The metrics of one server. Code that counts requests uses a `ModelMetrics`; a scrape gets the text of `render`.

Labels come from loaded models only: requests for other names share the label `unknown`, and the series of a version are
dropped when it is unloaded. So clients cannot grow the server's memory by inventing names.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.server.observability import series
from inferd.server.observability.model_metrics import Distribution, ModelMetrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN: Final = "unknown"

_Key = tuple[str, int]


class Metrics:
    """Counts in plain numbers and makes series from them at a scrape. Thread-safe. One for each registry.

    The functions given to the `watch_...` methods are called at each scrape, on its thread.
    """

    def __init__(self, registry: CollectorRegistry, *, version: str = "") -> None:
        self._registry = registry
        self._version = version
        self._lock = threading.Lock()
        self._models: dict[_Key, ModelMetrics] = {}
        self._unknown = ModelMetrics(UNKNOWN, "")
        self._states: dict[_Key, str] = {}
        self._load_seconds: dict[_Key, float] = {}
        self._origins: dict[_Key, tuple[str, str]] = {}
        self._loads: dict[tuple[str, str], int] = {}
        self._restarts: dict[_Key, int] = {}
        self._workers: dict[_Key, Callable[[], int]] = {}
        self._inflight: Callable[[], tuple[int, int]] | None = None
        self._ready: Callable[[], bool] | None = None
        self._refusals: Callable[[], Mapping[str, int]] | None = None
        self._expiries: Callable[[], Mapping[str, float]] | None = None
        self._expired_tokens: Callable[[], int] | None = None
        self._models_with_errors: Callable[[], Iterable[str]] | None = None
        registry.register(_Exporter(self))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def model(self, name: str, version: int) -> ModelMetrics:
        """The metrics of a version that is loaded or being loaded. Keep the result instead of calling this for each
        request."""
        key = (name, version)
        with self._lock:
            found = self._models.get(key)
            if found is None:
                found = self._models[key] = ModelMetrics(name, str(version))
            return found

    def unknown(self, protocol: str, code: str, seconds: float) -> None:
        """Counts an answered request that named no loaded model."""
        self._unknown.request(protocol, code, seconds)

    def forget(self, name: str, version: int) -> None:
        """Drops the series of a version. Later calls on its `ModelMetrics` have no effect."""
        key = (name, version)
        with self._lock:
            forgotten = self._models.pop(key, None)
            if forgotten is not None:
                forgotten.depth = forgotten.batching = None  # they refer to the queue, and the queue to the model
            self._states.pop(key, None)
            self._load_seconds.pop(key, None)
            self._origins.pop(key, None)
            self._restarts.pop(key, None)
            self._workers.pop(key, None)
            if not any(model == name for model, _ in [*self._models, *self._states]):
                for result in [key for key in self._loads if key[0] == name]:
                    del self._loads[result]

    def watch_queue(
        self,
        name: str,
        version: int,
        depth: Callable[[], tuple[int, int]],
        batching: Callable[[], tuple[int, str]] | None = None,
    ) -> None:
        """`depth` gives (requests, bytes) in the version's queue, `batching` the most rows of a batch and why. Called
        until the version is forgotten."""
        model = self.model(name, version)
        model.depth, model.batching = depth, batching

    def watch_inflight(self, inflight: Callable[[], tuple[int, int]]) -> None:
        """`inflight` gives (calls, bytes) that are received and not yet answered."""
        self._inflight = inflight

    def watch_refusals(self, refused: Callable[[], Mapping[str, int]]) -> None:
        """`refused` gives how many requests the limits of clients have refused, by reason."""
        self._refusals = refused

    def watch_expiry(self, expiries: Callable[[], Mapping[str, float]], expired_tokens: Callable[[], int]) -> None:
        """`expiries` gives the Unix time at which each credential expires next, by its name; `expired_tokens` the
        number of tokens that have expired."""
        self._expiries, self._expired_tokens = expiries, expired_tokens

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """`ready` gives whether the server is ready."""
        self._ready = ready

    def watch_models(self, with_errors: Callable[[], Iterable[str]]) -> None:
        """`with_errors` gives the names of models that have an error of the model itself, not of a version."""
        self._models_with_errors = with_errors

    def watch_worker(self, name: str, version: int, resident: Callable[[], int]) -> None:
        """`resident` gives the bytes of memory of the version's worker process. Called until the version is
        forgotten."""
        with self._lock:
            self._workers[name, version] = resident
            self._restarts.setdefault((name, version), 0)

    def restarts(self, name: str, version: int, count: int) -> None:
        """Sets how many worker processes of the version have ended unintentionally."""
        with self._lock:
            self._restarts[name, version] = count

    def state(self, name: str, version: int, state: str) -> None:
        """Sets the state of a version."""
        with self._lock:
            self._states[name, version] = state

    def origin(self, name: str, version: int, commit: str, run: str) -> None:
        """Sets the git commit and the training run of a version, "" for what is not known. Both are bounded."""
        with self._lock:
            self._origins[name, version] = (commit, run)

    def loaded(self, name: str, version: int, seconds: float | None) -> None:
        """Counts a load that took `seconds`, or that has failed (None)."""
        with self._lock:
            result = (name, "failed" if seconds is None else "ok")
            self._loads[result] = self._loads.get(result, 0) + 1
            if seconds is not None:
                self._load_seconds[name, version] = seconds

    def render(self) -> bytes:
        """All series in Prometheus' text format (CONTENT_TYPE)."""
        return generate_latest(self._registry)

    def everything(self) -> Iterable[Metric]:
        """All series as values."""
        return self._registry.collect()

    def collect(self) -> Iterator[Metric]:
        """All series of this server, for the registry."""
        with self._lock:
            models = [*self._models.values(), self._unknown]
            states = dict(self._states)
            load_seconds = dict(self._load_seconds)
            loads = dict(self._loads)
            restarts, workers, origins = dict(self._restarts), dict(self._workers), dict(self._origins)
        yield from _requests(models)
        yield from _queues(models)
        state = series.STATE.gauge()
        for (name, version), value in states.items():
            state.add_metric([name, str(version), value], 1)
        yield state
        load = series.LOAD_SECONDS.gauge()
        for (name, version), seconds in load_seconds.items():
            load.add_metric([name, str(version)], seconds)
        yield load
        info = series.VERSION_INFO.gauge()
        for (name, version), (commit, run) in origins.items():
            info.add_metric([name, str(version), commit, run], 1)
        yield info
        ended = series.LOADS.counter()
        for (name, result), count in loads.items():
            ended.add_metric([name, result], count)
        yield ended
        yield from _worker_processes(restarts, workers)
        yield from self._server()

    def _server(self) -> Iterator[Metric]:
        # A callback may fail while its part of the server closes. The scrape then omits its series only.
        if self._inflight is not None:
            with contextlib.suppress(Exception):
                calls, size = self._inflight()
                for declared, value in ((series.INFLIGHT_CALLS, calls), (series.INFLIGHT_BYTES, size)):
                    family = declared.gauge()
                    family.add_metric([], value)
                    yield family
        if self._ready is not None:
            with contextlib.suppress(Exception):
                ready = series.READY.gauge()
                ready.add_metric([], float(self._ready()))
                yield ready
        if self._models_with_errors is not None:
            error = series.MODEL_ERROR.gauge()
            for name in self._models_with_errors():
                error.add_metric([name], 1)
            yield error
        if self._refusals is not None:
            refused = series.CLIENT_REFUSALS.counter()
            for reason, count in self._refusals().items():
                refused.add_metric([reason], count)
            yield refused
        if self._expiries is not None and self._expired_tokens is not None:
            expiry = series.CREDENTIAL_EXPIRY.gauge()
            for credential, until in self._expiries().items():
                expiry.add_metric([credential], until)
            yield expiry
            expired = series.EXPIRED_TOKENS.gauge()
            expired.add_metric([], self._expired_tokens())
            yield expired
        build = series.BUILD.gauge()
        build.add_metric([self._version], 1)
        yield build


class _Exporter(Collector):
    """The collector that is registered in the registry."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collect()


def _requests(models: list[ModelMetrics]) -> Iterator[Metric]:
    requests, dropped = series.REQUESTS.counter(), series.DROPPED.counter()
    batched, batch_compute = series.BATCH_REQUESTS.counter(), series.BATCH_COMPUTE.counter()
    seconds, queue = series.REQUEST_SECONDS.histogram(), series.QUEUE_SECONDS.histogram()
    compute, rows = series.COMPUTE_SECONDS.histogram(), series.BATCH_ROWS.histogram()
    verified, differences = series.VERIFIED.counter(), series.DIFFERENCES.counter()
    for model in models:
        now = model.snapshot()
        labels = [model.name, model.version]
        for (protocol, code), count in now.requests.items():
            requests.add_metric([*labels, protocol, code], count)
        for reason, count in now.dropped.items():
            dropped.add_metric([*labels, reason], count)
        _add(seconds, labels, now.seconds)
        if model.name == UNKNOWN and not model.version:
            continue  # requests without a loaded model were neither queued nor run
        _add(queue, labels, now.queue)
        _add(compute, labels, now.compute)
        _add(rows, labels, now.rows)
        batched.add_metric(labels, now.batched_requests)
        batch_compute.add_metric(labels, now.batch_compute_seconds)
        verified.add_metric(labels, now.verified[0])
        differences.add_metric(labels, now.verified[1])
    yield from (requests, seconds, queue, compute, rows, batched, batch_compute, dropped, verified, differences)


def _queues(models: list[ModelMetrics]) -> Iterator[Metric]:
    waiting, size, limit = series.QUEUE_REQUESTS.gauge(), series.QUEUE_BYTES.gauge(), series.BATCH_LIMIT.gauge()
    for model in models:
        if model.batching is not None:
            with contextlib.suppress(Exception):
                most, basis = model.batching()
                limit.add_metric([model.name, model.version, basis], most)
        if model.depth is None:
            continue
        with contextlib.suppress(Exception):  # the queue may be closing, see `_server`
            requests, held = model.depth()
            waiting.add_metric([model.name, model.version], requests)
            size.add_metric([model.name, model.version], held)
    yield from (waiting, size, limit)


def _worker_processes(restarts: dict[_Key, int], workers: dict[_Key, Callable[[], int]]) -> Iterator[Metric]:
    ended, size = series.WORKER_RESTARTS.counter(), series.WORKER_BYTES.gauge()
    for (name, version), count in restarts.items():
        ended.add_metric([name, str(version)], count)
    for (name, version), resident in workers.items():
        size.add_metric([name, str(version)], resident())
    yield from (ended, size)


def _add(family: HistogramMetricFamily, labels: list[str], values: Distribution) -> None:
    buckets = []
    below = 0
    for bound, count in zip(values.bounds, values.counts, strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric(labels, buckets, values.total)
