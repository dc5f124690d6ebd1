"""Holds the runs of gated models until the suite releases them, and records which rows each run has, in order."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).parent / "plugin" / "inferd_steps.py"
LIMIT = 60.0


class Gates:
    """A unix socket that each run of a gated model connects to before it computes. All gates are open at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._closed: set[str] = set()
        self._held: dict[str, list[socket.socket]] = defaultdict(list)
        self._journal: dict[str, list[Any]] = defaultdict(list)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(256)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self, *models: str) -> None:
        """Holds the runs of these models from now on, and starts their journals afresh."""
        with self._changed:
            for model in models:
                self._closed.add(model)
                self._journal[model].clear()

    def held(self, model: str, count: int = 1) -> None:
        """Waits until this many runs of the model are held."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._held[model]) >= count, LIMIT):
                raise TimeoutError(f"expected {count} runs of {model} at the gate, got {len(self._held[model])}")

    def release(self, model: str) -> None:
        """Waits for the next held run of the model and releases it."""
        self.held(model)
        with self._changed:
            _go(self._held[model].pop(0))

    def open(self, *models: str) -> None:
        """Releases all held runs of these models (default: of all models) and holds no more."""
        with self._changed:
            for model in models or tuple(self._closed):
                self._closed.discard(model)
                for each in self._held.pop(model, []):
                    _go(each)

    def journal(self, model: str) -> list[Any]:
        """The runs of the model since its gate was closed: the signature, and for each input its shape and the first
        value of each row."""
        with self._changed:
            return list(self._journal[model])

    def shut(self) -> None:
        """Closes the socket."""
        self.open()
        # Wakes the thread in accept, which closing would not.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._announced, args=(connection,), daemon=True).start()

    def _announced(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            line = file.readline()
        if not line:
            connection.close()
            return
        run = json.loads(line)
        model = run["model"].split("/")[0]
        with self._changed:
            self._journal[model].append(run)
            if model in self._closed:
                self._held[model].append(connection)
            else:
                _go(connection)
            self._changed.notify_all()


def _go(connection: socket.socket) -> None:
    try:
        connection.sendall(b"g")
    except OSError:
        pass  # its process has ended
    connection.close()


def install_plugin(place: Path) -> str:
    """Writes a distribution with the steps backend and its entry point. Gives the directory for PYTHONPATH."""
    info = place / "inferd_steps-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PLUGIN, place / PLUGIN.name)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inferd-steps\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[inferd.backends]\nsteps = inferd_steps:StepsBackend\n")
    return str(place)
