"""`inferd optimise`: makes smaller and faster variants of a version, and publishes what the gate lets through.

Some of the sample rows calibrate a variant, the others judge it: accuracy, agreement, latency and size beside those of
the version that it was made from. With --publish the best variant becomes the next version, its figures in its
provenance. Exit code 1: no variant passed, and nothing was published.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.server.cli.comparing.compare import write_report
from inferd.server.cli.comparing.flags import add_flags, guarded, probe_settings
from inferd.server.cli.errors import usage
from inferd.server.cli.output import print_json
from inferd.server.cli.task_flags import say

if TYPE_CHECKING:
    from inferd.server.publishing.optimise.optimiser import Optimised

KINDS = ("auto", "int8", "int8-dynamic", "fp16", "litert-int8", "litert-dynamic")
_NAMED = re.compile(r"(?P<model>[^:]+)(?::(?P<version>[0-9]{1,19}))?")


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("optimise", help="make smaller, faster variants of a version", description=__doc__)
    parser.add_argument("model", metavar="MODEL[:N]", help="model and version (default: the newest that is no variant)")
    add_flags(parser)
    parser.add_argument(
        "--as", dest="kind", choices=KINDS, default="auto", help="auto: all that apply; the fastest wins"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="rows that calibrate (default: a quarter of the sample)"
    )
    parser.add_argument("--publish", action="store_true", help="publish the best variant as the next version")
    parser.add_argument(
        "--force", metavar="REASON", default="", help="publish although the gate says no, and record why; needs --as"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots (.html)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return guarded(args, lambda: _optimise(args))


def _optimise(args: argparse.Namespace) -> int:
    from inferd.server.publishing.comparison.versions import place_of
    from inferd.server.publishing.optimise.optimiser import OptimiseSettings, optimise
    from inferd.server.publishing.optimise.text import as_json, lines

    named = _NAMED.fullmatch(args.model)
    if named is None:
        raise usage(f"{args.model!r}: expected MODEL or MODEL:N")
    if args.force and (args.kind == "auto" or not args.publish):
        raise usage("--force needs --publish and the variant's name: --as int8")
    settings = OptimiseSettings(
        kind=args.kind,
        sample=args.sample,
        calibration=args.calibration,
        publish=args.publish,
        force=args.force,
        probe=probe_settings(args),
        say=say,
    )
    number = int(named["version"]) if named["version"] else None
    done = optimise(place_of(args.repository, named["model"]), number, settings)
    if args.report is not None:
        write_report(args.report, _page(done))
    if args.json:
        print_json(as_json(done))
    else:
        print("\n".join([*lines(done), *_ending(named["model"], done, args.publish)]))
    return 0 if done.chosen is not None else 1


def _ending(model: str, done: Optimised, publish: bool) -> list[str]:
    if done.chosen is None:
        return ["nothing is published: no variant passes" if publish else "no variant passes"]
    name = done.chosen.kind.name
    if done.place is None:
        return [f"{name} is the best that passes; publish it with --publish --as {name}"]
    return [f"{model}:{done.place.name} is at {done.place}: {name} of {done.parent}"]


def _page(done: Optimised) -> str:
    from inferd.server.publishing.comparison.page import page

    tried = [attempt for attempt in done.attempts if attempt.compared is not None]
    compared = [attempt.compared for attempt in tried if attempt.compared is not None]
    return page(f"Variants of {done.parent}", compared, [attempt.objections for attempt in tried])
