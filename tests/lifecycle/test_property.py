"""Random lives of a repository: whatever happens in whatever order, the promises hold.

The disk is simulated (listings made from a model of it), loads end when the machine says so, and every announcement is
checked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.lifecycle import SIGNATURE, FakeClock, FakeScheduler, FakeSource, StepPool, on_disk

from inferd.backends.api import LoadError
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.errors import ServingError
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.servable import Servable, ServableHandle
from inferd.server.lifecycle.state import ServableId, State, StateChange
from inferd.server.repository.disk import Listing

MODELS = ("a", "b")
LEGAL = {
    None: {State.START, State.FAILED},
    State.START: {State.START, State.LOADING, State.FAILED, State.END},
    State.LOADING: {State.AVAILABLE, State.START, State.FAILED, State.END},
    State.FAILED: {State.FAILED, State.START, State.LOADING, State.END},
    State.AVAILABLE: {State.AVAILABLE, State.UNLOADING},
    State.UNLOADING: {State.END, State.START},
    State.END: {State.START, State.FAILED},
}


class Loader:
    """Content that begins with "bad" cannot be loaded."""

    def __init__(self) -> None:
        self.alive: dict[int, Servable] = {}
        self.unloaded: list[int] = []
        self.closed_in_use: list[int] = []

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        cancellation.check()
        text = request.version.tree.files[0].path
        if text.startswith("bad"):
            raise LoadError(text)
        servable = self.alive[request.generation] = Servable(
            request.id,
            request.generation,
            backend="fake",
            signatures={SIGNATURE.name: SIGNATURE},
            scheduler=cast(Any, FakeScheduler()),
        )
        return servable

    def unload(self, servable: Servable) -> None:
        if servable.handles:
            self.closed_in_use.append(servable.generation)
        self.unloaded.append(servable.generation)
        del self.alive[servable.generation]

    def preload(self, backends: object) -> None:
        raise AssertionError("not asked for")


class Life(RuleBasedStateMachine):
    @initialize(resource=st.booleans(), latest=st.integers(1, 2))
    def begin(self, resource: bool, latest: int) -> None:
        # Model "a" preserves availability, "b" resources, if the machine says so.
        self.configs = {
            "a": ModelConfig.model_validate({"version_policy": {"latest": latest}}),
            "b": ModelConfig.model_validate({"transition": "resource" if resource else "availability"}),
        }
        self.disk: dict[str, dict[int, str]] = {}
        self.clock = FakeClock()
        self.pool = StepPool()
        self.source = FakeSource()
        self.loader = Loader()
        self.spawned: list[Callable[[], None]] = []
        self.manager = Manager(
            ServerConfig(),
            self.source,
            self.loader,
            pool=self.pool,
            spawn=lambda name, job: self.spawned.append(job),
            clock=self.clock,
            wall_clock=self.clock.wall,
        )
        self.states: dict[ServableId, State] = {}
        self.handles: list[ServableHandle] = []
        self.asked_down: set[str] = set()  # models for which an operator has asked for less, ever
        self.manager.subscribe(self.heard)
        self.sequence = 0

    def heard(self, change: StateChange) -> None:
        id, state = change.status.id, change.status.state  # noqa: A001
        assert state in LEGAL[self.states.get(id)], f"{id}: {self.states.get(id)} → {state}"
        entry = self.manager._published.serving.get(id.name)
        in_map = entry is not None and id.version in entry.versions
        assert in_map == (state in (State.AVAILABLE, State.UNLOADING)), f"{id} announced {state}, in the map: {in_map}"
        self.states[id] = state

    # The disk

    @rule(model=st.sampled_from(MODELS), version=st.integers(1, 4), content=st.sampled_from(["x", "y", "bad1", "bad2"]))
    def publish(self, model: str, version: int, content: str) -> None:
        self.disk.setdefault(model, {})[version] = content

    @rule(model=st.sampled_from(MODELS), version=st.integers(1, 4))
    def delete(self, model: str, version: int) -> None:
        self.disk.get(model, {}).pop(version, None)

    @rule(model=st.sampled_from(MODELS))
    def delete_model(self, model: str) -> None:
        self.disk.pop(model, None)

    @rule()
    def scan(self) -> None:
        self.sequence += 1
        self.source.sequence = self.sequence
        models = {name: on_disk(name, versions, self.configs[name]) for name, versions in self.disk.items()}
        served = {name: set(self.available(name)) for name in MODELS}
        self.manager.deliver(Listing(models, sequence=self.sequence))
        self.turn(served)

    # The machine room

    @rule()
    def job(self) -> None:
        self.pool.step()
        self.turn()

    @rule(index=st.integers(0, 5))
    def job_out_of_order(self, index: int) -> None:
        if index < len(self.pool.urgent):
            self.pool.urgent.pop(index)[1]()
        self.turn()

    @rule()
    def close(self) -> None:
        if self.spawned:
            self.spawned.pop()()
        self.turn()

    @rule(seconds=st.sampled_from([0.5, 1.0, 60.0]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.turn()

    # Clients

    @rule(model=st.sampled_from(MODELS), version=st.none() | st.integers(1, 4))
    def acquire(self, model: str, version: int | None) -> None:
        try:
            handle = self.manager.acquire(model, version)
        except ServingError:
            assert version not in self.available(model) if version is not None else not self.available(model)
            return
        assert handle.servable.generation in self.loader.alive
        self.handles.append(handle)

    @rule()
    def release(self) -> None:
        if self.handles:
            self.handles.pop(0).release()
            self.turn()

    # Operators

    @rule(model=st.sampled_from(MODELS), version=st.none() | st.integers(1, 4))
    def unload(self, model: str, version: int | None) -> None:
        self.manager.unload(model, version, by="hypothesis")
        self.asked_down.add(model)
        self.turn()

    @rule(model=st.sampled_from(MODELS), version=st.none() | st.integers(1, 4))
    def load(self, model: str, version: int | None) -> None:
        self.manager.load(model, version, by="hypothesis")
        self.turn()

    @rule(model=st.sampled_from(MODELS), version=st.none() | st.integers(1, 4))
    def rollback(self, model: str, version: int | None) -> None:
        self.manager.rollback(model, version, by="hypothesis")
        self.asked_down.add(model)
        self.turn()

    @rule(model=st.sampled_from(MODELS), version=st.none() | st.integers(1, 4))
    def label(self, model: str, version: int | None) -> None:
        self.manager.set_label(model, "stable", version, by="hypothesis")
        self.turn()

    def turn(self, served: dict[str, set[int]] | None = None) -> None:
        before = served or {name: set(self.available(name)) for name in MODELS}
        self.manager.turn()
        for name in MODELS:
            if name in self.asked_down or self.configs[name].transition != "availability":
                continue
            kept = before[name] & self.disk.get(name, {}).keys()
            if kept:
                assert self.available(name), f"{name}: {kept} were served and are on disk, and nothing serves any more"

    def available(self, name: str) -> list[int]:
        entry = self.manager._published.serving.get(name)
        return list(entry.versions) if entry is not None else []

    @invariant()
    def the_map_holds_what_is_available_and_only_that(self) -> None:
        if not hasattr(self, "manager"):
            return
        in_map = {
            ServableId(name, version)
            for name, entry in self.manager._published.serving.items()
            for version in entry.versions
        }
        told = {v.id for model in self.manager.models() for v in model.versions if v.state is State.AVAILABLE}
        assert in_map == told == {id for id, state in self.states.items() if state is State.AVAILABLE}  # noqa: A001
        for name, entry in self.manager._published.serving.items():
            assert entry.default in entry.versions.values()
            for servable in (*entry.versions.values(), *entry.labels.values()):
                assert servable.generation in self.loader.alive
                assert servable.id.name == name

    @invariant()
    def nothing_in_use_is_closed(self) -> None:
        if hasattr(self, "loader"):
            assert self.loader.closed_in_use == []
            assert len(set(self.loader.unloaded)) == len(self.loader.unloaded), "closed twice"

    def teardown(self) -> None:
        if not hasattr(self, "manager"):
            return
        # When everything comes to rest, every good version that is wanted serves and nothing else is left open.
        for handle in self.handles:
            handle.release()
        for _ in range(300):
            self.clock.advance(61.0)
            self.scan()
            while self.pool.step() or self.spawned:
                while self.spawned:
                    self.spawned.pop()()
                self.manager.turn()
            self.manager.turn()
            if self.rested():
                break
        assert self.rested()
        serving = {s.generation for entry in self.manager._published.serving.values() for s in entry.versions.values()}
        assert set(self.loader.alive) == serving
        for name, versions in self.disk.items():
            good = [number for number, text in versions.items() if not text.startswith("bad")]
            if name not in self.asked_down and good:
                assert max(good) in self.available(name)

    def rested(self) -> bool:
        return not (self.pool.urgent or self.pool.later or self.spawned) and all(
            version.state in (State.AVAILABLE, State.START, State.FAILED, State.END)
            for model in self.manager.models()
            for version in model.versions
        )


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_path_of_the_simulated_disk_is_never_read() -> None:
    assert not Path("nowhere").exists()
