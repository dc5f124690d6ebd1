"""Saying that something happened. Where it is written, and how, is `logs.py`'s business."""

from __future__ import annotations

import logging
from typing import Any, Final

ROOT: Final = "inferd"
FIELDS: Final = "inferd_fields"
"""Attribute of a log record that holds an event's fields."""


def get(room: str = "") -> logging.Logger:
    """The logger of a part of the server."""
    return logging.getLogger(f"{ROOT}.{room}" if room else ROOT)


def event(
    logger: logging.Logger, level: int, name: str, /, *, error: BaseException | None = None, **fields: Any
) -> None:
    """Logs one event. Fields that are None are left out; those whose names are secrets are hidden.

    `error` adds its traceback: for what should not happen, never for what a client did.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", name, exc_info=error, extra={FIELDS: fields})
