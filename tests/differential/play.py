"""Runs scenes on both sides and compares the results."""

from __future__ import annotations

import itertools
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from differential.code import Code
from differential.compare import ABSENT, Difference, Report
from differential.scene import Notes, Scene
from differential.side import Side
from support.waiting import eventually

SETTLED = 10.0  # longest wait in seconds for the counters to come to rest
QUIET = 1.0  # counters that have not changed for so many seconds are at rest


def play(
    base: Code, head: Code, scenes: Sequence[Scene], report: Report, say: Callable[[str], None] = lambda _: None
) -> None:
    """Runs the scenes one after the other, each on both sides at the same time. Fills `report`."""
    for setup, group in itertools.groupby(scenes, key=lambda scene: scene.setup):
        with tempfile.TemporaryDirectory(prefix="inferd-diff-") as place, ExitStack() as stack:
            begun = time.monotonic()
            made = [Side(n, code, setup, Path(place) / n) for n, code in (("base", base), ("head", head))]
            pool = stack.enter_context(ThreadPoolExecutor(2))
            try:
                sides = list(pool.map(stack.enter_context, made))
            except AssertionError as error:
                report.broken.append(f"{setup.name}: {error}")
                continue
            say(f"{setup.name}: two servers, {time.monotonic() - begun:.1f} s")
            known: dict[str, Any] = {}
            for scene in group:
                begun, before = time.monotonic(), report.cases
                known = _scene(scene, sides, pool, report, known)
                say(f"  {scene.name}: {report.cases - before} cases, {time.monotonic() - begun:.1f} s")


def _scene(
    scene: Scene, sides: Sequence[Side], pool: ThreadPoolExecutor, report: Report, known: dict[str, Any]
) -> dict[str, Any]:
    notes = [Notes(scene, side) for side in sides]
    endings = list(pool.map(_play, notes))
    for side, ending in zip(sides, endings, strict=True):
        if ending is not None:
            report.broken.append(f"{scene.name} on {side.name} ({side.code.name}): {ending}\n{side.tail()}")
    for case in dict.fromkeys(case for each in notes for case in each.seen):
        report.compare(f"{scene.name}/{case}", *(each.seen.get(case, ABSENT) for each in notes))
    return _metrics(scene, sides, report, known) if scene.exact else known


def _play(notes: Notes) -> str | None:
    try:
        notes.scene.play(notes)
        if not notes.scene.exact:
            notes.see("invariants", "hold")
    except Exception:
        return traceback.format_exc()
    finally:
        notes.side.gates.open()
    return None


def _metrics(scene: Scene, sides: Sequence[Side], report: Report, known: dict[str, Any]) -> dict[str, Any]:
    """Compares the metrics pages once the counters are at rest. A difference from before is reported again only if it
    has changed."""
    pages: list[dict[str, str]] = []
    changed = time.monotonic()

    def settled() -> bool:
        nonlocal changed
        now = [side.metrics() for side in sides]
        if now != pages:
            pages[:] = now
            changed = time.monotonic()
        return pages[0] == pages[1] or time.monotonic() - changed > QUIET

    with suppress(AssertionError):  # counters that never come to rest are compared as they are
        eventually(settled, "counters settle", limit=SETTLED)
    report.cases += 1
    report.values += len(pages[0])
    found: dict[str, Any] = {}
    for series in [*pages[0], *(series for series in pages[1] if series not in pages[0])]:
        one, other = (page.get(series, ABSENT) for page in pages)
        if one == other:
            continue
        found[series] = _gap(one, other)
        if known.get(series) != found[series]:
            report.add(Difference(f"{scene.name}/metrics", series, one, other))
    return found


def _gap(one: str, other: str) -> Any:
    try:
        return float(other) - float(one)
    except ValueError:
        return one, other
