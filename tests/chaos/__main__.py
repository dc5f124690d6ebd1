"""`python -m chaos [NAME...]` (make chaos): all scenarios, again and again, until so many answers are verified.

Prints a line a scenario as it goes and a table at the end; JSON goes to var/chaos.json. Ends with 1 on anything lost,
wrong or other than promised.
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
    """Plays. Gives the exit code."""
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
    said = parser.parse_args(arguments)
    unknown = set(said.names) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    chosen = [scenario for scenario in SCENARIOS if not said.names or scenario.name in said.names]
    # The default would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{machine()}\n\n| {' | '.join(COLUMNS)} |", flush=True)
    results, skipped = _play_all(chosen, said.answers, time.monotonic() + 60 * said.minutes, said.seconds)
    summary = together(results)
    print(f"\n{markdown(summary)}\n")
    for name, why in skipped.items():
        print(f"not played: {name}: {why}")
    save(summary, skipped, said.json)
    if said.docs:
        document.write(summary, skipped)
    answered = sum(result.answered for result in results)
    faults = [f"{result.name}: {fault}" for result in results for fault in result.faults]
    for fault in faults:
        print(f"BROKEN: {fault}")
    if answered < said.answers:
        print(f"TOO FEW: {answered:,} of {said.answers:,} answers within {said.minutes:g} minutes")
    return 1 if faults or answered < said.answers else 0


def _play_all(
    chosen: Sequence[type[Scenario]], answers: int, end: float, seconds: float
) -> tuple[list[Result], dict[str, str]]:
    """Cycles until there are enough answers or the time is over; every scenario is played once in any case."""
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
                            # An even share of what is missing, so that the last cycle is not longer than it need be.
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
