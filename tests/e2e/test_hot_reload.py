"""Versions that are added, replaced, broken, deleted or moved under verified load, for every framework: no request
fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.marked import BACKENDS, prepare_model, publish, write_version
from support.server import Served
from support.traffic import Seen, Traffic
from support.waiting import eventually

from inferd.client import Client, ModelStatus, NotFound, Unavailable, VersionState

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]


def assert_clean(seen: Seen) -> None:
    assert not seen.failures, seen.failures[:3]
    assert not seen.wrong, seen.wrong[:3]


def assert_never_back(seen: Seen, old: float, new: float) -> None:
    """Asserts that every caller saw the old version, then the new one, and never the old one again."""
    for order in seen.orders:
        assert order in ([old, new], [new]), order


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def served(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for each framework. Each test adds its own model to it."""
    root = tmp_path_factory.mktemp(f"hot-{backend}") / "models"
    publish(backend, prepare_model(backend, root, "first"), 1, marker=1)  # the framework is imported before the tests
    with Served(root, limit=120) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=30.0) as client:
        yield client


@pytest.fixture
def model(request: pytest.FixtureRequest, backend: str, served: Served, client: Client) -> Path:
    """A model of this test's own, version 1 (marker 1) available."""
    name = request.node.originalname.removeprefix("test_")[:40]
    directory = prepare_model(backend, served.repository, name, getattr(request, "param", ""))
    publish(backend, directory, 1, marker=1)
    available(client, directory, 1)
    return directory


def status_of(client: Client, model: Path) -> ModelStatus | None:
    try:
        return client.status(model.name)
    except NotFound:
        return None


def available(client: Client, model: Path, *versions: int) -> ModelStatus:
    """Waits until exactly these versions are available."""

    def ready() -> ModelStatus | None:
        status = status_of(client, model)
        return status if status is not None and status.available == tuple(sorted(versions, reverse=True)) else None

    return eventually(ready, f"{model.name} {versions} available", lambda: status_of(client, model))


def test_a_new_version_takes_over(backend: str, served: Served, model: Path) -> None:
    with Traffic(served.address, model.name) as traffic:
        traffic.more(100)
        publish(backend, model, 2, marker=2)
        traffic.marker(2)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 1, 2)


def test_a_version_replaced_in_place_takes_over(backend: str, served: Served, client: Client, model: Path) -> None:
    before = available(client, model, 1).versions[0]
    with Traffic(served.address, model.name) as traffic:
        traffic.more(100)
        write_version(backend, model / "1", marker=7)
        traffic.marker(7)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 1, 7)
    after = available(client, model, 1).versions[0]
    assert after.generation > before.generation


