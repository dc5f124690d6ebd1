"""The metrics of the whole server, made from those of its workers.

Counters and histograms are added up; each gauge is added up or reduced to its minimum or maximum, whichever fits its
meaning. Counters do not go backwards: a worker that is gone, or does not answer in time, counts with the last totals
that the supervisor has of it. Totals of a model or version that no live worker reports are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from inferd.server.observability import series

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family with its samples. `kind`: counter, gauge, histogram, ... as in prometheus_client."""

    name: str
    help: str
    kind: str
    samples: tuple[Sample, ...]


Families = tuple[Family, ...]


@dataclass(frozen=True, slots=True)
class Others:
    """What the supervisor knows besides the metrics of the asking worker.

    live      metrics of the other workers, by worker number
    past      totals of workers that are gone or did not answer, by worker number
    restarts  how often a worker was started in the place of another
    serving   how many workers serve
    since     start of the server in seconds since 1970; 0 if it is not known yet
    """

    live: Sequence[tuple[int, Families]] = ()
    past: Sequence[tuple[int, Families]] = ()
    restarts: int = 0
    serving: int = 1
    since: float = 0.0

    def as_past(self) -> Others:
        """The same, with the live metrics as past ones: used when the supervisor does not answer."""
        return Others((), (*self.live, *self.past), self.restarts, self.serving, self.since)


_SERVABLE: Final = ("model", "version")
_COUNTED: Final = ("counter", "histogram", "summary")
_SINCE: Final = "process_start_time_seconds"
# Gauges whose sum means nothing.
_GAUGES: Final[Mapping[str, Callable[[float, float], float]]] = {
    series.READY.name: min,
    series.CREDENTIAL_EXPIRY.name: min,
    series.EXPIRED_TOKENS.name: max,
    _SINCE: min,
    series.BUILD.name: max,
    series.STATE.name: max,
    series.MODEL_ERROR.name: max,
    series.LOAD_SECONDS.name: max,
    series.VERSION_INFO.name: max,
    series.BATCH_LIMIT.name: max,
    # Each process has its own limit, so the worker that is nearest to its limit is shown.
    "process_open_fds": max,
    "process_max_fds": max,
    "python_info": max,
}


def families(collected: Iterable[Metric]) -> Families:
    """The metrics that a registry collects, as plain values."""
    return tuple(
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            tuple((sample.name, tuple(sample.labels.items()), sample.value) for sample in metric.samples),
        )
        for metric in collected
    )


def lasting(found: Families) -> Families:
    """The families that stay valid when their worker is gone: counters, histograms and summaries."""
    return tuple(family for family in found if family.kind in _COUNTED and family.samples)


def added(*many: Families) -> Families:
    """The sum of families of the same name, in the order in which the names first appear."""
    sums: dict[str, _Sum] = {}
    for found in many:
        for family in found:
            sums.setdefault(family.name, _Sum(family)).add(family)
    return tuple(sum_.family for sum_ in sums.values())


def server_totals(own: Families, number: int, others: Others) -> Families:
    """The metrics of the whole server. `own` are the metrics of the worker `number`."""
    live = [(number, own), *others.live]
    known = {_servable(sample) for _, found in live for family in found for sample in family.samples}
    past = [(worker, _only(known, lasting(found))) for worker, found in others.past]
    answered = {worker: 0.0 for worker, _ in live}
    for worker, found in (*live, *past):
        answered[worker] = answered.get(worker, 0.0) + _answered_requests(found)
    return (
        *map(partial(_started, others.since), added(*(found for _, found in live), *(found for _, found in past))),
        _family(series.GROUP_WORKERS, "gauge", [((), float(others.serving))]),
        _family(series.GROUP_RESTARTS, "counter", [((), float(others.restarts))]),
        _family(
            series.GROUP_REQUESTS,
            "counter",
            [((("worker", str(worker)),), count) for worker, count in answered.items()],
        ),
    )


def text(found: Families) -> bytes:
    """The families in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Fixed(found))
    return generate_latest(registry)


@dataclass(slots=True)
class _Sum:
    """The running sum of one family."""

    first: Family
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def add(self, family: Family) -> None:
        join = _GAUGES.get(family.name, _plus)
        values = self.values
        for name, labels, value in family.samples:
            key = (name, labels)
            values[key] = join(values[key], value) if key in values else value

    @property
    def family(self) -> Family:
        samples = tuple((name, labels, value) for (name, labels), value in self.values.items())
        return Family(self.first.name, self.first.help, self.first.kind, samples)


class _Fixed(Collector):
    def __init__(self, found: Families) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        for family in self._found:
            metric = Metric(family.name, family.help, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric


def _plus(a: float, b: float) -> float:
    return a + b


def _servable(sample: Sample) -> Labels:
    """Those labels of a sample that name its model and version."""
    return tuple((key, value) for key, value in sample[1] if key in _SERVABLE)


def _only(known: set[Labels], found: Families) -> Families:
    return tuple(
        Family(
            family.name,
            family.help,
            family.kind,
            tuple(sample for sample in family.samples if _servable(sample) in known),
        )
        for family in found
    )


def _started(since: float, family: Family) -> Family:
    """Replaces the start time of a worker's process by that of the server, which a worker's restart does not change."""
    return replace(family, samples=((_SINCE, (), since),)) if since and family.name == _SINCE else family


def _answered_requests(found: Families) -> float:
    return sum(sample[2] for family in found if family.name == series.REQUESTS.name for sample in family.samples)


def _family(declared: series.Series, kind: str, samples: list[tuple[Labels, float]]) -> Family:
    name = f"{declared.name}_total" if kind == "counter" else declared.name
    return Family(declared.name, declared.help, kind, tuple((name, labels, value) for labels, value in samples))
