"""`inferd`: finds the command, runs it, and turns every error into one line on stderr and an exit code.

Exit codes: 0 done, 1 the command failed (the server refused, a file is missing, a check found something), 2 wrong
usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from inferd.backends.quiet import be_quiet
from inferd.server import __version__
from inferd.server.cli import check, config, health, serve
from inferd.server.cli.errors import CommandError
from inferd.server.cli.one_line_parser import OneLineParser

# Each function adds its commands. A command's parser has `run(args) -> exit code` as a default.
LOCAL: tuple[Callable[[Any], None], ...] = (serve.add, check.add, config.add, health.add)


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The parser. If `command` is one of the local commands, the parser has only these."""
    parser = OneLineParser(
        prog="inferd",
        description="Serves ONNX, TorchScript and TensorFlow models over gRPC, and talks to such a server.",
    )
    parser.add_argument("--version", action="version", version=f"inferd {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in LOCAL:
        add(subparsers)
    if command not in subparsers.choices:
        # Not imported for `serve`: the client would take several MB of memory for as long as the server runs.
        from inferd.server.cli import completion, remote

        remote.add(subparsers)
        completion.add(subparsers, build_parser)
    for each in subparsers.choices.values():
        each.set_defaults(command=each)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments. Wrong usage ends the process with exit code 2 and one line on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    args, unknown = build_parser(arguments[0] if arguments else "").parse_known_args(arguments)
    if unknown:
        command: OneLineParser = args.command
        command.unknown(unknown)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code; argparse itself exits with 2 on wrong usage."""
    be_quiet()
    args = parse(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except CommandError as error:
        for line in str(error).splitlines() or [""]:
            _fail(line, error.exit_code)
        return error.exit_code
    except MemoryError as error:
        return _fail(f"not enough memory: {error}", 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of stdout (head, a pager) is gone. Without this, flushing at exit would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(message: str, code: int) -> int:
    print(f"inferd: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
