"""The subprocess in which two versions are loaded, run and timed.

python -P -m inferd.server.publishing.comparison.worker DESCRIPTOR        a JSON request on stdin

`task` starts it and says what the fields of request and answer mean. It writes to its `outputs` files only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from inferd.backends.api import Array, LoadError
from inferd.server.config.load import load_config
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.loaded import MOST_ROWS, LoadedVersion, loaded_version
from inferd.server.publishing.probe_worker import answered, serve
from inferd.server.publishing.rows import fit_rows, read_rows, write_rows
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.scheduling.qualification.compare import difference, tolerance_of

_TIMED: Final = 200  # runs of each version
_TIME: Final = 4.0  # seconds at most for one number of rows
_FIRST: Final = 3  # runs that are not timed
_KEPT: Final = 6  # digits of a time


def answer(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """The answer to a request of `task`. Never raises."""
    return answered(lambda: _compare(request, progress))


def _compare(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    config = load_config(Path(request["config"]) if request["config"] else None, {}, request["set"])
    sample = read_rows(Path(request["sample"]))
    with ExitStack() as stack:
        loaded, inputs = [], []
        for asked in request["versions"]:
            allow = asked["allow"]
            if allow is None:
                allow = CodeTrust(config.repository.allow).kinds(Path(asked["real"]))
            version = stack.enter_context(
                loaded_version(
                    config,
                    Path(asked["root"]),
                    asked["model"],
                    asked["version"],
                    settings=Path(asked["settings"]) if asked["settings"] else None,
                    allow=frozenset(allow),
                    real=Path(asked["real"]),
                )
            )
            progress(f"{asked['model']}:{asked['version']} is loaded by the {version.servable.backend} backend")
            loaded.append(version)
            inputs.append(fit_rows(version.signature, sample))
        facts = []
        for version, rows, asked in zip(loaded, inputs, request["versions"], strict=True):
            name = f"{asked['model']}:{asked['version']}"
            try:
                write_rows(Path(asked["outputs"]), version.run(rows))
            except LoadError as error:
                raise PublishError(f"{name} does not answer the sample: {error}") from None
            facts.append(_facts(version, rows))
        latency, times = {}, {}
        for count in (1, MOST_ROWS):
            parts = [version.first_rows(rows, count) for version, rows in zip(loaded, inputs, strict=True)]
            found = _in_turns(loaded, parts)
            size = loaded[0].rows_of(parts[0])
            if size == loaded[1].rows_of(parts[1]):
                latency[str(size)] = [round(median(each), _KEPT) for each in found]
                times[str(size)] = [[round(value, _KEPT) for value in each] for each in found]
        return {"versions": facts, "latency": latency, "times": times}


def _facts(version: LoadedVersion, rows: Mapping[str, Array]) -> dict[str, Any]:
    first = version.first_rows(rows, MOST_ROWS)
    once = version.run_once(first)
    return {
        "backend": version.servable.backend,
        "batching": version.servable.batching,
        "notes": list(version.servable.notes),
        "load_seconds": version.servable.load_seconds,
        "unsteady": difference(once, version.run_once(first), tolerance_of(version.signature)) or "",
    }


def _in_turns(loaded: Sequence[LoadedVersion], parts: Sequence[Mapping[str, Array]]) -> list[list[float]]:
    """Milliseconds of single runs of each version. They run in turns, and the one that begins changes: what else the
    machine does, and what one run leaves in the caches, falls on both alike."""
    times: list[list[float]] = [[] for _ in loaded]
    until = time.monotonic() + _TIME
    turn = -_FIRST
    while turn < _TIMED and (turn < 1 or time.monotonic() < until):
        for i in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            loaded[i].run_once(parts[i])
            if turn >= 0:
                times[i].append(1000 * (time.perf_counter() - began))
        turn += 1
    return times


if __name__ == "__main__":
    serve(sys.argv[1:], answer)
