"""Loads a version in a subprocess, exactly as a server would, and runs rows before anybody serves it.

The version has the rights that a server would give it (`repository.allow`), or with `trust` the full rights of the
user. Whatever it does, it does in a process of its own: a crash, a hang and a flood end there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.backends.api import CODE_KINDS
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.staging import Staging
from inferd.server.publishing.tasks import TaskFailed, TaskLimits, clean, run_task

_MODULE = "inferd.server.publishing.probe_worker"


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """What a version is loaded with.

    config      the server's configuration file, None: defaults
    sets        KEY=VALUE texts over it
    trust       the version has all rights of the user: `repository.allow` does not count
    limits      of time and memory
    output      gets what the subprocess prints, line by line
    progress    gets what it does, line by line
    """

    config: Path | None = None
    sets: Sequence[str] = ()
    trust: bool = False
    limits: TaskLimits = field(default_factory=TaskLimits)
    output: Callable[[str], None] = lambda _line: None
    progress: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was found out about a version that loads.

    backend       its backend's name
    signatures    names, element types and shapes, the default one first
    batching      as the server would show it: "up to 32 rows", or why it is unbatched
    max_batch_size  0: unbatched
    stateful      answers depend on earlier calls
    stateful_declared   `stateful` of the model's settings, None: not declared
    notes         what an operator should know
    load_seconds  duration of the load, warm-up included
    rows          rows that it has answered; 0: none, and `refused` says why
    rows_from     "sample", "made up" or "none"
    unsteady      the output in which two runs on the same rows differ, "" for none
    latency_ms    median of one run by its rows
    """

    backend: str
    signatures: tuple[Mapping[str, Any], ...]
    batching: str
    max_batch_size: int
    stateful: bool
    stateful_declared: bool | None
    notes: tuple[str, ...]
    load_seconds: float
    rows: int
    rows_from: str
    refused: str
    unsteady: str
    latency_ms: Mapping[str, float]


def probe(
    staging: Staging, settings: ProbeSettings, *, sample: Path | None = None, outputs: Path | None = None
) -> ProbeReport:
    """Loads the version in `staging` and runs rows. `sample`: a file of sample rows (`rows`), which must all be
    answered; None: made-up rows, which the version may refuse. `outputs`: a .npz file for the answers to all rows.
    Raises PublishError if the version does not load or does not answer."""
    there = staging.place.is_dir()
    return probe_version(
        staging.root,
        staging.model,
        staging.number,
        settings,
        real=staging.place / str(staging.number),
        links=staging.place if there else None,
        work=staging.work,
        sample=sample,
        outputs=outputs,
    )


def probe_version(
    root: Path,
    model: str,
    version: int,
    settings: ProbeSettings,
    *,
    work: Path,
    real: Path | None = None,
    links: Path | None = None,
    sample: Path | None = None,
    outputs: Path | None = None,
) -> ProbeReport:
    """As `probe`, of a version in any repository.

    real    the version's place for `repository.allow`; None: where it lies
    links   a directory outside `root` to which links in it may lead
    work    a writable directory for temporary files
    """
    request = {
        "parent": os.getpid(),
        "root": str(root),
        "model": model,
        "version": version,
        "settings": str(links.resolve()) if links is not None else None,
        "config": str(settings.config.absolute()) if settings.config is not None else None,
        "set": list(settings.sets),
        "allow": sorted(CODE_KINDS) if settings.trust else None,
        "real": str(real or root / model / str(version)),
        "sample": str(sample.absolute()) if sample is not None else None,
        "outputs": str(outputs.absolute()) if outputs is not None else None,
    }
    try:
        found = run_task(
            [sys.executable, "-P", "-m", _MODULE],
            request,
            what=f"{model}:{version}",
            directory=work,
            limits=settings.limits,
            progress=settings.progress,
            output=settings.output,
        )
        return _report(found)
    except TaskFailed as error:
        if error.install:
            raise PublishError(
                f"the version cannot be checked here: {', '.join(error.install)} is not installed beside inferd. "
                "Install the framework that serves it (such as: pip install 'inferd[onnx]'), or give --no-check"
            ) from None
        if "repository.allow" in str(error):
            raise TaskFailed(
                f"{error}. For publish: --config FILE, the server's settings, or --trust", lines=error.lines
            ) from None
        raise
    except (KeyError, TypeError, ValueError):
        raise PublishError(f"{model}:{version} gave an answer that is no report") from None


def _report(found: Mapping[str, Any]) -> ProbeReport:
    return ProbeReport(
        backend=clean(str(found["backend"]), 60),
        signatures=tuple(found["signatures"]),
        batching=clean(str(found["batching"])),
        max_batch_size=int(found["max_batch_size"]),
        stateful=bool(found["stateful"]),
        stateful_declared=found["stateful_declared"],
        notes=tuple(clean(str(note)) for note in found["notes"]),
        load_seconds=float(found["load_seconds"]),
        rows=int(found["rows"]),
        rows_from=str(found["rows_from"]),
        refused=clean(str(found["refused"])),
        unsteady=clean(str(found["unsteady"])),
        latency_ms={str(rows): float(value) for rows, value in found["latency_ms"].items()},
    )
