"""An image that runs as a hardened container does: its own namespaces, a read-only root, no capabilities, any user."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from containers.hosts import GATEWAY, Host
from containers.images import Image
from containers.tools import Failure, expect, run, wait_for

_PREPARING = ("ip", "nsenter", "unshare", "setpriv", "env")
_SCRIPT = "start.sh"
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of this machine in the pod."""

    source: Path
    target: str
    writable: bool = False


@dataclass(slots=True)
class Pod:
    """One container. As a context manager it starts on entry and is killed on exit.

    arguments   in the place of the image's CMD; None: CMD
    user        the user's number; its group is 0
    temporary   size of the tmpfs at /tmp; None: nothing there can be written to
    command     in the place of the image's entry point
    beside      another container of the same pod, which runs: they share the table of processes
    """

    image: Image
    host: Host
    arguments: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    user: int = 1000680000
    temporary: str | None = "2g"
    names: str = "127.0.0.1 localhost\n"
    log: Path = Path(os.devnull)
    command: Sequence[str] | None = None
    beside: Pod | None = None
    _process: subprocess.Popen[bytes] | None = None
    _place: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Starts the container. It may be started again once it has ended."""
        self._place = tempfile.TemporaryDirectory(prefix="inferd-pod-")
        script = Path(self._place.name) / _SCRIPT
        script.write_text(self._script(Path(self._place.name)))
        spaces = ["unshare", "--mount", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL"]
        if self.beside is None:
            spaces.append("--pid")
        else:
            spaces = ["nsenter", "--target", str(self.beside.pid()), "--pid", "--", *spaces]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.host.inside(*spaces, "sh", "-eu", str(script)), stdout=log, stderr=log, start_new_session=True
            )

    def pid(self) -> int:
        """Process 1 of the container, by its number outside."""
        expect(self._process is not None, "the container was not started")
        assert self._process is not None
        until = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < until:
            number = _last_child(self._process.pid)
            if number is not None and _has_started(number, self.image.files):
                return number
            time.sleep(0.02)
        raise Failure(f"the container has ended with {self._process.poll()}:\n{self.tail()}")

    def wait_ready(self, port: int = 8000, limit: float = 240.0) -> float:
        """Waits for /readyz; returns the seconds. Raises Failure, at once when the container ends."""

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise Failure(f"it ended with {self._process.returncode} before it was ready:\n{self.tail()}")
            return self.get("/readyz", port)[0] == 200

        return wait_for(
            ready, f"{self.host.name} is ready; it says {self.get('/readyz', port)[1]}\n{self.tail()}", limit
        )

    def get(self, path: str, port: int = 8000, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a page, (0, "") without an answer."""
        request = urllib.request.Request(f"http://{self.host.address}:{port}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError:
            return 0, ""
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body

    def execute(self, *command: str, fine: Sequence[int] = (0,), environment: Mapping[str, str] | None = None) -> str:
        """Runs a command in the container, as `docker exec` does; returns its output and its errors."""
        inner = [*_environment({**self.image.environment, **self.environment, **(environment or {})}), *command]
        spaces = ("nsenter", "--target", str(self.pid()), "--mount", "--pid", "--net", "--ipc", "--uts", "--root")
        words = shlex.join([*spaces, "--wd=/", *_without_rights(self.user), *inner]) + " 2>&1"
        return run("sh", "-c", words, fine=fine, limit=120)

    def check_rights(self) -> None:
        """Raises Failure if the process has more than a hardened container's."""
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines()
            if ":\t" in line
        )
        expect(status["Uid"].split() == [str(self.user)] * 4, f"it runs as {status['Uid']}")
        expect(status["Gid"].split() == ["0"] * 4, f"its groups are {status['Gid']}")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect(int(status[name], 16) == 0, f"it has capabilities: {name} {status[name]}")
        expect(status["NoNewPrivs"].strip() == "1", "it may gain rights")
        written = self.execute("sh", "-c", "touch /models/x /opt/inferd/x /x; true")
        expect(written.count("Read-only file system") == 3, f"its root can be written to: {written}")

    def memory(self) -> int:
        """Resident memory of process 1, in bytes."""
        status = Path(f"/proc/{self.pid()}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def terminate(self) -> None:
        """SIGTERM to process 1, as `docker stop` and the kubelet send it."""
        os.kill(self.pid(), signal.SIGTERM)

    def wait(self, limit: float = 60.0) -> int:
        """The exit code. Raises Failure."""
        assert self._process is not None
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"it did not end within {limit:g} s:\n{self.tail()}") from None
        self._clean()
        return code

    def kill(self) -> None:
        """SIGKILL to everything in the container."""
        if self._process is None:
            return
        try:
            os.kill(self.pid(), signal.SIGKILL)
        except (Failure, OSError):
            pass
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clean()

    def tail(self, characters: int = 3000) -> str:
        """The end of what it has written."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.is_file() else ""

    def _clean(self) -> None:
        if self._place is not None:
            self._place.cleanup()
            self._place = None

    def _script(self, place: Path) -> str:
        root = place / "root"
        root.mkdir()
        (place / "hosts").write_text(self.names)
        (place / "resolv.conf").write_text(f"nameserver {GATEWAY}\noptions timeout:1 attempts:1\n")
        mounts = [Mount(place / "hosts", "/etc/hosts"), Mount(place / "resolv.conf", "/etc/resolv.conf"), *self.mounts]
        for mount in mounts:  # as an engine does; the image itself stays as it is for the next container
            target = self.image.files / mount.target.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if mount.source.is_dir():
                target.mkdir(exist_ok=True)
            elif not target.exists():
                target.touch()
        lines = [
            "mount --make-rprivate /",
            f"mount --bind {self.image.files} {root}",
            f"mount -o remount,bind,ro,nosuid {root}",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o mode=755,nosuid tmpfs {root}/dev",
        ]
        for device in _DEVICES:
            lines += [f"touch {root}/dev/{device}", f"mount --bind /dev/{device} {root}/dev/{device}"]
        lines += [
            f"ln -s /proc/self/fd {root}/dev/fd",
            f"mkdir {root}/dev/shm",
            f"mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs {root}/dev/shm",
        ]
        if self.temporary is not None:
            lines.append(f"mount -t tmpfs -o size={self.temporary},mode=1777,nosuid,nodev tmpfs {root}/tmp")
        for mount in mounts:
            target = f"{root}/{mount.target.lstrip('/')}"
            lines.append(f"mount --bind {mount.source} {target}")
            lines.append(f"mount -o remount,bind,{'rw' if mount.writable else 'ro'},nosuid,nodev {target}")
        command = self.command if self.command is not None else self.image.config["Entrypoint"]
        arguments = self.arguments if self.arguments is not None else self.image.config["Cmd"]
        environment = {**self.image.environment, **self.environment}
        inner = [*_without_rights(self.user), *_environment(environment), *command, *arguments]
        lines += [f"cd {root}", "pivot_root . .", "umount -l .", "cd /", f"exec {shlex.join(inner)}"]
        return "\n".join(lines) + "\n"


def _last_child(number: int) -> int | None:
    """The process at the end of the chain of programs that start the container, None while it cannot be told."""
    for _ in range(4):
        try:
            name = Path(f"/proc/{number}/comm").read_text().strip()
            children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        except OSError:
            return None
        if name not in ("ip", "nsenter", "unshare"):
            return number
        if not children:
            return None
        number = int(children[0])
    return None


def _has_started(number: int, files: Path) -> bool:
    """Whether the process is the container's own, with the image's files as its root, and not what prepares it."""
    try:
        name = Path(f"/proc/{number}/comm").read_text().strip()
        words = Path(f"/proc/{number}/cmdline").read_text()
        inside = os.path.samestat(os.stat(f"/proc/{number}/root"), files.stat())
        return inside and name not in _PREPARING and bool(words) and _SCRIPT not in words
    except OSError:
        return False


def _environment(values: Mapping[str, str]) -> list[str]:
    return ["env", "-i", *(f"{name}={value}" for name, value in values.items())]


def _without_rights(user: int) -> list[str]:
    return [
        "setpriv", f"--reuid={user}", "--regid=0", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
        "--ambient-caps=-all", "--bounding-set=-all",
    ]  # fmt: skip
