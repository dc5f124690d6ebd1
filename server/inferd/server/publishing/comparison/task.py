"""Loads two versions in one subprocess, runs the same rows through both, and measures what differs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.backends.api import CODE_KINDS
from inferd.server.publishing.comparison.measures import Figures, figures
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.rows import read_rows
from inferd.server.publishing.tasks import clean, run_task

_MODULE = "inferd.server.publishing.comparison.worker"


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """A version that is compared.

    root     a repository that holds it
    real     its place, by which `repository.allow` is asked
    links    a directory outside `root` to which links in it may lead
    """

    root: Path
    model: str
    version: int
    real: Path
    links: Path | None = None

    @property
    def directory(self) -> Path:
        """The version's directory."""
        return self.root / self.model / str(self.version)


@dataclass(frozen=True, slots=True)
class LoadedFacts:
    """What a version says of itself when it is loaded."""

    backend: str
    batching: str
    notes: tuple[str, ...]
    load_seconds: float
    unsteady: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions on the same rows.

    names     of the versions, as they are shown
    latency   medians in milliseconds of both, by the number of rows in a run
    times     the single times, for plots
    sizes     bytes of the files that a server reads
    """

    names: tuple[str, str]
    figures: Figures
    latency: Mapping[int, tuple[float, float]]
    times: Mapping[int, tuple[Sequence[float], Sequence[float]]]
    sizes: tuple[int, int]
    facts: tuple[LoadedFacts, LoadedFacts]


def run(
    places: tuple[VersionPlace, VersionPlace],
    names: tuple[str, str],
    sample: Path,
    settings: ProbeSettings,
    *,
    work: Path,
    output: str | None = None,
) -> Comparison:
    """Compares two versions. `work`: a writable directory. `output`: the output that the figures read, None for all.
    Raises PublishError."""
    outputs = [work / "first.npz", work / "second.npz"]
    request = {
        "parent": os.getpid(),
        "config": str(settings.config.absolute()) if settings.config is not None else None,
        "set": list(settings.sets),
        "sample": str(sample.absolute()),
        "versions": [_asked(place, path, trust=settings.trust) for place, path in zip(places, outputs, strict=True)],
    }
    found = run_task(
        [sys.executable, "-P", "-m", _MODULE],
        request,
        what="the comparison",
        directory=work,
        limits=settings.limits,
        progress=settings.progress,
        output=settings.output,
    )
    try:
        facts = tuple(_facts(each) for each in found["versions"])
        times = {int(rows): (tuple(a), tuple(b)) for rows, (a, b) in found["times"].items()}
        latency = {int(rows): (float(a), float(b)) for rows, (a, b) in found["latency"].items()}
        first, second = (dict(read_rows(path).inputs) for path in outputs)
    except (KeyError, TypeError, ValueError):
        raise PublishError("the comparison gave an answer that is no report") from None
    finally:
        for path in outputs:
            path.unlink(missing_ok=True)
    expected = read_rows(sample).expected
    measured = figures(first, second, expected, output)
    sizes = size_of(places[0].directory), size_of(places[1].directory)
    return Comparison(names, measured, latency, times, sizes, (facts[0], facts[1]))


def size_of(version: Path) -> int:
    """The bytes of the files of a version that a server reads."""
    total = 0
    for folder, directories, files in os.walk(version):
        directories[:] = [name for name in directories if not name.startswith(".")]
        total += sum(Path(folder, name).stat().st_size for name in files)
    return total


def _asked(place: VersionPlace, outputs: Path, *, trust: bool) -> dict[str, Any]:
    return {
        "root": str(place.root),
        "model": place.model,
        "version": place.version,
        "settings": str(place.links.resolve()) if place.links is not None else None,
        "allow": sorted(CODE_KINDS) if trust else None,
        "real": str(place.real),
        "outputs": str(outputs),
    }


def _facts(found: Mapping[str, Any]) -> LoadedFacts:
    return LoadedFacts(
        clean(str(found["backend"]), 60),
        clean(str(found["batching"])),
        tuple(clean(str(note)) for note in found["notes"]),
        float(found["load_seconds"]),
        clean(str(found["unsteady"])),
    )
