"""Checks at start that the backends in `server.preload` exist. A misspelt one would otherwise go unnoticed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from inferd.server.config.errors import ConfigError, Problem
from inferd.server.config.schema import ServerConfig


def check_preload(config: ServerConfig, known: Sequence[str]) -> None:
    """`known`: the names of all backends, including plug-ins. Raises ConfigError."""
    problems = []
    for place, name in enumerate(config.server.preload):
        if name not in known:
            nearest = next(iter(difflib.get_close_matches(name, known, 1)), "")
            expected = f"one of {', '.join(known) or 'none: no backend is installed'}"
            problems.append(Problem("settings", f"server.preload[{place}]", expected, repr(name), nearest))
    if problems:
        raise ConfigError(problems)
