"""The metrics of all workers: added up, and counters never go backwards."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferd.server.observability.metrics import Metrics
from inferd.server.workers.metrics_totals import Families, Others, added, families, lasting, server_totals, text


def worker(requests: int, *, model: str = "m", ready: bool = True, seconds: float = 0.004) -> Families:
    """The metrics of a worker that has answered `requests` requests."""
    metrics = Metrics(CollectorRegistry(), version="1")
    for _ in range(requests):
        metrics.model(model, 1).request("grpc", "OK", seconds, 0.001, 0.002)
    metrics.state(model, 1, "available")
    metrics.watch_inflight(lambda: (requests, 10 * requests))
    metrics.watch_ready(lambda: ready)
    return families(metrics.everything())


def samples(found: Families) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples as Prometheus reads them: (name, labels) → value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text(found).decode())
        for sample in family.samples
    }


def value(found: Families, name: str, **labels: str) -> float:
    return samples(found)[name, frozenset(labels.items())]


OF_M = {"model": "m", "version": "1"}


def test_counters_and_histograms_add_up_and_gauges_by_what_they_mean() -> None:
    both = server_totals(worker(3, ready=False), 1, Others([(2, worker(4, seconds=0.04))], serving=2))
    assert value(both, "inferd_requests_total", **OF_M, protocol="grpc", code="OK") == 7
    assert value(both, "inferd_request_seconds_count", **OF_M) == 7
    assert value(both, "inferd_request_seconds_bucket", **OF_M, le="0.005") == 3
    assert value(both, "inferd_request_seconds_bucket", **OF_M, le="0.05") == 7
    assert value(both, "inferd_inflight_calls") == 7
    assert value(both, "inferd_inflight_bytes") == 70
    assert value(both, "inferd_ready") == 0, "one worker is not ready"
    assert value(both, "inferd_servable_state", **OF_M, state="available") == 1
    assert value(both, "inferd_build_info", version="1") == 1
    one = samples(worker(0))["process_resident_memory_bytes", frozenset()]
    assert value(both, "process_resident_memory_bytes") > 1.5 * one
    assert value(both, "inferd_group_requests_total", worker="2") == 4
    assert value(both, "inferd_group_workers") == 2


def test_replacing_a_worker_does_not_change_the_start_time_of_the_server() -> None:
    before, after = (server_totals(worker(1), 1, Others([(2, worker(1))], since=1234.5)) for _ in range(2))
    assert value(before, "process_start_time_seconds") == value(after, "process_start_time_seconds") == 1234.5
    assert value(before, "inferd_group_workers") == 1, "only the start time is replaced"


def test_the_worker_with_most_open_descriptors_is_shown() -> None:
    """Each process has its own limit."""
    one = samples(worker(1))
    both = server_totals(worker(1), 1, Others([(2, worker(1))]))
    for name in ("process_open_fds", "process_max_fds"):
        assert value(both, name) < 1.5 * one[name, frozenset()]


def test_a_dead_worker_keeps_its_totals_and_loses_its_gauges() -> None:
    found = server_totals(worker(3), 1, Others(past=[(2, worker(4))], restarts=1, serving=1))
    assert value(found, "inferd_requests_total", **OF_M, protocol="grpc", code="OK") == 7
    assert value(found, "inferd_group_requests_total", worker="2") == 4
    assert value(found, "inferd_group_restarts_total") == 1
    assert value(found, "inferd_inflight_calls") == 3


def test_totals_of_a_model_that_is_gone_are_dropped() -> None:
    found = server_totals(worker(3), 1, Others(past=[(2, added(worker(4), worker(5, model="gone")))]))
    assert value(found, "inferd_requests_total", **OF_M, protocol="grpc", code="OK") == 7
    assert not [labels for _, labels in samples(found) if ("model", "gone") in labels]


def test_totals_of_successive_workers_of_one_number_add_up() -> None:
    past = added(lasting(worker(2)), lasting(worker(3)))
    found = server_totals(worker(1), 1, Others([(2, worker(4))], [(2, past)]))
    assert value(found, "inferd_group_requests_total", worker="2") == 9
    assert value(found, "inferd_requests_total", **OF_M, protocol="grpc", code="OK") == 10


def test_a_single_worker_shows_its_own_metrics_unchanged() -> None:
    own = worker(3)
    found = samples(server_totals(own, 1, Others()))
    assert {key: found[key] for key in samples(own)} == samples(own)
