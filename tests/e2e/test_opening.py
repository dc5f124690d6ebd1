"""`server.open: when_ready`: no port opens before the models are loaded."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
from support.marked import prepare_model, publish
from support.server import FAST, INFERD, Served
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client

LATE = (*FAST, "server.open=when_ready")


def test_the_first_call_on_an_open_port_is_answered(tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish("onnx", prepare_model("onnx", models, "m"), 1, marker=1)
    with Served(models, sets=LATE) as server, Client(server.address, retry=NO_RETRIES) as client:
        assert client.predict("m", {"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 4)


def test_a_waiting_server_opens_no_port_and_stops_on_sigterm(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "models").mkdir()
    log = tmp_path / "log.txt"
    sets = (*LATE, "server.readiness=[ghost]", f"log.file={log}")
    command = [str(INFERD), "serve", "--model-repository", str(tmp_path / "models")]
    command += [
        "--listen",
        f"127.0.0.1:{port}",
        "--http",
        "127.0.0.1:0",
        *(part for s in sets for part in ("--set", s)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        eventually(lambda: log.exists() and "ports open" in log.read_text(), "the server waits", log.exists)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, "")


def test_a_port_in_use_ends_the_server_when_it_opens(tmp_path: Path) -> None:
    models = tmp_path / "models"
    publish("onnx", prepare_model("onnx", models, "m"), 1, marker=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [str(INFERD), "serve", "--model-repository", str(models), "--listen", f"127.0.0.1:{port}"]
        command += ["--http", "127.0.0.1:0", *(part for s in LATE for part in ("--set", s))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr
