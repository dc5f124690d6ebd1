"""The flags that `compare` and `optimise` share, and how their errors are told."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.server.cli.errors import CommandError
from inferd.server.cli.serve import missing
from inferd.server.cli.task_flags import add_limits, failed, say, shown, task_limits

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
    add_limits(parser)


def probe_settings(args: argparse.Namespace) -> ProbeSettings:
    """What the flags say. Raises CommandError."""
    from inferd.server.publishing.probe import ProbeSettings

    limits = task_limits(args)
    if not args.verbose:
        return ProbeSettings(args.config, args.set, args.trust, limits)
    return ProbeSettings(args.config, args.set, args.trust, limits, output=shown, progress=say)


def guarded(args: argparse.Namespace, work: Callable[[], int]) -> int:
    """The exit code of `work`. Raises CommandError for what cannot be done."""
    try:
        from inferd.server.config.errors import ConfigError
        from inferd.server.publishing.errors import PublishError
    except ImportError as error:
        raise CommandError(missing(error)) from None
    try:
        return work()
    except ConfigError as error:
        raise CommandError(str(error), 2) from None
    except PublishError as error:
        raise failed(error, args) from None
