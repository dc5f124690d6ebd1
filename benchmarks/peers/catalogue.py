"""The servers that are compared, in the order of the table."""

from __future__ import annotations

import os
import shutil
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


@dataclass(frozen=True)
class Triton(Peer):
    """The C++ server itself. `program` starts it: START REPOSITORY --grpc-port PORT --http-port PORT."""

    @contextmanager
    def start(self, models: Path, logs: Path) -> Iterator[Running]:
        script = Path(self.program).resolve()
        if not script.is_file():
            raise NotStarted(f"{script} is not there")
        repository, port, log = logs / "triton", free_port(), logs / "triton.log"
        for model in sorted(models.glob("*/1/model.onnx")):
            name = model.parent.parent.name
            (repository / name / "1").mkdir(parents=True)
            shutil.copy(model, repository / name / "1")
            (repository / name / "config.pbtxt").write_text(_SETTINGS.format(name=name))
        # It does not print the line that `started` waits for, so a shell does.
        command = ["sh", "-c", 'echo "serving it"; exec "$@"', "sh", str(script), str(repository)]
        command += ["--grpc-port", str(port), "--http-port", str(free_port())]
        with started(command, dict(os.environ), log) as (process, _):
            yield Running(f"127.0.0.1:{port}", process.pid, log)


_SETTINGS = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: 64
dynamic_batching {{ }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""
"""As the other peers: one thread, batches of at most 64 rows, no waiting."""


def catalogue(prototype: Path | None, triton: Path | None = None) -> list[Peer]:
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
    if triton is not None:
        peers.insert(1, Triton("Triton (C++)", str(triton)))
    return peers
