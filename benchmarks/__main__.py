"""`python -m benchmarks [NAME...]`: runs measurements, prints tables, and writes var/bench[-NAME...].json."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from benchmarks import ROOT
from benchmarks.h2load import LoadError
from benchmarks.options import Options
from benchmarks.pages import write_results, write_summary
from benchmarks.report import Table, machine, save
from benchmarks.summary import summary

NAMES = (
    "startup",
    "overhead",
    "batching",
    "reloads",
    "swap",
    "hot_path",
    "isolation",
    "isolated",
    "compute_bound",
    "overload",
)
WITH_OPTIONS = ("peers", "client", "memory")
LONG = ("memory",)
"""These are run only if they are named on the command line."""


def main(arguments: list[str]) -> int:
    """Runs the measurements one after the other. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*WITH_OPTIONS, *NAMES)))
    parser.add_argument("--quick", action="store_true", help="fewer rounds and points: a look, not figures to publish")
    parser.add_argument(
        "--docs", action="store_true", help="write the figures into benchmarks/results/, those of peers into docs/, too"
    )
    parser.add_argument("--prototype", type=Path, help="peers: a server script to compare with")
    parser.add_argument(
        "--triton", type=Path, help="peers: a script that starts Triton: REPOSITORY --grpc-port P --http-port P"
    )
    parser.add_argument("--only", default="", help="peers: words of the names of those to compare, comma-separated")
    parser.add_argument("--requests", type=int, default=Options.requests, help="memory: how many requests")
    parsed = parser.parse_args(arguments)
    unknown = set(parsed.names) - {*NAMES, *WITH_OPTIONS}
    if unknown:
        parser.error(f"expected any of {', '.join((*WITH_OPTIONS, *NAMES))}, got {', '.join(sorted(unknown))}")
    only = tuple(word.strip().lower() for word in parsed.only.split(",") if word.strip())
    options = Options(
        quick=parsed.quick,
        docs=parsed.docs,
        prototype=parsed.prototype,
        triton=parsed.triton,
        only=only,
        requests=parsed.requests,
    )
    # Without this handler, SIGTERM would leave the measured servers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{machine()}\n", flush=True)
    tables: list[Table] = []
    try:
        for name in parsed.names or [name for name in (*WITH_OPTIONS, *NAMES) if name not in LONG]:
            found = _measured(name, options, tables)
            if parsed.docs:
                write_results(ROOT / "benchmarks" / "results", name, found, _command(name, options))
            if parsed.docs and name == "peers":
                write_summary(ROOT / "docs" / "performance.md", name, summary(found), _command(name, options))
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    finally:  # if a measurement fails, the results of those before it are kept
        save(tables, ROOT / "var" / f"{'-'.join(['bench', *parsed.names])}.json")
    return 0


def _measured(name: str, options: Options, tables: list[Table]) -> list[Table]:
    """Runs one measurement and returns its tables. Each is printed and added to `tables` as soon as it is ready."""
    module = importlib.import_module(f"benchmarks.{name}")
    result = module.measure(options) if name in WITH_OPTIONS else module.measure()
    found = []
    for table in [result] if isinstance(result, Table) else result:
        found.append(table)
        tables.append(table)
        print(table.markdown(), flush=True)
    return found


def _command(name: str, options: Options) -> str:
    """The command line, as the document shows it."""
    words = ["python -m benchmarks", name]
    if options.quick:
        words.append("--quick")
    if name == "peers" and options.prototype is not None:
        words.append("--prototype PATH")
    if name == "peers" and options.triton is not None:
        words.append("--triton START")
    if name == "memory" and options.requests != Options.requests:
        words.append(f"--requests {options.requests}")
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
