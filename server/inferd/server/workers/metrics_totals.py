"""The metrics of a group from those of its workers: counters and histograms are added up, gauges by what they mean.

What a worker counted stays counted when it is gone: the supervisor keeps the last totals that it saw of it. A worker
that does not answer in time counts with its last totals, too, so no counter goes backwards. Totals of a model or
version that no worker knows any more go with it.
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
    """One series with its samples. `kind`: counter, gauge, histogram, ... as prometheus_client calls it."""

    name: str
    help: str
    kind: str
    samples: tuple[Sample, ...]


Families = tuple[Family, ...]


@dataclass(frozen=True, slots=True)
class Others:
    """What the supervisor knows beside the asking worker's own metrics.

    live      metrics of the other workers, by worker number
    past      totals of workers that are gone or did not answer, by the number they had
    restarts  how often a worker was started in the place of another
    serving   workers that serve
    since     seconds since 1970 at which the group was started, 0 where that is not known yet
    """

    live: Sequence[tuple[int, Families]] = ()
    past: Sequence[tuple[int, Families]] = ()
    restarts: int = 0
    serving: int = 1
    since: float = 0.0

    def as_past(self) -> Others:
        """When there is nothing newer: what was counted stays counted."""
        return Others((), (*self.live, *self.past), self.restarts, self.serving, self.since)


_SERVABLE: Final = ("model", "version")
_COUNTED: Final = ("counter", "histogram", "summary")
_SINCE: Final = "process_start_time_seconds"
# Gauges that do not add up.
_GAUGES: Final[Mapping[str, Callable[[float, float], float]]] = {
    series.READY.name: min,
    _SINCE: min,
    series.BUILD.name: max,
    series.STATE.name: max,
    series.MODEL_ERROR.name: max,
    series.LOAD_SECONDS.name: max,
    # Each has a bound of its own: what counts is the one that is nearest to it.
    "process_open_fds": max,
    "process_max_fds": max,
    "python_info": max,
}


def families(collected: Iterable[Metric]) -> Families:
    """What a registry collects, as plain values."""
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
    """Those that outlive their worker."""
    return tuple(family for family in found if family.kind in _COUNTED and family.samples)


def added(*many: Families) -> Families:
    """Families added up, in the order in which they first come."""
    sums: dict[str, _Sum] = {}
    for found in many:
        for family in found:
            sums.setdefault(family.name, _Sum(family)).add(family)
    return tuple(sum_.family for sum_ in sums.values())


def group(own: Families, number: int, others: Others) -> Families:
    """The metrics of the whole group. `number` is the worker of `own`."""
    live = [(number, own), *others.live]
    known = {_servable(sample) for _, found in live for family in found for sample in family.samples}
    past = [(worker, _only(known, lasting(found))) for worker, found in others.past]
    workers = {worker: 0.0 for worker, _ in live}
    for worker, found in (*live, *past):
        workers[worker] = workers.get(worker, 0.0) + _answered(found)
    return (
        *map(partial(_started, others.since), added(*(found for _, found in live), *(found for _, found in past))),
        _family(series.GROUP_WORKERS, "gauge", [((), float(others.serving))]),
        _family(series.GROUP_RESTARTS, "counter", [((), float(others.restarts))]),
        _family(series.GROUP_REQUESTS, "counter", [((("worker", str(one)),), count) for one, count in workers.items()]),
    )


def text(found: Families) -> bytes:
    """In Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Fixed(found))
    return generate_latest(registry)


@dataclass(slots=True)
class _Sum:
    """One family, being added up."""

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


def _plus(one: float, other: float) -> float:
    return one + other


def _servable(sample: Sample) -> Labels:
    """What of a sample's labels says which model and version it is about."""
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
    """Workers come and go; a server that has been started anew is another matter."""
    return replace(family, samples=((_SINCE, (), since),)) if since and family.name == _SINCE else family


def _answered(found: Families) -> float:
    return sum(sample[2] for family in found if family.name == series.REQUESTS.name for sample in family.samples)


def _family(declared: series.Series, kind: str, samples: list[tuple[Labels, float]]) -> Family:
    name = f"{declared.name}_total" if kind == "counter" else declared.name
    return Family(declared.name, declared.help, kind, tuple((name, labels, value) for labels, value in samples))
