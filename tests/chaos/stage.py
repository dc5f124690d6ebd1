"""The server of a scenario: a real server with small models, on ports that stay the same when it is restarted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.load import Load
from support.faulty import installed, write
from support.marked import prepare_model, publish
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import Client, InferdError

ISOLATED = "isolation: process\nworker: {hang: 2s, memory: 500MiB}\n"
LIMIT = 90.0  # seconds for each thing that the server should do


@dataclass(frozen=True)
class Setup:
    """How a server is started. Scenarios with equal setups share a server.

    sets     `--set` options of the server; {disk} stands for the directory of the small disk
    faulty   add two models of the plug-in in support/faulty.py: `shaky`, isolated, and `loose`, in the server's process
    disk     size in bytes of a separate file system for the repository, the state directory and the log; 0: none
    user     the server runs as a user without privileges
    clock    the server's wall clock can be set
    texts    add a TensorFlow text model, `score`, with requests and their answers (chaos/texts.py)
    """

    sets: tuple[str, ...] = ()
    faulty: bool = False
    disk: int = 0
    user: bool = False
    clock: bool = False
    texts: bool = False


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class CannotPlay(Exception):
    """The scenario cannot be run on this machine: root, a tool or a library is missing."""


@dataclass
class Stage:
    """A server, its directory, and the loads of the running scenario. A context manager.

    notes    counts made by the strikes
    target   load on the affected model
    beside   load on `m`, if another model is affected
    """

    place: Path
    setup: Setup
    notes: Counter[str] = field(default_factory=Counter)
    target: Load | None = None
    beside: Load | None = None

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True)
        self.disk = self.place / "disk"
        self.disk.mkdir()
        self.root = self.disk / "models"
        self.clock = self.place / "clock"
        self.answers = self.place / "answers.json"
        self.server: Served | None = None
        self.grpc, self.http = (f"127.0.0.1:{port}" for port in _free_ports(2))

    def __enter__(self) -> Stage:
        if self.setup.disk:
            _mount(self.disk, self.setup.disk)
        try:
            self._write_models()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.server is not None:
                self.server.__exit__(None, None, None)
        finally:
            if self.setup.disk:
                subprocess.run(["umount", "-l", str(self.disk)], check=True)
            shutil.rmtree(self.place, ignore_errors=True)

    # -- the server

    def start(self) -> None:
        """Starts the server, always on the same ports and files. Returns when it is ready."""
        env: dict[str, str] = {"PYTHONDONTWRITEBYTECODE": "1"}
        prefix: Sequence[str] = ()
        if self.setup.faulty:
            env["PYTHONPATH"] = installed(self.place / "site")
        if self.setup.user:
            prefix = NOBODY
            _unprivileged(prefix, self.place)
        if self.setup.clock:
            env.update(_fake_clock(self.clock))
            self.shift_clock(0)
        sets = tuple(item.replace("{disk}", str(self.disk)) for item in self.setup.sets)
        flags = ("--listen", self.grpc, "--http", self.http)
        log = self.place / "server.log"
        self.server = Served(self.root, *flags, sets=(*FAST, *sets), log=log, env=env, prefix=prefix, limit=LIMIT)
        self.server.__enter__()

    def signal(self, number: signal.Signals, expect: int | None) -> None:
        """Sends a signal, waits for the end of the server, and compares the exit code."""
        assert self.server is not None
        self.server.signal(number)
        code = self.server.wait()
        self.server.__exit__(None, None, None)
        assert code == expect, f"the server ended with {code}, expected {expect}:\n{self.server.tail()}"

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self.server is not None and self.server.process is not None and self.server.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self.server is not None
        return self.server.pid

    def log(self) -> str:
        """The server's standard error."""
        return (self.place / "server.log").read_text(errors="replace")

    def client(self) -> Client:
        """A client for queries and operators' calls, not for load."""
        return Client(self.grpc, timeout=LIMIT)

    # -- steps of scenarios

    def more(self, count: int) -> None:
        """Waits for so many more answers of the affected model, and for one of the model beside it."""
        assert self.target is not None
        self.target.more(count)
        if self.beside is not None:
            self.beside.more(1)

    def publish(self, model: str, version: int, backend: str = "onnx") -> None:
        """Publishes a version y = x + version."""
        publish(backend, self.root / model, version, marker=version)

    def available(self, model: str, *versions: int) -> None:
        """Waits until exactly these versions are available."""
        with self.client() as client:

            def ready() -> bool:
                try:
                    return client.status(model).available == tuple(sorted(versions, reverse=True))
                except InferdError:
                    return False

            eventually(ready, f"{model} {versions} available", self.tail, LIMIT)

    def worker(self, model: str) -> int | None:
        """The process id of an isolated model's worker, None while there is none."""
        with self.client() as client:
            for version in client.status(model).versions:
                found = re.search(r"isolation: in process (\d+)", " ".join(version.notes))
                if found and Path(f"/proc/{found[1]}").exists():
                    return int(found[1])
        return None

    def tail(self) -> str:
        """The end of the log."""
        return self.log()[-3000:]

    def shift_clock(self, seconds: int) -> None:
        """Sets the server's wall clock to the real time plus `seconds`."""
        spare = self.clock.with_suffix(".new")
        spare.write_text(f"{seconds:+d}\n")
        spare.rename(self.clock)

    def _write_models(self) -> None:
        for model, text in (("m", ""), ("walled", ISOLATED)):
            publish("onnx", prepare_model("onnx", self.root, model, text), 1, marker=1)
        if self.setup.texts:
            from chaos.texts import write_texts

            write_texts(self.root / "score" / "1", self.answers)
        if self.setup.faulty:
            for model, text in (("shaky", ISOLATED), ("loose", "")):
                write(self.root / model / "1")
                (self.root / model / "model.yaml").write_text(text)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [int(taken.getsockname()[1]) for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


def _mount(place: Path, size: int) -> None:
    if os.geteuid() or shutil.which("mount") is None:
        raise CannotPlay("a small disk is mounted, which needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotPlay(f"a small disk cannot be mounted here: {done.stderr.strip()}")


def _unprivileged(prefix: Sequence[str], place: Path) -> None:
    if os.geteuid() or shutil.which(prefix[0]) is None:
        raise CannotPlay("the server runs as another user, which needs root and setpriv (Debian: util-linux)")
    for parent in (place, *place.parents):  # only directories of this run are changed
        if parent.stat().st_uid == os.geteuid() and parent.name and not parent.stat().st_mode & 0o001:
            if "pytest" not in str(parent) and "chaos" not in str(parent):
                raise CannotPlay(f"{parent} cannot be entered by other users")
            parent.chmod(parent.stat().st_mode | 0o011)
    code = "import inferd.server.app"
    done = subprocess.run([*prefix, shutil.which("python3", path=str(_bin())) or "python3", "-c", code], check=False)
    if done.returncode:
        raise CannotPlay("the server's files cannot be read by other users")


def _bin() -> Path:
    from support.server import INFERD

    return INFERD.parent


def _fake_clock(file: Path) -> Mapping[str, str]:
    for library in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # Otherwise libfaketime treats monotonic waits as waits on the wall clock, even the interpreter's own.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
    raise CannotPlay("libfaketime (Debian: faketime) is not installed")
