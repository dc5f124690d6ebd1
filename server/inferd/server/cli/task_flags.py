"""What the commands have in common that load and convert files in processes of their own."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from inferd.server.cli.connection import seconds
from inferd.server.cli.errors import CommandError, usage

if TYPE_CHECKING:
    from inferd.server.publishing.errors import PublishError
    from inferd.server.publishing.tasks import TaskLimits


def add_limits(parser: argparse._ActionsContainer) -> None:
    """What a step may take, and whether its output is shown."""
    parser.add_argument(
        "--time-limit", type=seconds, default=1800.0, metavar="SECONDS", help="of each step (default: 1800)"
    )
    parser.add_argument("--memory-limit", metavar="SIZE", help="of each step, such as 8GiB (default: none)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the steps print")


def task_limits(args: argparse.Namespace) -> TaskLimits:
    """The limits of `add_limits`. Raises CommandError."""
    from inferd.server.config.units import size
    from inferd.server.publishing.tasks import TaskLimits

    memory = None
    if args.memory_limit is not None:
        try:
            memory = size(args.memory_limit)
        except ValueError as error:
            raise usage(f"--memory-limit {args.memory_limit!r}: {error}") from None
    return TaskLimits(args.time_limit, memory)


def failed(error: PublishError, args: argparse.Namespace) -> CommandError:
    """The command's error. Shows first what the step that failed has printed, unless it was shown already."""
    from inferd.server.publishing.tasks import TaskFailed

    if isinstance(error, TaskFailed) and not args.verbose:
        for line in error.lines:
            shown(line)
    return CommandError(str(error), 2 if error.usage else 1)


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr)


def shown(line: str) -> None:
    """A line that a step has printed."""
    print(f"  | {line}", file=sys.stderr)
