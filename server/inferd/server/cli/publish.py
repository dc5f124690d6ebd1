"""`inferd publish`: puts a new version into a repository, after it has been loaded, run and compared.

The files are copied or converted in a hidden directory and reach their place by a rename, which is all or nothing.
Before the rename the version is loaded in a process of its own, as a server would load it, and answers rows; what was
converted is compared with the original. Without --version the next free number is taken.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.client import Client, VersionState
from inferd.server.cli.connection import add_connection, open_client
from inferd.server.cli.errors import CommandError
from inferd.server.cli.output import print_json
from inferd.server.cli.serve import missing
from inferd.server.cli.task_flags import add_limits, failed, say, shown, task_limits

if TYPE_CHECKING:
    from inferd.server.publishing.publication import Published, PublishSettings

_WAIT = 300.0


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("publish", help="put a new version into a repository", description=__doc__)
    parser.add_argument("model", help="the model's name, which is its directory in the repository")
    parser.add_argument("source", help="a file, a directory or an MLflow URI; docs/publishing.md lists what")
    parser.add_argument("-r", "--repository", type=Path, required=True, metavar="DIR", help="made if it is not there")
    parser.add_argument("--version", type=int, metavar="N", help="default: the highest one there and 1")
    parser.add_argument("--wait", action="store_true", help="until the server at --address serves it, or says why not")
    convert = parser.add_argument_group("conversion")
    convert.add_argument(
        "--python", metavar="BIN", default="", help="the interpreter that trained the model (default: inferd's own)"
    )
    convert.add_argument(
        "--to", metavar="FORMAT", default="", help="onnx, pt2, savedmodel or litert (default: by source)"
    )
    convert.add_argument(
        "--module", metavar="FILE:NAME", default="", help="class or function that makes the model: net.py:Net"
    )
    convert.add_argument("--args", metavar="JSON", default="", help="its arguments, such as '{\"classes\": 10}'")
    convert.add_argument(
        "--checkpoint-key", metavar="NAME", default="", help="of the weights in a checkpoint: model_state_dict"
    )
    convert.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:DTYPE[SHAPE]",
        help="an input of a torch model: 'image:FP32[-1,3,224,224]'; may be repeated; --sample tells it as well",
    )
    convert.add_argument("--names", metavar="NAME,NAME", default="", help="names of the outputs")
    convert.add_argument(
        "--dtype", choices=("FP32", "FP64"), default="FP32", help="of the numbers that a model of tables takes (FP32)"
    )
    convert.add_argument("--file", metavar="PATH", default="", help="the file to take out of a directory")
    convert.add_argument("--rev", metavar="REV", default="", help="the revision to take (DVC: a tag, branch or commit)")
    convert.add_argument("--model-only", action="store_true", help="leave out the handler of a TorchServe archive")
    check = parser.add_argument_group("check")
    check.add_argument(
        "--sample", type=Path, metavar="FILE", help="rows that it must answer: .npz (arrays by input name), .npy, .csv"
    )
    check.add_argument("--no-check", action="store_true", help="do not load it before it is published")
    check.add_argument("--force", metavar="REASON", default="", help="publish although a check fails, and record why")
    check.add_argument("--config", type=Path, metavar="FILE", help="the server's settings: what it allows the model")
    check.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting over those; may be repeated"
    )
    check.add_argument(
        "--trust", action="store_true", help="files may run code with all your rights while they are read and checked"
    )
    add_limits(check)
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from inferd.server.publishing.errors import PublishError
        from inferd.server.publishing.publication import publish
    except ImportError as error:
        raise CommandError(missing(error)) from None
    try:
        published = publish(args.model, args.source, args.repository, _settings(args))
    except PublishError as error:
        raise failed(error, args) from None
    state = "published"
    if not args.json:
        print(f"{args.model}:{published.version} is at {published.place}")
    for note in published.notes:
        say(f"note: {note}")
    if args.wait:
        with open_client(args) as client:
            wait_available(client, args.model, published.version, args.timeout or _WAIT)
        state = "available"
        if not args.json:
            print(f"{args.model}:{published.version} is served")
    if args.json:
        print_json(_as_json(args.model, published, state))
    return 0


def wait_available(client: Client, model: str, version: int, timeout: float) -> None:
    """Watches the server until it serves the version. Raises CommandError if the version fails or is not served in
    time. `timeout` in seconds."""
    print(f"waiting for {model}:{version} …", file=sys.stderr)
    last = "the server has not seen it; does it watch this repository, and does its version policy want this version?"
    for change in client.watch(timeout=timeout):
        if change.model != model or change.version.version != version:
            continue
        state, error = change.version.state, change.version.error
        if state is VersionState.AVAILABLE:
            return
        if error:
            raise CommandError(f"{model}:{version} failed to load: {error}")
        last = f"it is {state.name}"
    raise CommandError(f"{model}:{version} is not served after {timeout:g} s: {last}")


def _settings(args: argparse.Namespace) -> PublishSettings:
    from inferd.server.publishing.probe import ProbeSettings
    from inferd.server.publishing.publication import PublishSettings
    from inferd.server.publishing.sources.material import SourceOptions

    limits = task_limits(args)
    settings = PublishSettings(
        version=args.version,
        source=SourceOptions(
            python=args.python,
            to=args.to,
            sample=args.sample,
            module=args.module,
            arguments=args.args,
            key=args.checkpoint_key,
            inputs=tuple(args.input),
            names=tuple(name.strip() for name in args.names.split(",") if name.strip()),
            dtype=args.dtype,
            file=args.file,
            revision=args.rev,
            model_only=args.model_only,
            trust=args.trust,
            limits=limits,
        ),
        probe=ProbeSettings(args.config, args.set, args.trust, limits),
        check=not args.no_check,
        force=args.force,
        say=say,
    )
    if args.verbose:
        settings = replace(
            settings,
            source=replace(settings.source, output=shown),
            probe=replace(settings.probe, output=shown, progress=say),
        )
    return settings


def _as_json(model: str, published: Published, state: str) -> dict[str, Any]:
    value: dict[str, Any] = {
        "model": model,
        "version": published.version,
        "path": str(published.place),
        "state": state,
        "notes": list(published.notes),
    }
    if published.report is not None:
        report = published.report
        value["checked"] = {
            "backend": report.backend,
            "batching": report.batching,
            "rows": report.rows,
            "rows_from": report.rows_from,
            "latency_ms": dict(report.latency_ms),
        }
    if published.parity is not None:
        value["parity"] = published.parity.as_json()
    return value
