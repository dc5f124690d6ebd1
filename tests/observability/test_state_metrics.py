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

    def tell(self, state, version=1, *, generation=1, error="", name="m", load_seconds=0.0):
        self.follow(
            StateChange(VersionStatus(ServableId(name, version), state, error, generation, load_seconds=load_seconds))
        )

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


def test_the_life_of_a_version(server):
    seen = []
    for state in State:
        server.tell(state, load_seconds=1.5)
        seen.append(server.states().get("m:1"))
        if state is State.AVAILABLE:
            [load] = [s.value for s in server.all() if s.name == "inferd_servable_load_seconds"]
            assert load == 1.5
    assert seen == ["start", "loading", "available", "unloading", None]
    assert not [s for s in server.all() if s.labels.get("model") == "m"]


def test_a_version_between_two_tries_has_failed_once_a_try(server):
    for generation in (1, 2):
        server.tell(State.START, generation=generation)
        server.tell(State.LOADING, generation=generation, error="bad file" if generation > 1 else "")
        server.tell(State.START, generation=generation, error="bad file")
        assert server.states() == {"m:1": "failed"}
        server.tell(State.START, generation=generation, error="bad file; next try in 2 s")
    assert server.loads() == {"failed": 2}


def test_a_failed_load_is_seen_until_it_succeeds(server):
    server.tell(State.LOADING)
    server.tell(State.START, error="bad file")
    assert server.states() == {"m:1": "failed"}
    server.tell(State.LOADING, generation=2)
    assert server.states() == {"m:1": "loading"}
    server.tell(State.START, generation=2, error="bad file")
    server.tell(State.LOADING, generation=3)
    server.tell(State.AVAILABLE, generation=3)
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"failed": 2, "ok": 1}


def test_a_version_that_failed_and_is_no_longer_wanted_is_not_told_of(server):
    """It is gone from disk, or another one has taken its place: nothing is left that anybody should be alarmed of."""
    server.tell(State.AVAILABLE, 1)
    server.tell(State.LOADING, 2, generation=2)
    for state in (State.START, State.END):
        server.tell(state, 2, generation=0, error="bad file")
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}


def test_changed_files_that_do_not_load_are_a_failure_and_no_load(server):
    server.tell(State.AVAILABLE, generation=1)
    for words in ("files on disk differ: bad file", "files on disk differ: bad file; next try in 2 s"):
        server.tell(State.AVAILABLE, generation=1, error=words)
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}
    server.tell(State.AVAILABLE, generation=1)
    server.tell(State.AVAILABLE, generation=2)
    assert server.loads() == {"ok": 2, "failed": 1}


def test_a_reload_in_place_never_looks_like_an_outage(server):
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


def test_a_reload_that_fails_leaves_the_old_one_available(server):
    server.tell(State.AVAILABLE, generation=1)
    server.tell(State.LOADING, generation=2)
    server.tell(State.END, generation=2, error="corrupt")
    assert server.states() == {"m:1": "available"}
    assert server.loads() == {"ok": 1, "failed": 1}


def test_versions_that_fail_for_ever_do_not_fill_the_memory(server):
    for version in range(600):
        server.tell(State.START, version, error="bad")
    assert 0 < len(server.states()) <= 256
    assert "m:599" in server.states()
