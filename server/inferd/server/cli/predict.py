"""`inferd predict`: one request from files or JSON, its answer as text, JSON or .npz."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from inferd.client import Prediction
from inferd.server.cli.connection import add_connection, open_client, seconds
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.inputs.arguments import add_inputs, read_inputs
from inferd.server.cli.output import prediction_json, print_json, print_prediction


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="send one request",
        description=__doc__,
        epilog="examples: inferd predict digits -i @eight.png · inferd predict adder -i 'x=[[1, 2]]' --json · "
        "inferd predict vad -i @inputs.npz --save answer.npz",
    )
    add_inputs(parser)
    parser.add_argument("-o", "--output", action="append", metavar="NAME", help="only this output; repeatable")
    parser.add_argument("--save", metavar="FILE.npz", help="write the outputs to a file")
    parser.add_argument("--request-id", default="", metavar="ID")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="1 is served before 2; 0: the default")
    parser.add_argument("--queue-timeout", type=seconds, metavar="SECONDS", help="longest wait in the server's queue")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.input:
        raise usage("predict: no --input is given")
    if args.save and not args.save.endswith(".npz"):
        raise usage(f"--save {args.save!r}: expected a name that ends in .npz")
    with open_client(args) as client:
        answer = client.predict(
            args.model,
            read_inputs(args, client),
            version=args.version,
            label=args.label,
            signature=args.signature,
            outputs=args.output,
            request_id=args.request_id,
            priority=args.priority,
            queue_timeout=args.queue_timeout,
        )
    if args.save:
        _save(Path(args.save), answer)
    if args.json:
        print_json(prediction_json(answer))
    else:
        print_prediction(answer)
    return 0


def _save(path: Path, answer: Prediction) -> None:
    # numpy pickles object arrays, and loading a pickle can run code. So strings become numpy's fixed-width bytes.
    arrays: dict[str, Any] = {}
    for name, array in answer.items():
        kind = np.bytes_ if array.dtype == object else np.float32 if array.dtype.kind == "V" else array.dtype
        arrays[name] = array.astype(kind)
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
