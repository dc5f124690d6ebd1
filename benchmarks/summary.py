"""The one table of docs/performance.md: how inferd stands beside each peer, from the tables of `benchmarks.peers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report import Table, text_of

FIRST = "inferd"
LEFT_OUT = ("inferd, public API", "prototype", "grpc.aio echo, no model")
"""They are in the results, but no user has to choose between them and inferd."""
IN_PROCESS = "in process, no server"


def summary(tables: Sequence[Table]) -> Table:
    """One row for each model and number of requests in flight: inferd's rate, processor time and latencies, then how
    many times as fast as each peer inferd is. "-" stands where a peer was not measured. Raises ValueError if there are
    no tables.
    """
    if not tables:
        raise ValueError("expected the tables of a measurement of the peers, got none")
    peers = list(dict.fromkeys(_peer(row) for table in tables for row in table.rows if _peer(row)))
    columns = ["model", "in flight", "requests/s", "CPU µs/request", "p50 ms", "p99 ms"]
    result = Table("", [*columns, *(f"× {peer}" for peer in peers)])
    for table in tables:
        model = table.title.partition(": ")[2].partition(",")[0].removesuffix(" model")
        for in_flight in dict.fromkeys(row[0] for row in table.rows if row[0] != ""):
            rows = [row for row in table.rows if row[0] == in_flight]
            own = next(row for row in rows if row[1] == FIRST)
            ratios = {_peer(row): row[3] for row in rows}
            result.rows.append([model, in_flight, own[2], *own[4:7], *(text_of(ratios.get(p) or "-") for p in peers)])
    return result


def _peer(row: Sequence[Any]) -> str:
    """The peer of this row, "" if it has no column of its own."""
    name = str(row[1])
    if name.startswith(IN_PROCESS):
        return IN_PROCESS
    return "" if name == FIRST or name in LEFT_OUT or row[0] == "" else name.partition(" (failed")[0]
