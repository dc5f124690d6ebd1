import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferd.server.observability import series
from inferd.server.observability.metrics import UNKNOWN, Metrics


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry(), version="1.2.3")


def samples(metrics):
    """{(sample name, frozenset of labels): value}, read by prometheus_client's parser."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(metrics, name, **labels):
    return samples(metrics).get((name, frozenset(labels.items())))


def test_requests_are_counted_by_model_version_protocol_and_code(metrics):
    digits = metrics.model("digits", 1)
    for _ in range(3):
        digits.request("native", "OK", 0.004, 0.001, 0.002)
    digits.request("oip", "INVALID_ARGUMENT", 0.0001)
    labels = {"model": "digits", "version": "1"}
    assert value(metrics, "inferd_requests_total", **labels, protocol="native", code="OK") == 3
    assert value(metrics, "inferd_requests_total", **labels, protocol="oip", code="INVALID_ARGUMENT") == 1
    assert value(metrics, "inferd_request_seconds_count", **labels) == 4
    assert value(metrics, "inferd_request_seconds_sum", **labels) == pytest.approx(0.0121)
    # A request that was not queued does not count in the queue's histogram.
    assert value(metrics, "inferd_request_queue_seconds_count", **labels) == 3
    assert value(metrics, "inferd_request_compute_seconds_sum", **labels) == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("seconds", "below", "above"),
    [(0.001, "0.001", "0.0005"), (0.0010001, "0.0025", "0.001"), (60.0, "60.0", "30.0"), (1e9, "+Inf", "60.0")],
)
def test_a_value_is_counted_in_its_bucket_and_in_all_above(metrics, seconds, below, above):
    metrics.model("m", 1).request("native", "OK", seconds)
    bucket = "inferd_request_seconds_bucket"
    assert value(metrics, bucket, model="m", version="1", le=below) == 1
    assert value(metrics, bucket, model="m", version="1", le=above) == 0
    assert value(metrics, bucket, model="m", version="1", le="+Inf") == 1


def test_batches_and_drops_are_counted(metrics):
    m = metrics.model("m", 2)
    m.batch("serving_default", [object()] * 3, 12, 0.5)
    m.batch("other", [object()], 1, 0.25)
    for reason in ("expired", "full", "full", "cancelled"):
        m.dropped(reason)
    labels = {"model": "m", "version": "2"}
    assert value(metrics, "inferd_batch_rows_sum", **labels) == 13
    assert value(metrics, "inferd_batch_rows_bucket", **labels, le="8.0") == 1
    assert value(metrics, "inferd_batch_rows_bucket", **labels, le="16.0") == 2
    assert value(metrics, "inferd_batch_requests_total", **labels) == 4
    assert value(metrics, "inferd_batch_compute_seconds_total", **labels) == 0.75
    assert value(metrics, "inferd_dropped_total", **labels, reason="full") == 2


def test_how_a_version_is_batched_and_what_verification_found(metrics):
    labels = {"model": "m", "version": "2"}
    limit = [32, "proven"]
    metrics.watch_queue("m", 2, lambda: (0, 0), lambda: (limit[0], limit[1]))
    assert value(metrics, "inferd_batch_limit_rows", **labels, basis="proven") == 32
    assert value(metrics, "inferd_batch_differences_total", **labels) == 0
    metrics.model("m", 2).verified(3, 0)
    metrics.model("m", 2).verified(2, 1)
    limit[:] = [0, "unproven"]
    assert value(metrics, "inferd_batch_verified_rows_total", **labels) == 5
    assert value(metrics, "inferd_batch_differences_total", **labels) == 1
    assert value(metrics, "inferd_batch_limit_rows", **labels, basis="unproven") == 0
    metrics.forget("m", 2)
    assert "inferd_batch_limit_rows{" not in metrics.render().decode()


def test_the_metrics_of_a_version_are_made_once(metrics):
    assert metrics.model("m", 1) is metrics.model("m", 1)
    assert metrics.model("m", 1) is not metrics.model("m", 2)


def test_requests_for_unknown_models_share_one_series(metrics):
    before = len(samples(metrics))
    metrics.unknown("native", "NOT_FOUND", 0.001)
    once = len(samples(metrics))
    for _ in range(1000):
        metrics.unknown("native", "NOT_FOUND", 0.001)
    assert len(samples(metrics)) == once == before + 1
    labels = {"model": UNKNOWN, "version": "", "protocol": "native", "code": "NOT_FOUND"}
    assert value(metrics, "inferd_requests_total", **labels) == 1001


def test_the_series_of_a_forgotten_version_are_dropped(metrics):
    clean = set(samples(metrics))
    for version in range(100):
        m = metrics.model("m", version)
        m.request("native", "OK", 0.1, 0.1, 0.1)
        metrics.watch_queue("m", version, lambda: (1, 1))
        metrics.state("m", version, "available")
        metrics.loaded("m", version, 1.0)
        metrics.forget("m", version)
        m.request("native", "OK", 0.1)  # a late request, through a handle that is still held
        m.dropped("expired")
    assert set(samples(metrics)) == clean


def test_series_of_other_versions_and_models_are_kept(metrics):
    for name, version in (("a", 1), ("a", 2), ("b", 1)):
        metrics.model(name, version).request("native", "OK", 0.1)
        metrics.loaded(name, version, 1.0)
    metrics.forget("a", 1)
    left = {
        dict(labels)["model"] + dict(labels)["version"]
        for name, labels in samples(metrics)
        if name == "inferd_request_seconds_count"
    }
    assert left == {"a2", "b1", UNKNOWN}
    assert value(metrics, "inferd_loads_total", model="a", result="ok") == 2
    metrics.forget("a", 2)
    assert value(metrics, "inferd_loads_total", model="a", result="ok") is None
    assert value(metrics, "inferd_loads_total", model="b", result="ok") == 1


def test_gauges_are_read_at_the_scrape(metrics):
    depth = [(3, 300)]
    metrics.watch_queue("m", 1, lambda: depth[0])
    metrics.watch_inflight(lambda: (7, 700))
    metrics.watch_ready(lambda: True)
    assert value(metrics, "inferd_queue_requests", model="m", version="1") == 3
    depth[0] = (4, 400)
    assert value(metrics, "inferd_queue_bytes", model="m", version="1") == 400
    assert value(metrics, "inferd_inflight_calls") == 7
    assert value(metrics, "inferd_inflight_bytes") == 700
    assert value(metrics, "inferd_ready") == 1


def test_a_failing_callback_omits_only_its_series(metrics):
    def broken():
        raise RuntimeError("closed")

    metrics.watch_queue("m", 1, broken)
    metrics.watch_queue("n", 1, lambda: (1, 2))
    metrics.watch_inflight(broken)
    metrics.watch_ready(broken)
    metrics.model("m", 1).request("native", "OK", 0.1)
    assert value(metrics, "inferd_requests_total", model="m", version="1", protocol="native", code="OK") == 1
    assert value(metrics, "inferd_queue_requests", model="m", version="1") is None
    assert value(metrics, "inferd_queue_requests", model="n", version="1") == 1


def test_memory_and_build_are_exported(metrics):
    assert value(metrics, "process_resident_memory_bytes") > 1e6
    assert value(metrics, "inferd_build_info", version="1.2.3") == 1


def test_special_characters_in_names_are_escaped(metrics):
    name = 'a"b\\c\nd{e}'
    metrics.model(name, 1).request("native", "OK", 0.1)
    assert value(metrics, "inferd_requests_total", model=name, version="1", protocol="native", code="OK") == 1


def test_exported_and_declared_series_are_the_same(metrics):
    m = metrics.model("m", 1)
    m.request("native", "OK", 0.1, 0.1, 0.1)
    m.batch("s", [1], 1, 0.1)
    m.dropped("full")
    metrics.watch_queue("m", 1, lambda: (0, 0), lambda: (32, "proven"))
    metrics.watch_inflight(lambda: (0, 0))
    metrics.watch_refusals(lambda: {"rate": 1})
    metrics.watch_ready(lambda: False)
    metrics.watch_expiry(lambda: {"tokens": 1.0}, lambda: 1)
    metrics.watch_models(lambda: ["m"])
    metrics.watch_worker("m", 1, lambda: 1)
    metrics.state("m", 1, "available")
    metrics.loaded("m", 1, 0.1)
    metrics.origin("m", 1, "3f2c1ab", "r1")
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    exported = {name for name in families if name.startswith("inferd_")}
    assert exported == {each.name for each in series.ALL}
    for each in series.ALL:
        assert families[each.name].documentation == each.help
        labels = set(families[each.name].samples[0].labels) - {"le"}
        assert labels == set(each.labels)


def test_two_servers_in_one_process_share_no_metrics():
    one, two = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.model("m", 1).request("native", "OK", 0.1)
    assert value(two, "inferd_requests_total", model="m", version="1", protocol="native", code="OK") is None


def test_counts_are_consistent_with_several_threads_and_scrapes(metrics):
    threads, each = 8, 2000
    m = metrics.model("m", 1)
    done = threading.Event()

    def work(number):
        for _ in range(each):
            m.request("native", "OK" if number % 2 else "INTERNAL", 0.002, 0.001, 0.001)
            m.batch("s", [1, 2], 2, 0.001)

    def scrape():
        while not done.is_set():
            found = samples(metrics)
            labels = frozenset({"model": "m", "version": "1"}.items())
            total = sum(v for (name, with_), v in found.items() if name == "inferd_requests_total" and labels <= with_)
            assert found["inferd_request_seconds_count", labels] == total
            seen.append(total)

    seen = []
    scraper = threading.Thread(target=scrape)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in [scraper, *workers]:
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    scraper.join()
    assert seen == sorted(seen)
    assert (
        value(metrics, "inferd_requests_total", model="m", version="1", protocol="native", code="OK")
        == threads * each / 2
    )
    assert value(metrics, "inferd_batch_requests_total", model="m", version="1") == 2 * threads * each
