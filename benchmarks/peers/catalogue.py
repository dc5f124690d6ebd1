"""The servers that are compared, in the order of the table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.server import Served

from benchmarks.peers.peer import NotStarted, Peer, Running, started
from benchmarks.peers.programs.sessions import free_port

FIRST, ECHO = "inferd", "grpc.aio echo, no model"
"""The names of the row with which all others are compared, and of the server without a model."""


@dataclass(frozen=True)
class Inferd(Peer):
    """The server of this source tree."""

    transport: str = "cq"

    @contextmanager
    def start(self, models: Path, logs: Path) -> Iterator[Running]:
        log = logs / f"inferd-{self.transport}.log"
        with Served(models, "--set", f"server.transport={self.transport}", log=log) as served:
            yield Running(served.address, served.pid, log)


@dataclass(frozen=True)
class Prototype(Peer):
    """A server script. Its arguments are a port and NAME=MODEL.onnx pairs; it imports the messages as `oip_pb2`."""

    @contextmanager
    def start(self, models: Path, logs: Path) -> Iterator[Running]:
        script = Path(self.program).resolve()
        if not script.is_file():
            raise NotStarted(f"{script} is not there")
        (logs / "oip_pb2.py").write_text("from inferd.oip.v1.infer_pb2 import *  # noqa: F403\n")
        port, log = free_port(), logs / "prototype.log"
        pairs = [f"{path.parent.parent.name}={path}" for path in sorted(models.glob("*/1/model.onnx"))]
        env = dict(os.environ)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(logs), env.get("PYTHONPATH"))))
        # The script does not print the line that `started` waits for, so it is printed here.
        code = "import runpy, sys; print('serving it', flush=True); sys.argv = sys.argv[1:]; "
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-c", code, str(script), str(port), *pairs]
        with started(command, env, log) as (process, _):
            yield Running(f"127.0.0.1:{port}", process.pid, log)


def catalogue(prototype: Path | None) -> list[Peer]:
    """All peers. The first one is the one with which the others are compared."""
    peers: list[Peer] = [
        Inferd(FIRST, ""),
        Inferd("inferd, public API", "", transport="public"),
        Peer(ECHO, "echo.py", echo=True),
        Peer("grpcio servicer, sync", "servicer.py"),
        Peer("MLServer", "with_mlserver.py", "requirements-mlserver.txt"),
        Peer("PyTriton (Triton)", "with_pytriton.py", "requirements-pytriton.txt"),
        Peer("LitServe (HTTP)", "with_litserve.py", "requirements-litserve.txt", http1=True),
    ]
    if prototype is not None:
        peers.insert(2, Prototype("prototype", str(prototype)))
    return peers
