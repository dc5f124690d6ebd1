"""`inferd bench`: puts load on a model and reports latencies, throughput and errors.

--concurrency N sends the next request of each of N callers when its last is answered (closed loop). --rate R starts R
requests a second whatever the server does (open loop); latency then counts from the time a request was meant to start.
Without --input, inputs are made up from the signature.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from inferd.client import NO_RETRIES, AsyncClient, Client
from inferd.server.cli.bench.load import BenchLoad, Tally, run_load
from inferd.server.cli.connection import add_connection, client_options, open_client, positive, rate, seconds
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.inputs.arguments import add_inputs, parse_shapes, random_inputs, read_inputs
from inferd.server.cli.output import print_json, print_table

_MARKS = ("p50", "p90", "p99", "p99.9", "max", "mean", "min")


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="put load on a model", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="rows of made-up inputs (%(default)s)")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=N,N", help="shape of a made-up input")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-c", "--concurrency", type=positive, metavar="N", help="closed loop with N callers (default: 8)")
    how.add_argument("--rate", type=rate, metavar="R", help="open loop with R requests a second")
    parser.add_argument("-d", "--duration", type=seconds, metavar="SECONDS", help="default: 10, without --requests")
    parser.add_argument("-n", "--requests", type=positive, metavar="N", help="end after so many")
    parser.add_argument("--warm-up", type=positive, default=10, metavar="N", help="requests before (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no live display")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    duration = args.duration if args.duration or args.requests else 10.0
    concurrency = None if args.rate else args.concurrency or 8
    load = BenchLoad(concurrency, args.rate, duration, args.requests)
    with open_client(args) as client:
        inputs, version = _inputs(args, client)
    tally = Tally()
    asyncio.run(_measure(args, load, inputs, tally))
    if not tally.sent:
        raise CommandError("nothing was sent before it was interrupted")
    summary = {"model": args.model, "version": version, **_settings(load), **tally.summary()}
    if args.json:
        print_json(summary)
    else:
        _print(summary, tally.first_error)
    return 1 if tally.errors else 0


def _inputs(args: argparse.Namespace, client: Client) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
    """The inputs as arrays, and the version that answers. Sends one request, so that wrong inputs fail once and not
    ten thousand times."""
    metadata = client.metadata(args.model, version=args.version, label=args.label)
    signature = metadata.signature(args.signature)
    if signature is None:
        known = ", ".join(known.name for known in metadata.signatures)
        raise usage(f"{args.model!r} has no signature {args.signature!r}, only {known}")
    if args.input:
        given = read_inputs(args, client)
    else:
        given = random_inputs(signature, args.batch, parse_shapes(args.shape))
    arrays = client.as_arrays(args.model, given, version=args.version, label=args.label, signature=args.signature)
    answer = client.predict(args.model, arrays, version=args.version, label=args.label, signature=args.signature)
    return arrays, answer.version


async def _measure(
    args: argparse.Namespace, load: BenchLoad, inputs: dict[str, np.ndarray[Any, Any]], tally: Tally
) -> None:
    options = client_options(args) | {"retry": NO_RETRIES}
    async with AsyncClient(args.address, **options) as client:

        async def send() -> object:
            return await client.predict(
                args.model, inputs, version=args.version, label=args.label, signature=args.signature
            )

        await run_load(send, BenchLoad(min(load.concurrency or 8, args.warm_up), None, None, args.warm_up), Tally())
        with _display(args, load, tally):
            await _until_interrupted(send, load, tally)


async def _until_interrupted(send: Callable[[], Awaitable[object]], load: BenchLoad, tally: Tally) -> None:
    """Runs the load. Ctrl-C ends it; the requests measured so far are still reported."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(run_load(send, load, tally))
    try:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        pass  # not the main thread
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        print("interrupted", file=sys.stderr)


def _settings(load: BenchLoad) -> dict[str, Any]:
    if load.rate is not None:
        return {"mode": "open", "rate": load.rate}
    return {"mode": "closed", "concurrency": load.concurrency}


def _display(args: argparse.Namespace, load: BenchLoad, tally: Tally) -> AbstractContextManager[Any]:
    """A live line, if stderr is a terminal and `rich` is installed; otherwise nothing."""
    if args.quiet or args.json or not sys.stderr.isatty():
        return nullcontext()
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return nullcontext()
    return Live(get_renderable=lambda: _line(load, tally), console=Console(stderr=True), transient=True)


def _line(load: BenchLoad, tally: Tally) -> str:
    now = tally.summary()
    latency = now["latency_ms"]
    shown = "  ".join(f"{mark} {latency[mark]:.2f} ms" for mark in ("p50", "p99") if latency)
    bound = f" / {load.duration:g}" if load.duration else ""
    return (
        f"{now['seconds']:.0f}{bound} s  {now['requests_per_second']:.0f} requests/s  {shown}  "
        f"{tally.in_flight} in flight  {now['failed']} failed"
    )


def _print(summary: dict[str, Any], first_error: str) -> None:
    mode = (
        f"open loop, {summary['rate']:g} requests/s meant"
        if summary["mode"] == "open"
        else f"closed loop, {summary['concurrency']} callers"
    )
    print(f"{summary['model']}:{summary['version']}, {mode}, {summary['seconds']:.1f} s")
    print(
        f"{summary['answered']} answered, {summary['failed']} failed, {summary['requests_per_second']:.1f} requests/s"
    )
    latency = summary["latency_ms"]
    if latency:
        print_table([mark.upper() for mark in _MARKS], [[f"{latency[mark]:.3f} ms" for mark in _MARKS]])
    if summary["errors"]:
        print_table(("ERROR", "COUNT"), [(code, str(count)) for code, count in summary["errors"].items()])
        print(f"the first: {first_error}")
