"""`python -m chaos [NAME...]` (make chaos): runs all scenarios again and again until enough answers are verified.

Prints a line for each scenario and a table at the end, and writes var/chaos.json. The exit code is 1 if a request was
lost, an answer was wrong, or a promise was broken.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chaos import document
from chaos.catalogue import SCENARIOS
from chaos.report import COLUMNS, machine, markdown, row, save, together
from chaos.scenario import Result, Scenario, play
from chaos.stage import CannotPlay, Stage

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Runs the scenarios. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(s.name for s in SCENARIOS))
    parser.add_argument(
        "--answers", type=int, default=1_000_000, help="verified answers to reach (default: %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="begin no scenario after this (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no strike after this in one scenario")
    parser.add_argument("--json", type=Path, default=ROOT / "var" / "chaos.json")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/reliability.md")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    chosen = [scenario for scenario in SCENARIOS if not options.names or scenario.name in options.names]
    # Without this handler, SIGTERM would leave the servers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{machine()}\n\n| {' | '.join(COLUMNS)} |", flush=True)
    results, skipped = _play_all(chosen, options.answers, time.monotonic() + 60 * options.minutes, options.seconds)
    summary = together(results)
    print(f"\n{markdown(summary)}\n")
    for name, why in skipped.items():
        print(f"not played: {name}: {why}")
    save(summary, skipped, options.json)
    if options.docs:
        document.write(summary, skipped)
    answered = sum(result.answered for result in results)
    faults = [f"{result.name}: {fault}" for result in results for fault in result.faults]
    for fault in faults:
        print(f"BROKEN: {fault}")
    if answered < options.answers:
        print(f"TOO FEW: {answered:,} of {options.answers:,} answers within {options.minutes:g} minutes")
    return 1 if faults or answered < options.answers else 0


def _play_all(
    chosen: Sequence[type[Scenario]], answers: int, end: float, seconds: float
) -> tuple[list[Result], dict[str, str]]:
    """Runs all scenarios in turn until there are enough answers or the time is over, each at least once. Returns the
    results, and for scenarios that cannot be run the reason by name."""
    results: list[Result] = []
    skipped: dict[str, str] = {}
    for cycle in itertools.count():
        played = len(results)
        for setup, group in itertools.groupby(chosen, key=lambda scenario: scenario.setup):
            scenarios = [s for s in group if s.name not in skipped]
            if not scenarios or (cycle and (_total(results) >= answers or time.monotonic() > end)):
                continue
            with tempfile.TemporaryDirectory(prefix="inferd-chaos-") as place:
                try:
                    with Stage(Path(place) / "stage", setup) as stage:
                        for scenario in scenarios:
                            # Each scenario gets an equal share of the missing answers: the last cycle is not too long.
                            share = max(300, min(20_000, (answers - _total(results)) // len(chosen)))
                            results.append(play(scenario(), stage, share, seconds))
                            print(f"| {' | '.join(row(results[-1]))} |", flush=True)
                            for fault in results[-1].faults:
                                print(f"  BROKEN: {fault}", flush=True)
                            if not stage.alive():
                                stage.start()
                except CannotPlay as why:
                    skipped |= {s.name: str(why) for s in scenarios}
        if len(results) == played or _total(results) >= answers or time.monotonic() > end:
            return results, skipped
    raise AssertionError


def _total(results: Sequence[Result]) -> int:
    return sum(result.answered for result in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
