"""A backend that can misbehave in many ways, for tests of isolation. It starts quickly.

`model.faulty` is a text file: empty for a model y = x + 1 over FP32 [-1, 4], or the name of a Fault that happens while
the version is opened. If the first value of a request is the number of a Fault, it happens during that run. At each
step of a load, the backend waits while a test keeps the step's gate closed, see Gates.
"""

from __future__ import annotations

import ctypes
import enum
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from support.waiting import eventually

from inferd.backends.api import (
    DEFAULT_SIGNATURE,
    BackendError,
    Independence,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.wire.dtypes import DType

Array = np.ndarray[Any, Any]
TESTS = Path(__file__).parents[1]
ENTRY_POINT = "[inferd.backends]\nfaulty = support.faulty:FaultyBackend\n"


class Fault(enum.IntEnum):
    """The possible faults. The number is the first value of a request that makes it happen."""

    NONE = 0
    CRASH = -1001
    EXIT = -1002
    EAT = -1003
    HANG = -1004
    STOP = -1005
    RAISE = -1006
    SPEAK = -1007
    PROTOCOL = -1008
    LEAVE = -1009
    REFUSE = -1010
    LEAK = -1011
    ROWS = -1012
    MISSING = -1013
    NOTHING = -1014
    FORK = -1015
    TWIN = -1016
    GROW = -1017


class FaultyBackend:
    name = "faulty"
    platforms = ("faulty",)

    def find(self, directory: Path) -> Path | None:
        artefact = directory / "model.faulty"
        return artefact if artefact.exists() else None

    def complete(self, artefact: Path) -> str | None:
        _pass("complete")
        return None

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def open(self, request: OpenRequest) -> FaultyModel:
        _pass("open")
        text = request.artefact.read_text().strip()
        if text:
            happen(Fault[text])
        return FaultyModel()

    def devices(self) -> Sequence[str]:
        _pass("devices")
        return ("cpu",)


class FaultyModel:
    signatures = (
        Signature(DEFAULT_SIGNATURE, (TensorSpec("x", DType.FP32, (-1, 4)),), (TensorSpec("y", DType.FP32, (-1, 4)),)),
    )
    traits = Traits(may_write_inputs=True, alignment=64, concurrent=True, bounded=True)

    def independence(self, signature: Signature) -> Independence:
        return Independence(True)

    def instance(self, placement: Placement) -> FaultyInstance:
        _pass("instance")
        return FaultyInstance()

    def close(self) -> None:
        pass


class FaultyInstance:
    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        _pass("run")
        x = inputs["x"]
        assert x.flags.writeable
        assert not x.ctypes.data % 64
        if x.size and x[0, 0] <= -1000:
            happen(Fault(int(x[0, 0])))
        y = x + 1
        fault = int(x[0, 0]) if x.size and x[0, 0] <= -1000 else 0
        x[:] = 0
        match fault:
            case Fault.ROWS:
                return {"y": np.concatenate([y, y])}
            case Fault.MISSING:
                return {"z": y}
            case Fault.NOTHING:
                return None  # type: ignore[return-value]
        return {"y": y}

    def close(self) -> None:
        pass


def happen(fault: Fault) -> None:
    """Makes the fault happen."""
    match fault:
        case Fault.CRASH:
            ctypes.string_at(0)
        case Fault.EXIT:
            os._exit(3)
        case Fault.EAT:
            eaten = []
            while True:
                eaten.append(np.ones(4 << 20, np.uint8))
        case Fault.LEAK:
            _kept.append(np.ones(32 << 20, np.uint8))
        case Fault.HANG:
            threading.Event().wait()
        case Fault.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
            threading.Event().wait()  # after the signal, this thread may go on for a moment
        case Fault.RAISE:
            raise KeyError("nobody meant to raise this")
        case Fault.SPEAK:
            print("a line on standard output", flush=True)
            print("a line on standard error", file=sys.stderr, flush=True)
        case Fault.PROTOCOL:
            _babble()
        case Fault.FORK:  # a child process that outlives this process and inherits its file descriptors
            helper = subprocess.Popen(["sleep", "600"], close_fds=False)
            print(f"helper {helper.pid}", flush=True)
        case Fault.TWIN:  # both processes go on, the child first
            before = _shared_tensors()
            if os.fork():
                os.wait()
                if _shared_tensors() != before:
                    raise BackendError("the child has written into the tensors of its parent")
        case Fault.GROW:  # the heap grows, and what was made last keeps it from shrinking by itself
            blocks = [bytes(1000) for _ in range(150_000)]
            _kept.append(np.frombuffer(blocks[-1], np.uint8))
        case Fault.LEAVE:
            sys.exit(7)
        case Fault.REFUSE:
            raise LoadError("model.faulty: expected something better")


def _babble() -> None:
    """Writes nonsense into every socket of the process."""
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                os.write(number, b"nonsense" * 4)
        except OSError:
            continue


def _shared_tensors() -> list[bytes]:
    """The content of all arenas that this process has mapped."""
    with open("/proc/self/maps", encoding="utf-8") as maps, open("/proc/self/mem", "rb") as memory:
        contents = []
        for line in maps:
            if "inferd-tensors" in line:
                start, end = (int(number, 16) for number in line.split()[0].split("-"))
                memory.seek(start)
                contents.append(memory.read(end - start))
        return contents


_kept: list[Array] = []
_GATES = "INFERD_TEST_GATES"


class Gates:
    """Makes the steps of a load wait, also in worker processes, for as long as the test needs. Each closed gate is a
    named pipe in a directory."""

    STEPS = ("complete", "devices", "open", "instance", "run")

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        os.environ[_GATES] = str(directory)

    def close(self, step: str) -> None:
        """From now on, loads wait at this step."""
        os.mkfifo(self._directory / step)

    def waiting(self, step: str) -> int:
        """Waits until a load waits at this step. Returns the id of its process."""
        return eventually(lambda: self._mark(step), f"a worker comes to {step!r}")

    def forsake(self, step: str) -> None:
        """Later loads do not wait at this step; those that wait there now never go on."""
        (self._directory / step).unlink()
        (self._directory / f"{step}.reached").unlink(missing_ok=True)

    def open(self) -> None:
        """Opens all gates."""
        os.environ.pop(_GATES, None)
        for pipe in self._directory.iterdir():
            if pipe.is_fifo():
                end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
                pipe.unlink()
                os.close(end)

    def _mark(self, step: str) -> int:
        try:
            return int((self._directory / f"{step}.reached").read_text() or 0)
        except FileNotFoundError:
            return 0


def _pass(step: str) -> None:
    pipe = Path(os.environ.get(_GATES, "nowhere")) / step
    if pipe.exists():
        pipe.with_suffix(".reached").write_text(str(os.getpid()))
        with suppress(FileNotFoundError):  # the gate has just been opened
            pipe.read_bytes()


def write(directory: Path, text: str = "") -> Path:
    """Writes a version directory, and returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.faulty").write_text(text)
    return directory


def installed(place: Path) -> str:
    """Installs the backend's entry point for other processes. Returns the PYTHONPATH that they need."""
    info = place / "faulty-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    return os.pathsep.join([str(place), str(TESTS), os.environ.get("PYTHONPATH", "")])


def ask_for(fault: Fault, rows: int = 1) -> dict[str, Array]:
    """Inputs that make the fault happen."""
    x = np.ones((rows, 4), np.float32)
    x[0, 0] = fault
    return {"x": x}
