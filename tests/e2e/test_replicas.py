"""Two servers, behind nginx (deploy/nginx) or the client's own round_robin: one is killed, both are restarted, and no
client with the default retries notices."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from support.marked import prepare_model, publish
from support.server import FAST, Served
from support.traffic import Traffic
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, NotFound, PermissionDenied, RetryPolicy, Unavailable

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "inferd.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
MARKER = 7.0
ENOUGH = 300  # answers after each kill or restart


def free_port() -> int:
    """A port that stays free while its server is down: outside the range of ports for outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Replica:
    """One of the two servers. Its ports stay the same when its process is restarted."""

    def __init__(self, models: Path, number: int, sets: Sequence[str] = ()) -> None:
        self._models = models
        self._sets = sets
        self._number = number
        self.grpc = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self._server: Served | None = None

    def start(self) -> None:
        log = self._models.parent / f"replica-{self._number}.log"
        sets = (*FAST, *self._sets)
        self._server = Served(self._models, "--listen", self.grpc, "--http", self.http, log=log, sets=sets)
        self._server.__enter__()

    def kill(self) -> None:
        assert self._server is not None
        self._server.signal(signal.SIGKILL)
        self._server.wait()
        self._server.__exit__(None, None, None)
        self._server = None

    def roll(self) -> None:
        assert self._server is not None
        assert self._server.stop() == 0
        self._server.__exit__(None, None, None)
        self.start()

    def serves(self) -> bool:
        """Whether the server has answered a request since it started."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as page:
            return 'code="OK"' in page.read().decode()

    def end(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)


@pytest.fixture
def replicas(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Replica, Replica]]:
    models = tmp_path / "models"
    publish("onnx", prepare_model("onnx", models, "m"), 1, marker=MARKER)
    sets = getattr(request, "param", ("server.open=when_ready",))
    pair = Replica(models, 0, sets), Replica(models, 1, sets)
    with ExitStack() as stack:
        for replica in pair:
            stack.callback(replica.end)
            replica.start()
        yield pair


@contextmanager
def nginx(
    replicas: tuple[Replica, Replica], directory: Path, other_changes: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Runs nginx with the shipped example configuration and this test's addresses. Yields the gRPC address."""
    if NGINX is None:
        pytest.skip("nginx (Debian's package nginx-light) is not installed")
    grpc, http = free_port(), free_port()
    text = CONF.read_text()
    changes = {
        "listen 8001 http2": f"listen 127.0.0.1:{grpc} http2",
        "listen 8000": f"listen 127.0.0.1:{http}",
        "worker_processes auto": "worker_processes 1",
        **{f"inferd-{i}:8001": replica.grpc for i, replica in enumerate(replicas)},
        **{f"inferd-{i}:8000": replica.http for i, replica in enumerate(replicas)},
        **other_changes,
    }
    for old, new in changes.items():
        assert old in text, f"the example has changed: no {old!r} in it"
        text = text.replace(old, new)
    conf = directory / "nginx.conf"
    conf.write_text(text)
    log = directory / "nginx.log"
    with log.open("w") as errors:
        command = [NGINX, "-p", str(directory), "-c", str(conf), "-g", "daemon off;"]
        process = subprocess.Popen(command, stdout=errors, stderr=errors)
    try:
        eventually(lambda: process.poll() is not None or listens(grpc), "nginx listens", log.read_text, 15)
        assert process.poll() is None, log.read_text()
        yield f"127.0.0.1:{grpc}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def survive(address: str, replicas: tuple[Replica, Replica]) -> None:
    """Kills the first server and starts it again, then restarts both, under a load whose every answer is checked."""
    first, second = replicas
    with Traffic(address, "m", threads=3, retry=RetryPolicy(), share=True) as traffic:
        traffic.more(ENOUGH)
        first.kill()
        traffic.more(ENOUGH)
        first.start()
        # The next server is restarted only when this one gets its share of the load again, as in a rolling update.
        eventually(first.serves, "the killed server serves again")
        for replica in (first, second):
            replica.roll()
            eventually(replica.serves, "the rolled server serves again")
        traffic.more(ENOUGH)
        seen = traffic.end()
    assert not seen.failures
    assert not seen.wrong
    assert set(seen.markers) == {MARKER}


@pytest.mark.timeout(300)
def test_behind_nginx_no_request_is_lost(replicas: tuple[Replica, Replica], tmp_path: Path) -> None:
    with nginx(replicas, tmp_path) as address:
        survive(address, replicas)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("replicas", [()], indirect=True, ids=["as_by_default"])
def test_with_the_clients_round_robin_no_request_is_lost(replicas: tuple[Replica, Replica]) -> None:
    survive(",".join(replica.grpc for replica in replicas), replicas)


def test_nginx_passes_errors_on_and_refuses_admin_operations(replicas: tuple[Replica, Replica], tmp_path: Path) -> None:
    with nginx(replicas, tmp_path) as address, Client(address, retry=NO_RETRIES) as client:
        with pytest.raises(NotFound, match="nobody"):
            client.predict("nobody", {"x": np.ones((1, 4), np.float32)})
        operations: list[Callable[[], object]] = [
            lambda: client.load("m"),
            lambda: client.unload("m"),
            lambda: client.rollback("m"),
            lambda: client.set_label("m", "new", 1),
        ]
        for operation in operations:
            with pytest.raises(PermissionDenied, match="each server itself"):
                operation()
        for replica in replicas:
            replica.kill()
        with pytest.raises(Unavailable, match="no inferd server"):
            client.predict("m", {"x": np.ones((1, 4), np.float32)})


def test_a_caller_behind_nginx_is_not_a_local_peer(replicas: tuple[Replica, Replica], tmp_path: Path) -> None:
    """Even if nginx passes admin operations on, the server's own rule refuses them: nginx is not the caller."""
    with nginx(replicas, tmp_path, {"location ~ ^/(": "location ~ ^/never/("}) as address, Client(address) as client:
        with pytest.raises(PermissionDenied, match="local_peer"):
            client.unload("m")
        assert client.predict("m", {"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 4)
