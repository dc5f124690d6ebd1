"""How much memory the loaded models may take. A load that does not fit is refused before anything of it is read, with
the arithmetic in the error.

The memory of a version is estimated from its files: their size times the number of instances times a factor. The factor
is 1.2, or what the last load of the same model showed, if that could be measured: nothing else was loaded or unloaded
at the same time, and no framework was imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock

from inferd.backends.api import LoadError
from inferd.server.allocator import resident_bytes
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.state import ServableId

ESTIMATE = 1.2  # memory per byte on disk: TensorFlow Serving's figure
_IMPORT = 50  # an import of at least this many modules is that of a framework: its memory is not the model's
_NAMED = 8  # models named in a refusal
_REMEMBERED = 1024  # models whose factor is kept

Key = tuple[ServableId, int]


class MemoryBudget:
    """Bytes of host memory that the loaded models take together. Thread-safe.

    A load calls `reserve` before it begins, `loaded` when it is done, and `release` when it has failed or its version
    is closed.
    """

    def __init__(self, limit: int, resident: Callable[[], int] | None = None) -> None:
        """`limit`: bytes. `resident` gives the bytes of the process that are in memory."""
        self._limit = limit
        self._resident = resident or resident_bytes
        self._lock = Lock()
        self._taken: dict[Key, int] = {}
        self._factors: dict[str, float] = {}
        self._loading: dict[Key, tuple[int, int, int]] = {}  # files, memory and modules at the start
        self._undisturbed = False  # nothing else was loaded or unloaded since the only load under way began

    def estimate(self, request: LoadRequest) -> int:
        """Bytes that the version will take."""
        return int(_content(request) * self._factors.get(request.id.name, ESTIMATE))

    def reserve(self, request: LoadRequest) -> None:
        """Reserves memory for a load. Raises LoadError when there is too little; then nothing is reserved."""
        key = request.id, request.generation
        with self._lock:
            needed = self.estimate(request)
            taken = sum(self._taken.values())
            if taken + needed > self._limit:
                raise LoadError(self._refusal(request, needed, taken))
            self._taken[key] = needed
            self._undisturbed = not self._loading
            self._loading[key] = _content(request), self._resident(), len(sys.modules)

    def loaded(self, request: LoadRequest, *, elsewhere: bool = False) -> None:
        """The load is done: from now on the memory that it really took counts, if that could be measured. `elsewhere`:
        the version lives in a process of its own."""
        key = request.id, request.generation
        with self._lock:
            content, before, modules = self._loading.pop(key)
            if not self._undisturbed or elsewhere or not content or len(sys.modules) - modules >= _IMPORT:
                return
            # The heap uses memory that closed models returned first: growth by less than the files says nothing.
            grown = max(self._resident() - before, content)
            self._taken[key] = grown
            if len(self._factors) >= _REMEMBERED:
                self._factors.clear()
            self._factors[request.id.name] = grown / content

    def release(self, id: ServableId, generation: int) -> None:  # noqa: A002
        """A load has failed, or its version is closed. A second call does nothing."""
        with self._lock:
            self._loading.pop((id, generation), None)
            self._taken.pop((id, generation), None)
            self._undisturbed = False

    def _refusal(self, request: LoadRequest, needed: int, taken: int) -> str:
        content = _content(request)
        of = f"{_human(content)} of files" + (f" for {copies} copies" if (copies := _copies(request)) > 1 else "")
        largest = sorted(self._taken.items(), key=lambda item: -item[1])
        names = [f"{id_} {_human(nbytes)}" for (id_, _), nbytes in largest[:_NAMED]]
        if len(largest) > _NAMED:
            names.append(f"{len(largest) - _NAMED} more")
        return (
            f"it does not fit: it takes about {_human(needed)} ({of} × {needed / max(1, content):.1f}), and of the "
            f"{_human(self._limit)} of memory.models {_human(taken)} are taken ({', '.join(names) or 'by none'})"
        )


def _copies(request: LoadRequest) -> int:
    instances = request.config.instances
    devices = 1 if isinstance(instances.device, str) else len(instances.device)
    return 1 if request.config.stateful else instances.count * devices


def _content(request: LoadRequest) -> int:
    return request.version.tree.size * _copies(request)


def _human(nbytes: int) -> str:
    if nbytes < 2**20:
        return f"{nbytes / 2**10:.0f} KiB"
    return f"{nbytes / 2**20:.0f} MiB" if nbytes < 2**33 else f"{nbytes / 2**30:.1f} GiB"
