"""Who is compared, in the table's order."""

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
"""The row that every other one is compared with, and the one without a model."""


@dataclass(frozen=True)
class Inferd(Peer):
    """This server, from this tree."""

    transport: str = "cq"

    @contextmanager
    def start(self, models: Path, logs: Path) -> Iterator[Running]:
        log = logs / f"inferd-{self.transport}.log"
        with Served(models, "--set", f"server.transport={self.transport}", log=log) as served:
            yield Running(served.address, served.pid, log)


@dataclass(frozen=True)
class Prototype(Peer):
    """A script that takes a port and NAME=MODEL.onnx pairs, and imports its messages as `oip_pb2`."""

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
        # It prints nothing: a word of ours takes the place of that line.
        code = "import runpy, sys; print('serving it', flush=True); sys.argv = sys.argv[1:]; "
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-c", code, str(script), str(port), *pairs]
        with started(command, env, log) as (process, _):
            yield Running(f"127.0.0.1:{port}", process.pid, log)


def catalogue(prototype: Path | None) -> list[Peer]:
    """All peers; the first is the one that the others are compared with."""
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
