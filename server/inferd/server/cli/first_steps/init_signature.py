"""`inferd init-signature`: writes the signature of a model into its model.yaml, from examples of its inputs.

TorchScript files do not tell element types and shapes. This command runs the model on the examples, in a process of its
own, and writes what it took and gave. Dimensions in which examples differ, and dimension 0 if the model also takes
twice the rows, are written as -1: of any size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.server.cli.connection import seconds
from inferd.server.cli.errors import CommandError
from inferd.server.cli.serve import missing

if TYPE_CHECKING:
    from inferd.server.publishing.example_signature import ExampleSignature

_HEAD = "# Written by `inferd init-signature` from {}. -1: a dimension of any size.\n"


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "init-signature", help="write model.yaml for a model that does not describe itself", description=__doc__
    )
    parser.add_argument(
        "model",
        type=Path,
        help="a model's directory in a repository, a version's directory, or a file such as model.pt",
    )
    parser.add_argument(
        "-e", "--example", type=Path, action="append", required=True, metavar="FILE",
        help="inputs: .npy, or .npz with an array for each input; repeat it with other sizes for variable dimensions",
    )  # fmt: skip
    parser.add_argument("--input", action="append", default=[], metavar="NAME", help="names of the inputs, in order")
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME[:DTYPE]",
        help="names of the outputs, in order; with types, such as logits:FP32, for a result that is a dictionary",
    )  # fmt: skip
    parser.add_argument("--to", type=Path, metavar="FILE", help="write there; -: standard output (default for a file)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the server's settings: what it allows the model")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting over those")
    parser.add_argument("--trust", action="store_true", help="the model may run code with all your rights")
    parser.add_argument("--time-limit", type=seconds, default=1800.0, metavar="SECONDS", help="default: 1800")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        from inferd.server.publishing.errors import PublishError
        from inferd.server.publishing.example_signature import as_yaml, find_model, signature_of
        from inferd.server.publishing.probe import ProbeSettings
        from inferd.server.publishing.tasks import TaskLimits
    except ImportError as error:
        raise CommandError(missing(error)) from None
    settings = ProbeSettings(args.config, args.set, args.trust, TaskLimits(args.time_limit))
    try:
        place = find_model(args.model)
        target = args.to or place.settings
        file = None if target is None or str(target) == "-" else target
        before = _without_signatures(file) if file is not None else ""
        found = signature_of(
            place, args.example, settings, inputs=args.input, outputs=args.output, options=_options(place.settings)
        )
    except PublishError as error:
        raise CommandError(str(error)) from None
    text = _HEAD.format(", ".join(example.name for example in args.example)) + as_yaml(found)
    if file is None:
        print(text, end="")
        return 0
    try:
        file.write_text(f"{before}{text}", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None
    print(f"{file}:")
    print("".join(f"  {line}\n" for line in text.splitlines()), end="")
    for note in _notes(found):
        print(f"note: {note}")
    return 0


def _notes(found: ExampleSignature) -> list[str]:
    notes = []
    if found.complete:
        notes.append("the file tells all of this itself; the declaration only checks it")
    if not found.rows_vary:
        notes.append("the model refuses twice the rows, or has none: dimension 0 is written as it is in the example")
    return notes


def _without_signatures(file: Path) -> str:
    """The present content of a model.yaml, to which the signatures are added. Raises CommandError if it has some."""
    document = _document(file)
    if not document and not file.exists():
        return ""
    if "signatures" in document:
        raise CommandError(f"{file} has signatures already; remove them there first, or write elsewhere with --to")
    text = file.read_text(encoding="utf-8")
    return f"{text.rstrip()}\n\n" if text.strip() else ""


def _options(file: Path | None) -> dict[str, Any]:
    return dict(_document(file).get("options") or {}) if file is not None else {}


def _document(file: Path) -> dict[str, Any]:
    from inferd.server.config.document import read_document
    from inferd.server.config.errors import ConfigError

    if not file.exists():
        return {}
    try:
        return dict(read_document(file))
    except ConfigError as error:
        raise CommandError(str(error)) from None
