"""`inferd compare`: runs two versions of a model on the same rows and says what differs.

Accuracy (where the sample has labels), agreement, similarity, latency and size. Both versions are loaded in one process
of its own, as a server would load them, and are timed in turns. With `gate:` in model.yaml the exit code says whether
the second version may take the place of the first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.server.cli.comparing.flags import add_flags, guarded, probe_settings
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.output import print_json

if TYPE_CHECKING:
    from inferd.server.publishing.comparison.judge import Objection
    from inferd.server.publishing.comparison.task import Comparison


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("compare", help="compare two versions on the same rows", description=__doc__)
    parser.add_argument("model", help="the model's name, which is its directory in the repository")
    parser.add_argument("first", type=int, metavar="A", help="number of a version, such as the one served now")
    parser.add_argument("second", type=int, metavar="B", help="number of the version to compare it with")
    add_flags(parser)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots (.html)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return guarded(args, lambda: _compare(args))


def _compare(args: argparse.Namespace) -> int:
    from inferd.server.config.gate_schema import Gate
    from inferd.server.publishing.comparison import task
    from inferd.server.publishing.comparison.judge import judge
    from inferd.server.publishing.comparison.page import page
    from inferd.server.publishing.comparison.text import as_json, lines
    from inferd.server.publishing.comparison.versions import place_of, sample_of

    if args.first == args.second:
        raise usage(f"compare {args.first} with another version")
    settings = probe_settings(args)
    place = place_of(args.repository, args.model)
    places = place.version(args.first), place.version(args.second)
    asked = place.settings(settings).gate
    with tempfile.TemporaryDirectory(prefix="inferd-compare-") as folder:
        work = Path(folder)
        sample = sample_of(place, asked or Gate(), args.sample, work)
        names = f"{args.model}:{args.first}", f"{args.model}:{args.second}"
        compared = task.run(places, names, sample, settings, work=work, output=asked.output if asked else None)
    objections = judge(asked, compared) if asked is not None else None
    if args.report is not None:
        write_report(args.report, page(f"{names[0]} and {names[1]}", [compared], [objections]))
    if args.json:
        print_json(as_json(compared, objections))
    else:
        print("\n".join(lines(compared)))
        for line in verdict(asked, compared, objections):
            print(line)
    return 1 if objections else 0


def verdict(gate: Any, compared: Comparison, objections: tuple[Objection, ...] | None) -> list[str]:
    """What the gate says, a line for each objection."""
    from inferd.server.publishing.comparison.judge import caution

    if objections is None:
        return []
    said = [f"gate: {objection.key}: {objection.text}" for objection in objections] or ["gate: passed"]
    careful = caution(gate, compared.figures)
    return [*said, *([f"note: {careful}"] if careful else [])]


def write_report(path: Path, text: str) -> None:
    """Writes the page. Raises CommandError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from None
