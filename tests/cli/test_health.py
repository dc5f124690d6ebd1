"""`inferd health`: finds the server that runs here, asks it, and says why it is not ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.client import make_chain
from support.server import FAST, INFERD, Served

from inferd.server.access.tls import TlsFiles
from inferd.server.cli.health import note_addresses
from inferd.server.config.schema import ServerConfig, Tls
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpServer
from inferd.server.work_dir import WorkDir

READY, WAITING = ReadinessLike(True), ReadinessLike(False, "waiting for digits:1")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of another test is found, and no settings of the environment count."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("INFERD_CONFIG", raising=False)


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Any]:
    """Starts an HTTP port of inferd; gives its address."""
    running = []

    def start(readiness: ReadinessLike = READY, tls: Tls | None = None) -> str:
        files = TlsFiles(tls, "http.tls") if tls is not None else None
        running.append(HttpServer(["127.0.0.1:0"], lambda: b"", lambda: readiness, tls=files))
        return running[-1].start()[0]

    yield start
    for server in running:
        server.stop()


def test_a_url_is_asked(cli, pages) -> None:
    address, waiting = pages(), pages(WAITING)
    for url in (f"http://{address}", f"http://{address}/", f"http://{address}/healthz", f"http://{waiting}/healthz"):
        assert cli("health", "--url", url).out == "ready\n"
    assert cli("health", "--url", f"http://{waiting}").err == (
        f"inferd: not ready: {waiting}/readyz answers 503: waiting for digits:1\n"
    )
    assert cli("health", "--url", f"http://{address}/nothing").code == 1


def test_wrong_usage_and_no_server(cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        done = cli("health", "--url", f"http://{place}")
        assert (done.code, done.err) == (1, f"inferd: not ready: {place}: Connection refused\n")
        done = cli("health", "--set", f"server.http=[{place}]")
        assert (done.code, done.err) == (1, f"inferd: not ready: {place}: Connection refused\n")
    for url in ("127.0.0.1:8000", "ftp://127.0.0.1", "http://"):
        done = cli("health", "--url", url)
        assert (done.code, done.err) == (
            2, f"inferd: --url: expected http://HOST:PORT or https://HOST:PORT, got '{url}'\n"
        )  # fmt: skip
    assert cli("health", "--timeout", "0").code == 2
    assert cli("health", "--set", "server.htp=[]").code == 2


def test_tls_is_spoken_without_asking_for_the_public_name(cli, pages, tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    files = {"certificate": str(chain["server.pem"]), "key": str(chain["server.key"])}
    address = pages(tls=Tls(**files))
    assert cli("health", "--url", f"https://{address}").code == 0
    assert cli("health", "--url", f"http://{address}").code == 1
    settings = (f"server.http=[{address}]", f"http.tls={{certificate: {files['certificate']}, key: {files['key']}}}")
    assert cli("health", *(word for each in settings for word in ("--set", each))).code == 0
    mutual = pages(tls=Tls(**files, client_ca=str(chain["ca.pem"])))
    done = cli("health", "--url", f"https://{mutual}")
    assert done.code == 1
    assert "set server.metrics" in done.err
    plain = cli("health", "--set", f"server.http=[{mutual}]", "--set", f"server.metrics=[{pages()}]")
    assert plain.code == 0


def test_without_http_the_grpc_port_is_asked(cli) -> None:
    from concurrent.futures import ThreadPoolExecutor

    answers = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    place = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        flags = ("--set", "server.http=[]", "--set", f"server.listen=[{place}]")
        assert cli("health", *flags).code == 0
        answers.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert cli("health", *flags).err == f"inferd: not ready: {place} answers NOT_SERVING\n"
    finally:
        server.stop(0).wait()
    assert "UNAVAILABLE" in cli("health", *flags, "--timeout", "1").err
    secret = cli("health", *flags, "--set", "server.tls={certificate: c, key: k}")
    assert (secret.code, "set server.metrics" in secret.err) == (1, True)


def test_every_address_is_called_by_the_loopback_address(cli, pages, tmp_path: Path) -> None:
    port = pages().rpartition(":")[2]
    file = tmp_path / "config.yaml"
    file.write_text(f"server: {{http: ['0.0.0.0:{port}']}}\n")
    assert cli("health", "--config", str(file)).code == 0


def test_the_variable_names_the_settings_of_serve_and_of_health(
    cli, pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"server: {{http: ['{pages()}']}}\n")
    monkeypatch.setenv("INFERD_CONFIG", str(file))
    assert cli("health").code == 0
    assert cli("config", "show").json["server"]["http"] == [str(file.read_text().split("'")[1])]
    assert cli("config", "show", "--config", os.devnull).json["server"]["http"] == ["0.0.0.0:8000"]
    monkeypatch.setenv("INFERD_CONFIG", str(tmp_path / "nowhere.yaml"))
    assert cli("health").code == cli("config", "show").code == 2


def test_the_server_that_runs_is_found_whatever_its_flags(cli, pages, tmp_path: Path) -> None:
    """A note of another process of this user, in the directory that its lock marks as living."""
    address = pages()
    hold = (
        "import sys\nfrom inferd.server.cli.health import note_addresses\nfrom inferd.server.work_dir import WorkDir\n"
        "from inferd.server.config.schema import ServerConfig\nwork = WorkDir()\n"
        "note_addresses(work, ServerConfig(), ['0.0.0.0:1'], [sys.argv[1]], [])\nprint(work.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", hold, address]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    place = Path(first.stdout.readline().strip())
    assert cli("health").out == "ready\n"
    with WorkDir() as second:  # of this process
        note_addresses(second, ServerConfig(), [], [address], [])
        done = cli("health")
        assert done.code == 1
        assert (
            f"2 servers of this user run here (processes {', '.join(sorted((str(first.pid), str(os.getpid()))))})"
            in (done.err.replace("\n", ""))
        )
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert (place / "addresses.json").exists()
    assert "Connection refused" in cli("health", "--set", "server.http=['127.0.0.1:1']").err, "the dead do not count"


@pytest.mark.timeout(120)
def test_a_server_and_its_health(cli, tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with Served(root, sets=(*FAST, "server.preload=[]")) as server:
        command = [str(INFERD), "health"]
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout == "ready\n"
        assert server.http
    assert cli("health", "--set", "server.http=['127.0.0.1:1']").code == 1
