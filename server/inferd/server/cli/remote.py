"""The commands that call a server. They are separate because they import the client, which a server does not need."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from inferd.client import InferdError, InvalidInput, Unavailable
from inferd.server.cli import admin, models, predict, publish
from inferd.server.cli.bench import command as bench
from inferd.server.cli.comparing import compare, optimise
from inferd.server.cli.errors import CommandError
from inferd.server.cli.first_steps import demo, init, init_signature

# Each function adds its commands. A command's parser has `run(args) -> exit code` as a default.
COMMANDS: tuple[Callable[[Any], None], ...] = (
    models.add,
    predict.add,
    admin.add,
    publish.add,
    compare.add,
    optimise.add,
    bench.add,
    demo.add,
    init.add,
    init_signature.add,
)


def add(subparsers: Any) -> None:
    """Registers the commands. Errors of the client become CommandError."""
    others = set(subparsers.choices)
    for register in COMMANDS:
        register(subparsers)
    for name, parser in subparsers.choices.items():
        if name not in others:
            parser.set_defaults(run=partial(_run, parser.get_default("run")))


def _run(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        return run(args)
    except InvalidInput as error:
        raise _command_error(error, 2) from None
    except Unavailable as error:
        if error.message.startswith("no connection to "):
            raise _command_error(error.message, 1) from None  # it names the address, and what is there
        where = f"no connection to {args.address}: " if error.accepted is False and error.retry_after is None else ""
        raise _command_error(f"{where}{error}", 1) from None
    except InferdError as error:
        raise _command_error(error, 1) from None


def _command_error(error: object, code: int) -> CommandError:
    return CommandError(" ".join(str(error).split()), exit_code=code)  # one line, even if the server sent several
