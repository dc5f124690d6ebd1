import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferd.server.lifecycle.state import ServableId, State, StateChange, VersionStatus
from inferd.server.observability.metrics import Metrics
from inferd.server.observability.state_metrics import StateMetrics


class Follower:
    def __init__(self):
        self.metrics = Metrics(CollectorRegistry())
        self.follow = StateMetrics(self.metrics)

    def tell(self, state, version=1, *, generation=1, error="", name="m", load_seconds=0.0, origin=()):
        status = VersionStatus(
            ServableId(name, version), state, error, generation, load_seconds=load_seconds, origin=origin
        )
        self.follow(StateChange(status))

    def states(self):
        return {
            f"{s.labels['model']}:{s.labels['version']}": s.labels["state"]
            for s in self.all()
            if s.name == "inferd_servable_state" and s.value == 1
        }

    def loads(self):
        return {s.labels["result"]: s.value for s in self.all() if s.name == "inferd_loads_total"}

    def all(self):
        return [s for family in text_string_to_metric_families(self.metrics.render().decode()) for s in family.samples]


@pytest.fixture
def server():
    return Follower()


def test_the_state_follows_a_version_through_its_life(server):
    seen = []
    for state in (State.START, State.LOADING, State.AVAILABLE, State.UNLOADING, State.END):
        server.tell(state, load_seconds=1.5)
        seen.append(server.states().get("m:1"))
        if state is State.AVAILABLE:
            [load] = [s.value for s in server.all() if s.name == "inferd_servable_load_seconds"]
            assert load == 1.5
    assert seen == ["start", "loading", "available", "unloading", None]
    assert not [s for s in server.all() if s.labels.get("model") == "m"]


def test_the_origin_of_what_is_loaded_is_shown_until_it_is_gone(server):
    def told():
        return [(s.labels["commit"], s.labels["run"]) for s in server.all() if s.name == "inferd_version_info"]

    origin = (("commit", "3f2c1ab8" * 5), ("run", "r1"), ("metric.accuracy", "0.97"))
    server.tell(State.AVAILABLE, origin=origin)
    server.tell(State.AVAILABLE, version=2)
    assert told() == [("3f2c1ab83f2c", "r1"), ("", "")]
    for version in (1, 2):
        server.tell(State.END, version=version)
    assert told() == []


def test_each_failed_try_is_counted_once(server):
    for generation in (1, 2):
        server.tell(State.START, generation=generation)
        server.tell(State.LOADING, generation=generation, error="bad file" if generation > 1 else "")
        server.tell(State.FAILED, generation=generation, error="bad file")
        assert server.states() == {"m:1": "failed"}
        server.tell(State.FAILED, generation=generation, error="bad file; next try in 2 s")
    assert server.loads() == {"failed": 2}


def test_a_version_is_shown_as_failed_until_a_load_succeeds(server):
    server.tell(State.LOADING)
    server.tell(State.FAILED, error="bad file")
    assert server.states() == {"m:1": "failed"}
    server.tell(State.LOADING, generation=2)
    assert server.states() == {"m:1": "loading"}
    server.tell(State.FAILED, generation=2, error="bad file")
    server.tell(State.LOADING, generation=3)
    server.tell(State.AVAILABLE, generation=3)
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"failed": 2, "ok": 1}


def test_a_failed_version_that_is_no_longer_wanted_is_dropped(server):
    """The version is gone from disk or was replaced, so there is no failure left to alert on."""
    server.tell(State.AVAILABLE, 1)
    server.tell(State.LOADING, 2, generation=2)
    for state in (State.FAILED, State.END):
        server.tell(state, 2, generation=0, error="bad file")
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}


def test_a_failed_reload_of_changed_files_is_counted_as_a_failure(server):
    server.tell(State.AVAILABLE, generation=1)
    for error in ("files on disk differ: bad file", "files on disk differ: bad file; next try in 2 s"):
        server.tell(State.AVAILABLE, generation=1, error=error)
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}
    server.tell(State.AVAILABLE, generation=1)
    server.tell(State.AVAILABLE, generation=2)
    assert server.loads() == {"ok": 2, "failed": 1}


def test_a_reload_in_place_keeps_the_state_available(server):
    server.tell(State.AVAILABLE, generation=1)
    server.metrics.model("m", 1).request("native", "OK", 0.1)
    for state in (State.START, State.LOADING):
        server.tell(state, generation=2)
        assert server.states() == {"m:1": "available"}
    server.tell(State.AVAILABLE, generation=2)
    server.tell(State.UNLOADING, generation=1)
    assert server.states() == {"m:1": "available"}
    server.tell(State.END, generation=1)
    assert server.states() == {"m:1": "available"}
    assert [s.value for s in server.all() if s.name == "inferd_requests_total"] == [1]
    server.tell(State.UNLOADING, generation=2)
    server.tell(State.END, generation=2)
    assert server.states() == {}


def test_a_failed_reload_keeps_the_state_available(server):
    server.tell(State.AVAILABLE, generation=1)
    server.tell(State.LOADING, generation=2)
    server.tell(State.END, generation=2, error="corrupt")
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}


def test_the_number_of_failed_versions_is_bounded(server):
    for version in range(600):
        server.tell(State.FAILED, version, error="bad")
    assert 0 < len(server.states()) <= 256
    assert "m:599" in server.states()