def test_a_slow_copy_is_not_loaded_before_it_is_complete(
    backend: str, served: Served, client: Client, model: Path
) -> None:
    """A large version is copied in pieces, with pauses longer than the settle time."""
    whole = model / ".whole"
    write_version(backend, whole, marker=2, ballast=1 << 20)
    files = sorted((p for p in whole.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    with Traffic(served.address, model.name) as traffic:
        for source in files:
            target = model / "2" / source.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            with target.open("wb") as out:
                for begin in range(0, len(content), max(1, len(content) // 3)):
                    # Before each piece: after the last one it may be loaded at any time.
                    traffic.more(60)
                    assert 2 not in available(client, model, 1).available
                    out.write(content[begin : begin + max(1, len(content) // 3)])
                    out.flush()
        traffic.marker(2)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 1, 2)


def test_a_corrupt_version_takes_no_traffic_until_repaired(
    backend: str, served: Served, client: Client, model: Path
) -> None:
    with Traffic(served.address, model.name) as traffic:
        whole = model / ".whole"
        write_version(backend, whole, marker=2)
        for path in [p for p in whole.rglob("*") if p.is_file()]:
            path.write_bytes(bytes(len(path.read_bytes())))
        whole.rename(model / "2")

        def failed() -> str | None:
            status = client.status(model.name)
            return next((v.error for v in status.versions if v.version == 2 and v.error), None)

        reason = eventually(failed, "version 2 says why it failed", lambda: client.status(model.name))
        assert "Traceback" not in reason
        traffic.more(100)
        assert traffic.seen.versions.keys() == {1}
        shutil.rmtree(model / "2")
        publish(backend, model, 2, marker=3)
        traffic.marker(3)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 1, 3)


def test_deleting_a_version_restores_the_one_before(backend: str, served: Served, client: Client, model: Path) -> None:
    publish(backend, model, 2, marker=2)
    available(client, model, 2)
    with Traffic(served.address, model.name) as traffic:
        traffic.marker(2)
        shutil.rmtree(model / "2")
        traffic.marker(1)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 2, 1)


def test_a_deleted_model_is_unloaded(served: Served, client: Client, model: Path) -> None:
    shutil.rmtree(model)
    eventually(
        lambda: not (status := status_of(client, model)) or not status.available,
        "the deleted model is gone", lambda: status_of(client, model),
    )  # fmt: skip


def test_a_vanished_root_keeps_what_is_served(served: Served, client: Client, model: Path) -> None:
    away = served.repository.with_name("away")
    with Traffic(served.address, model.name) as traffic:
        traffic.more(50)
        served.repository.rename(away)
        traffic.more(600)
        assert client.status(model.name).available == (1,)
        away.rename(served.repository)
        traffic.more(300)
        seen = traffic.end()
    assert_clean(seen)
    assert seen.versions.keys() == {1}


@pytest.mark.parametrize("model", ["\nversion_policy: {all: true}\n"], indirect=True)
def test_moving_a_label_moves_its_traffic(backend: str, served: Served, client: Client, model: Path) -> None:
    publish(backend, model, 2, marker=2)
    available(client, model, 1, 2)
    client.set_label(model.name, "stable", 1)
    with Traffic(served.address, model.name, label="stable") as traffic:
        traffic.marker(1)
        client.set_label(model.name, "stable", 2)
        traffic.marker(2)
        seen = traffic.end()
    assert_clean(seen)
    assert_never_back(seen, 1, 2)


def test_a_rollback_holds_until_the_next_load(backend: str, served: Served, client: Client, model: Path) -> None:
    publish(backend, model, 2, marker=2)
    available(client, model, 2)
    with Traffic(served.address, model.name) as traffic:
        traffic.marker(2)
        assert client.rollback(model.name).model.available == (1,)
        traffic.marker(1)
        publish(backend, model, 3, marker=3)
        traffic.more(200)
        assert 3 not in traffic.seen.versions, "a pin stands above new versions"
        client.load(model.name)
        traffic.marker(3)
        seen = traffic.end()
    assert_clean(seen)
    assert all(order in ([2, 1, 3], [1, 3]) for order in seen.orders), seen.orders


def test_an_unloaded_model_stays_unloaded_until_load(served: Served, client: Client, model: Path) -> None:
    with Traffic(served.address, model.name) as traffic:
        traffic.more(100)
        client.unload(model.name)
        traffic.until("refusals", lambda seen: len(seen.failures) >= 4)
        client.load(model.name)
        traffic.more(100)
        seen = traffic.end()
    assert not seen.wrong
    for error in seen.failures:  # refused while it was unloaded or loading again; what was accepted was answered
        assert isinstance(error, NotFound | Unavailable), error
        assert not error.accepted, error


def test_status_has_states_backend_devices_and_batching(backend: str, client: Client, model: Path) -> None:
    publish(backend, model, 2, marker=2)
    available(client, model, 2)
    eventually(
        lambda: {v.version: v.state for v in client.status(model.name).versions}
        == {2: VersionState.AVAILABLE, 1: VersionState.END},
        "version 1 has ended, version 2 answers", lambda: client.status(model.name),
    )  # fmt: skip
    live = client.status(model.name).versions[0]
    assert live.backend == backend
    assert live.devices == ("cpu",)
    assert live.load_seconds > 0
    assert live.batching.startswith("up to")
