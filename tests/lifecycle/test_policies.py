"""The pure parts: which versions, in which order, how many threads, how long to wait."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from inferd.backends.api import Placement
from inferd.server.config.schema import Instances, ModelConfig, Policy
from inferd.server.lifecycle.loading.placement import placements
from inferd.server.lifecycle.operations.overrides import Kind, ModelOverrides, Override
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.lifecycle.reconcile.desired import desired, wanted_versions
from inferd.server.lifecycle.reconcile.model_state import VersionPhase
from inferd.server.lifecycle.reconcile.next_action import (
    LoadVersion,
    Transition,
    UnloadVersion,
    VersionSnapshot,
    next_action,
)
from inferd.server.lifecycle.resources import cpu_budget
from inferd.server.lifecycle.resources.cpu_budget import available_cpus

NEW, IDLE, LOADING, AVAILABLE = VersionPhase.NEW, VersionPhase.IDLE, VersionPhase.LOADING, VersionPhase.AVAILABLE
STALE, RELOADING = VersionPhase.STALE, VersionPhase.RELOADING


@pytest.mark.parametrize(
    ("policy", "failed", "wanted"),
    [
        (Policy(latest=1), (), {9}),
        (Policy(latest=2), (), {9, 5}),
        (Policy(latest=1), (9,), {9, 5}),
        (Policy(latest=2), (9,), {9, 5, 2}),
        (Policy(latest=1), (5,), {9}),
        (Policy(latest=1), (9, 5, 2, 1), {9, 5, 2, 1}),
        (Policy(all=True), (9,), {9, 5, 2, 1}),
        (Policy(specific=(2, 7)), (), {2}),
    ],
)
def test_wanted_versions(policy: Policy, failed: tuple[int, ...], wanted: set[int]) -> None:
    assert wanted_versions(policy, {1, 2, 5, 9}, failed) == wanted


def test_a_history_of_failures_is_not_tried_whole() -> None:
    assert wanted_versions(Policy(latest=1), range(100), range(100)) == {99, 98, 97, 96}


def snap(version: int, phase: VersionPhase, wanted: bool = True, **more: bool) -> VersionSnapshot:
    return VersionSnapshot(version, phase, wanted, **more)


@pytest.mark.parametrize(
    ("snapshots", "action"),
    [
        ([], None),
        ([snap(1, NEW)], LoadVersion(1)),
        ([snap(1, NEW), snap(2, NEW)], LoadVersion(2)),
        ([snap(1, AVAILABLE, False), snap(2, NEW)], LoadVersion(2)),
        ([snap(1, AVAILABLE, False), snap(2, LOADING)], None),
        ([snap(1, AVAILABLE, False), snap(2, IDLE)], None),
        ([snap(1, AVAILABLE, False), snap(2, AVAILABLE)], UnloadVersion(1)),
        ([snap(1, AVAILABLE, False), snap(2, AVAILABLE), snap(3, LOADING)], None),
        ([snap(1, AVAILABLE, False), snap(2, AVAILABLE), snap(3, IDLE)], UnloadVersion(1)),
        ([snap(1, AVAILABLE, False), snap(2, RELOADING)], UnloadVersion(1)),
        ([snap(1, AVAILABLE, False), snap(2, AVAILABLE, False)], UnloadVersion(1)),
        ([snap(1, STALE)], LoadVersion(1)),
        ([snap(1, RELOADING)], None),
        ([snap(1, AVAILABLE, False, forced=True), snap(2, LOADING)], UnloadVersion(1)),
        ([snap(1, LOADING, False, forced=True)], None),
        ([snap(1, NEW, draining=True)], LoadVersion(1)),
        ([snap(1, NEW, False)], None),
    ],
)
def test_availability_preserving(snapshots: list[VersionSnapshot], action: Transition | None) -> None:
    assert next_action("availability", snapshots) == action


def test_an_awaited_version_keeps_the_served_one_except_against_an_operator() -> None:
    serving = [snap(1, AVAILABLE, False), snap(2, IDLE, False)]
    assert next_action("availability", serving) == UnloadVersion(1)
    assert next_action("availability", serving, awaited=True) is None
    assert next_action("availability", [snap(1, AVAILABLE, False, forced=True)], awaited=True) == UnloadVersion(1)
    assert next_action("resource", serving, awaited=True) == UnloadVersion(1)


@pytest.mark.parametrize(
    ("snapshots", "action"),
    [
        ([snap(1, AVAILABLE, False), snap(2, NEW)], UnloadVersion(1)),
        ([snap(1, IDLE, False, draining=True), snap(2, NEW)], None),
        ([snap(1, IDLE, False), snap(2, NEW)], LoadVersion(2)),
        ([snap(1, STALE)], UnloadVersion(1)),
        ([snap(1, NEW, draining=True)], None),
        ([snap(1, AVAILABLE), snap(2, LOADING)], None),
    ],
)
def test_resource_preserving(snapshots: list[VersionSnapshot], action: Transition | None) -> None:
    assert next_action("resource", snapshots) == action


def wishes(*items: tuple[Kind, int | None]) -> ModelOverrides:
    return ModelOverrides(tuple(Override(kind, version, "me", 0.0) for kind, version in items))


@pytest.mark.parametrize(
    ("wish", "by_default", "wanted", "preferred", "forced"),
    [
        (wishes(), True, {3}, {3}, set()),
        (wishes(), False, set(), set(), set()),
        (wishes(("loaded", None)), False, {3}, {3}, set()),
        (wishes(("loaded", 1)), False, {1}, set(), set()),
        (wishes(("loaded", 1)), True, {3, 1}, {3}, set()),
        (wishes(("unloaded", None)), True, set(), set(), {1, 2, 3}),
        (wishes(("unloaded", None), ("loaded", 1)), True, {1}, set(), {2, 3}),
        (wishes(("unloaded", 3)), True, set(), set(), {3}),
        (wishes(("pinned", 2)), True, {2}, {2}, set()),
        (wishes(("pinned", 2)), False, {2}, {2}, set()),
        (wishes(("pinned", 7)), True, set(), set(), set()),
        (wishes(("pinned", 2), ("unloaded", None)), True, set(), set(), {1, 2, 3}),
    ],
)
def test_desired(
    wish: ModelOverrides, by_default: bool, wanted: set[int], preferred: set[int], forced: set[int]
) -> None:
    found = desired(ModelConfig(), wish, {1, 2, 3}, (), served_by_default=by_default)
    assert (found.wanted, found.preferred, found.forced) == (wanted, preferred, forced)


@pytest.mark.parametrize(
    ("wish", "candidates", "settling", "awaited"),
    [
        (wishes(), (), (2,), True),
        (wishes(), (), (), False),
        (wishes(), (1,), (2,), False),
        (wishes(("unloaded", None)), (), (2,), False),
        (wishes(("pinned", 1)), (), (2,), False),
    ],
)
def test_a_settling_version_is_awaited_if_it_will_be_wanted(
    wish: ModelOverrides, candidates: Sequence[int], settling: Sequence[int], awaited: bool
) -> None:
    assert desired(ModelConfig(), wish, candidates, (), served_by_default=True, settling=settling).awaited is awaited


def test_backoff() -> None:
    backoff = Backoff(1.0, 60.0)
    assert [backoff.delay(tries) for tries in (1, 2, 3, 6, 7, 10_000)] == [1, 2, 4, 32, 60, 60]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "limits", "cpus"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/pod/box", {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}, 3),
        ("0::/host/path/not/here", {"cpu.max": "400000 100000"}, 4),
        ("0::/../sideways", {"cpu.max": "400000 100000"}, 64),
        ("4:cpu,cpuacct:/box", {"cpu/box/cpu.cfs_quota_us": "250000", "cpu/box/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/box", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 64),
        ("", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "nonsense"}, 64),
        ("0::/", {}, 64),
    ],
)
def test_cpus_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, limits: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr(cpu_budget.os, "sched_getaffinity", lambda pid: set(range(64)))
    proc = write(tmp_path / "proc", {"cgroup": membership + "\n"} if membership else {"other": ""})
    assert available_cpus(cgroup_root=write(tmp_path / "cgroup", {".keep": "", **limits}), proc=proc) == cpus


def test_placements_share_the_budget() -> None:
    def devices() -> list[str]:
        raise AssertionError("only auto asks")

    assert placements(Instances(count=2, device="cpu"), devices, 7) == (Placement("cpu", 3, 5),) * 2
    assert placements(Instances(count=9, device="cpu"), devices, 4) == (Placement("cpu", 1, 5),) * 9
    assert placements(Instances(device="cpu", threads=5, nice=0), devices, 4) == (Placement("cpu", 5),)
    assert placements(Instances(count=2, device=("cuda:0", "cuda:1")), devices, 8) == (
        Placement("cuda:0", 2), Placement("cuda:0", 2), Placement("cuda:1", 2), Placement("cuda:1", 2),
    )  # fmt: skip
    assert placements(Instances(), lambda: ["cuda:0", "cpu"], 4) == (Placement("cuda:0", 4),)
    assert placements(Instances(), list, 4) == (Placement("cpu", 4, 5),)
