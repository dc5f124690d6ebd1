"""Prints the results of `inferd bench`, and writes them to files: .json, .csv, .html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from inferd.server.cli.bench.html import page
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.output import print_table

MARKS: Final = ("p50", "p90", "p99", "p99.9", "max", "mean", "min")
_SPLIT: Final = ("queue_ms", "compute_ms", "rest_ms")
_SUFFIXES: Final = (".json", ".csv", ".html")
Result = Mapping[str, Any]


def check_files(files: Sequence[Path]) -> None:
    """Raises CommandError for a file whose name does not say what to write."""
    for file in files:
        if file.suffix not in _SUFFIXES:
            raise usage(f"--report {str(file)!r}: expected a name that ends in {', '.join(_SUFFIXES)}")


def print_result(result: Result, first_error: str) -> None:
    """Prints the result of one load."""
    print(f"{result['model']}:{result['version']}, {load_of(result)}, {result['seconds']:.1f} s")
    print(f"{result['answered']} answered, {result['failed']} failed, {result['requests_per_second']:.1f} requests/s")
    latency = result["latency_ms"]
    if latency:
        print_table([mark.upper() for mark in MARKS], [[f"{latency[mark]:.3f} ms" for mark in MARKS]])
    server = result["server"]
    if server:
        rows = f", {server['rows_per_run']:.1f} rows a run" if server["rows_per_run"] else ""
        print(
            f"in the server, mean of {server['requests']} requests: queue {server['queue_ms']:.3f} ms, "
            f"compute {server['compute_ms']:.3f} ms, rest {server['rest_ms']:.3f} ms{rows}"
        )
        if result["network_ms"] is not None:
            print(f"outside (network and this client): {result['network_ms']:.3f} ms")
    else:
        print("in the server: not told (ModelStatistics is not answered)")
    _print_errors(result, first_error)


def print_sweep(results: Sequence[Result], first_error: str) -> None:
    """Prints a row for each load."""
    print(f"{results[0]['model']}:{results[0]['version']}, {results[0]['seconds']:.1f} s each; times in ms")
    columns = ("CALLERS" if results[0]["mode"] == "closed" else "RATE", "REQUESTS/S", "FAILED", "P50", "P90", "P99")
    rows = []
    for result in results:
        latency, server = result["latency_ms"], result["server"] or {}
        rows.append(
            [
                f"{_size(result):g}",
                f"{result['requests_per_second']:.1f}",
                str(result["failed"]),
                *(f"{latency[mark]:.3f}" if latency else "-" for mark in ("p50", "p90", "p99")),
                *(f"{server[key]:.3f}" if server else "-" for key in _SPLIT),
                "-" if result["network_ms"] is None else f"{result['network_ms']:.3f}",
                f"{server['rows_per_run']:.1f}" if server.get("rows_per_run") else "-",
            ]
        )
    print_table((*columns, "QUEUE", "COMPUTE", "REST", "NETWORK", "ROWS/RUN"), rows)
    for result in results:
        if result["errors"]:
            _print_errors(result, first_error)
            break


def as_json(results: Sequence[Result]) -> Any:
    """One result as it is, or {"sweep": [...]}."""
    return results[0] if len(results) == 1 else {"sweep": list(results)}


def write(results: Sequence[Result], file: Path) -> None:
    """Writes the results, in the format that the file's name says. Raises CommandError."""
    if file.suffix == ".json":
        text = json.dumps(as_json(results), indent=2) + "\n"
    elif file.suffix == ".csv":
        text = _csv(results)
    else:
        text = page(results)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None


def load_of(result: Result) -> str:
    """What was done, as text."""
    if result["mode"] == "open":
        return f"open loop, {result['rate']:g} requests/s meant"
    return f"closed loop, {result['concurrency']} callers"


def _size(result: Result) -> float:
    return float(result["rate"] if result["mode"] == "open" else result["concurrency"])


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    plain = ("model", "version", "mode", "concurrency", "rate", "seconds", "sent", "answered", "failed")
    header = (*plain, "requests_per_second", *(f"{mark}_ms" for mark in MARKS))
    split = ("total_ms", *_SPLIT, "rows_per_run")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, *(f"server_{key}" for key in split), "network_ms"])
    for result in results:
        server = result["server"] or {}
        writer.writerow(
            [
                *(result.get(key, "") for key in (*plain, "requests_per_second")),
                *(result["latency_ms"].get(mark, "") for mark in MARKS),
                *("" if server.get(key) is None else server[key] for key in split),
                "" if result["network_ms"] is None else result["network_ms"],
            ]
        )
    return text.getvalue()


def _print_errors(result: Result, first_error: str) -> None:
    if result["errors"]:
        print_table(("ERROR", "COUNT"), [(code, str(count)) for code, count in result["errors"].items()])
        print(f"the first: {first_error}")
