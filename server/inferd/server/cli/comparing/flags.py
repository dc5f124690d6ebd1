"""The flags that `compare` and `optimise` share, and how their errors are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.server.cli.connection import seconds
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.serve import missing

if TYPE_CHECKING:
    from inferd.server.publishing.probe import ProbeSettings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Repository, sample, and what the versions are loaded with."""
    parser.add_argument("-r", "--repository", type=Path, required=True, metavar="DIR", help="where the model lies")
    parser.add_argument(
        "--sample",
        type=Path,
        metavar="FILE",
        help="rows to run: .npz with arrays by input name, and `expected` for labels (default: gate.sample)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the server's settings: what it allows the model")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting over those, such as models.NAME.gate.max_drop=1%%; may be repeated",
    )
    parser.add_argument("--trust", action="store_true", help="versions may run code with all your rights")
    parser.add_argument(
        "--time-limit", type=seconds, default=1800.0, metavar="SECONDS", help="of each step (default: 1800)"
    )
    parser.add_argument("--memory-limit", metavar="SIZE", help="of each step, such as 8GiB (default: none)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the steps print")


def probe_settings(args: argparse.Namespace) -> ProbeSettings:
    """What the flags say. Raises CommandError."""
    from inferd.server.config.units import size
    from inferd.server.publishing.probe import ProbeSettings
    from inferd.server.publishing.tasks import TaskLimits

    memory = None
    if args.memory_limit is not None:
        try:
            memory = size(args.memory_limit)
        except ValueError as error:
            raise usage(f"--memory-limit {args.memory_limit!r}: {error}") from None
    limits = TaskLimits(args.time_limit, memory)
    if not args.verbose:
        return ProbeSettings(args.config, args.set, args.trust, limits)
    return ProbeSettings(args.config, args.set, args.trust, limits, output=_shown, progress=say)


def guarded(args: argparse.Namespace, work: Callable[[], int]) -> int:
    """The exit code of `work`. Raises CommandError for what cannot be done."""
    try:
        from inferd.server.config.errors import ConfigError
        from inferd.server.publishing.errors import PublishError
        from inferd.server.publishing.tasks import TaskFailed
    except ImportError as error:
        raise CommandError(missing(error)) from None
    try:
        return work()
    except ConfigError as error:
        raise CommandError(str(error), 2) from None
    except PublishError as error:
        if isinstance(error, TaskFailed) and not args.verbose:
            for line in error.lines:
                print(f"  | {line}", file=sys.stderr)
        raise CommandError(str(error), 2 if error.usage else 1) from None


def say(line: str) -> None:
    print(line, file=sys.stderr)


def _shown(line: str) -> None:
    print(f"  | {line}", file=sys.stderr)
