"""`inferd`: finds the command, runs it, turns every error into one line and an exit code.

Exit codes: 0 done, 1 it failed (the server refused, a file is missing, a check found something), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from inferd.client import InferdError, InvalidInput, Unavailable
from inferd.server import __version__

from . import admin, bench, check, config, models, predict, publish, serve
from .errors import CommandError

# Each adds its commands, with a `run(args) -> exit code` as the parser's default.
COMMANDS: tuple[Callable[[Any], None], ...] = (
    serve.add,
    check.add,
    models.add,
    predict.add,
    admin.add,
    publish.add,
    bench.add,
    config.add,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inferd",
        description="Serves ONNX, TorchScript and TensorFlow models over gRPC, and talks to such a server.",
    )
    parser.add_argument("--version", action="version", version=f"inferd {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    for command in subparsers.choices.values():
        command.set_defaults(command=command)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong usage ends the process with 2. An unknown flag is answered with the usage of its command:
    left to itself, argparse shows that of the whole program."""
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        command: argparse.ArgumentParser = args.command
        command.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Gives the exit code; argparse itself exits with 2 on wrong usage."""
    args = parse(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except CommandError as error:
        for line in str(error).splitlines() or [""]:
            _fail(line, error.exit_code)
        return error.exit_code
    except InvalidInput as error:
        return _fail(str(error), 2)
    except Unavailable as error:
        where = f"no connection to {args.address}: " if error.accepted is False and error.retry_after is None else ""
        return _fail(f"{where}{error}", 1)
    except InferdError as error:
        return _fail(str(error), 1)
    except MemoryError as error:
        return _fail(f"not enough memory: {error}", 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) has gone; flushing at exit would only complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(message: str, code: int) -> int:
    print(f"inferd: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
