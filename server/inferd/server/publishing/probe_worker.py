"""The subprocess in which a version is loaded and run before it is published.

python -P -m inferd.server.publishing.probe_worker DESCRIPTOR        a JSON request on stdin

`probe` starts it and says what the fields of request and answer mean. It writes to its `outputs` file only.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from inferd.backends.api import Array, BackendError, LoadError, Signature
from inferd.backends.quiet import be_quiet
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config
from inferd.server.errors import ServingError
from inferd.server.parent_death import end_with
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.loaded import MOST_ROWS, LoadedVersion, loaded_version
from inferd.server.publishing.rows import fit_rows, read_rows, write_rows
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.scheduling.qualification.compare import difference, tolerance_of

_TIMED = 20  # runs for a latency
_TIME = 2.0  # seconds at most for one latency


def serve(arguments: list[str], answer: Callable[[Mapping[str, Any], Callable[[str], None]], dict[str, Any]]) -> None:
    """Answers one request and ends the process. Never returns."""
    descriptor = int(arguments[-1])
    request = json.load(sys.stdin)
    be_quiet()
    faulthandler.enable()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    os.set_inheritable(descriptor, False)
    if not end_with(int(request["parent"])):
        os._exit(1)
    _say(descriptor, answer(request, lambda line: _say(descriptor, {"progress": line})))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # some frameworks crash in the interpreter's own shutdown


def answer(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """The answer to a request of `probe`: what was found, or why nothing was. Never raises."""
    return answered(lambda: _probe(request, progress))


def answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is done, or why nothing was, as an answer of `tasks`. Never raises."""
    try:
        return {"done": work()}
    except (LoadError, BackendError, ServingError, PublishError, ConfigError) as error:
        return {"failed": str(error)}
    except ImportError as error:
        return {"failed": f"{error.name} is not installed", "install": [str(error.name)]}
    except MemoryError as error:
        return {"failed": f"not enough memory: {error}"}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _probe(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    config = load_config(_path(request["config"]), {}, request["set"])
    allow = request["allow"]
    if allow is None:
        allow = CodeTrust(config.repository.allow).kinds(Path(request["real"]))
    with loaded_version(
        config,
        Path(request["root"]),
        request["model"],
        request["version"],
        settings=_path(request["settings"]),
        allow=frozenset(allow),
        real=Path(request["real"]),
    ) as loaded:
        progress(f"loaded by the {loaded.servable.backend} backend")
        return _report(loaded, request)


def _report(loaded: LoadedVersion, request: Mapping[str, Any]) -> dict[str, Any]:
    servable = loaded.servable
    signature = loaded.signature
    sample = _path(request["sample"])
    inputs: Mapping[str, Array] | None
    if sample is not None:
        inputs, source, refused = fit_rows(signature, read_rows(sample)), "sample", ""
    else:
        inputs, refused = loaded.made_up_rows()
        source = "made up" if inputs is not None else "none"
    report: dict[str, Any] = {
        "backend": servable.backend,
        "signatures": [_signature(each) for each in servable.signatures.values()],
        "batching": servable.batching,
        "max_batch_size": servable.max_batch_size,
        "stateful": servable.stateful,
        "stateful_declared": loaded.config.stateful,
        "notes": list(servable.notes),
        "load_seconds": servable.load_seconds,
        "rows": 0,
        "rows_from": source,
        "refused": refused,
        "unsteady": "",
        "latency_ms": {},
    }
    if inputs is None:
        return report
    outputs = loaded.run(inputs)
    report["rows"] = next((len(array) for array in outputs.values() if array.ndim), 1)
    first = loaded.first_rows(inputs, MOST_ROWS)
    once = loaded.run_once(first)
    report["unsteady"] = difference(once, loaded.run_once(first), tolerance_of(signature)) or ""
    for rows in (1, MOST_ROWS):
        timed = loaded.first_rows(inputs, rows)
        report["latency_ms"][str(loaded.rows_of(timed))] = _latency(loaded, timed)
    if request["outputs"]:
        write_rows(Path(request["outputs"]), outputs)
    return report


def _latency(loaded: LoadedVersion, inputs: Mapping[str, Array]) -> float:
    """Median milliseconds of one run."""
    times: list[float] = []
    until = time.monotonic() + _TIME
    while len(times) < _TIMED and (not times or time.monotonic() < until):
        began = time.perf_counter()
        loaded.run_once(inputs)
        times.append(time.perf_counter() - began)
    return round(1000 * median(times), 4)


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.name,
        "inputs": [{"name": s.name, "dtype": s.dtype.name, "shape": s.shape} for s in signature.inputs],
        "outputs": [{"name": s.name, "dtype": s.dtype.name, "shape": s.shape} for s in signature.outputs],
    }


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _say(descriptor: int, answer: Mapping[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    serve(sys.argv[1:], answer)
