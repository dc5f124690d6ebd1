"""`inferd bench`: puts load on a model and reports latencies, throughput and errors.

--concurrency N sends the next request of each of N callers when its last is answered (closed loop). --rate R starts R
requests a second whatever the server does (open loop); latency then counts from the time a request was meant to start.
Several loads, --concurrency 1,4,16 or --rate 100,200, run one after the other. Without --input, inputs are made up from
the signature. Where the server tells its own figures, the report says where the time of a request goes: in the queue,
in the run of its batch, in the rest of the server, and outside of it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from inferd.client import NO_RETRIES, AsyncClient, Client
from inferd.server.cli.bench.load import BenchLoad, Tally, run_load
from inferd.server.cli.bench.report import as_json, check_files, print_result, print_sweep, write
from inferd.server.cli.bench.split import Asked, network_ms
from inferd.server.cli.bench.sweep import concurrencies, rates
from inferd.server.cli.connection import add_connection, client_options, open_client, positive, seconds
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.inputs.arguments import add_inputs, parse_shapes, random_inputs, read_inputs
from inferd.server.cli.output import print_json


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="put load on a model", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="rows of made-up inputs (%(default)s)")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=N,N", help="shape of a made-up input")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "-c", "--concurrency", type=concurrencies, metavar="N[,N...]",
        help="closed loop with N callers (default: 8); several: 1,4,16 or START:END[:STEP]",
    )  # fmt: skip
    how.add_argument("--rate", type=rates, metavar="R[,R...]", help="open loop with R requests a second")
    parser.add_argument("-d", "--duration", type=seconds, metavar="SECONDS", help="of each (10, without --requests)")
    parser.add_argument("-n", "--requests", type=positive, metavar="N", help="end each after so many")
    parser.add_argument(
        "--report", type=Path, action="append", default=[], metavar="FILE", help="also write .json, .csv or .html"
    )
    parser.add_argument("--warm-up", type=positive, default=10, metavar="N", help="requests before (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no live display")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_files(args.report)
    duration = args.duration if args.duration or args.requests else 10.0
    loads = [BenchLoad(None, rate, duration, args.requests) for rate in args.rate or ()]
    loads = loads or [BenchLoad(callers, None, duration, args.requests) for callers in args.concurrency or (8,)]
    results: list[dict[str, Any]] = []
    failed = False
    first_error = ""
    with open_client(args) as client:
        inputs, version = _inputs(args, client)
        for load in loads:
            tally = Tally()
            server, interrupted = asyncio.run(_measure(args, load, inputs, tally, Asked(client, args.model, version)))
            if tally.sent:
                result = {"model": args.model, "version": version, **_settings(load), **tally.summary()}
                result |= {"server": server, "network_ms": network_ms(result["latency_ms"], server)}
                results.append(result)
            failed = failed or bool(tally.errors)
            first_error = first_error or tally.first_error
            if interrupted:
                break
    if not results:
        raise CommandError("nothing was sent before it was interrupted")
    for file in args.report:
        write(results, file)
    if args.json:
        print_json(as_json(results))
    elif len(loads) == 1:
        print_result(results[0], first_error)
    else:
        print_sweep(results, first_error)
    return 1 if failed else 0


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
    args: argparse.Namespace, load: BenchLoad, inputs: dict[str, np.ndarray[Any, Any]], tally: Tally, asked: Asked
) -> tuple[dict[str, Any] | None, bool]:
    """Puts the load on the model. Returns the server's own figures (None: it does not tell them), and whether Ctrl-C
    ended the load."""
    options = client_options(args) | {"retry": NO_RETRIES}
    async with AsyncClient(args.address, **options) as client:

        async def send() -> object:
            return await client.predict(
                args.model, inputs, version=args.version, label=args.label, signature=args.signature
            )

        await run_load(send, BenchLoad(min(load.concurrency or 8, args.warm_up), None, None, args.warm_up), Tally())
        before = await asyncio.to_thread(asked.times)
        with _display(args, load, tally):
            interrupted = await _until_interrupted(send, load, tally)
        after = await asyncio.to_thread(asked.times) if before is not None else None
    return (after.since(before) if before is not None and after is not None else None), interrupted


async def _until_interrupted(send: Callable[[], Awaitable[object]], load: BenchLoad, tally: Tally) -> bool:
    """Runs the load. Ctrl-C ends it, and the answer is True; the requests measured so far are still reported."""
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
        return True
    return False


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
