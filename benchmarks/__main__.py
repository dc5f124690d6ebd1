"""`python -m benchmarks [NAME...]`: runs the measurements and prints them; JSON goes to var/bench.json."""

from __future__ import annotations

import importlib
import sys

from benchmarks import ROOT
from benchmarks.report import Table, machine, save

NAMES = ("startup", "overhead", "batching", "reloads", "swap", "hot_path", "isolation", "frontend")


def main(names: list[str]) -> int:
    """Runs them in turn. Gives the exit code."""
    unknown = set(names) - set(NAMES)
    if unknown:
        print(f"expected any of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    print(f"{machine()}\n", flush=True)
    tables: list[Table] = []
    for name in names or NAMES:
        result = importlib.import_module(f"benchmarks.{name}").measure()
        for table in [result] if isinstance(result, Table) else result:
            tables.append(table)
            print(table.markdown(), flush=True)
    save(tables, ROOT / "var" / "bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
