"""The commands that talk to a server. They have the client in common, which a server does not need."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from inferd.client import InferdError, InvalidInput, Unavailable
from inferd.server.cli import admin, bench, models, predict, publish
from inferd.server.cli.errors import CommandError

# Each adds its commands, with a `run(args) -> exit code` as the parser's default.
COMMANDS: tuple[Callable[[Any], None], ...] = (models.add, predict.add, admin.add, publish.add, bench.add)


def add(subparsers: Any) -> None:
    """Registers the commands. What the client raises in them comes out as CommandError."""
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
        raise _told(error, 2) from None
    except Unavailable as error:
        where = f"no connection to {args.address}: " if error.accepted is False and error.retry_after is None else ""
        raise _told(f"{where}{error}", 1) from None
    except InferdError as error:
        raise _told(error, 1) from None


def _told(error: object, code: int) -> CommandError:
    return CommandError(" ".join(str(error).split()), exit_code=code)  # one line, whatever a server has sent
