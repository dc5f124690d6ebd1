"""Logs events. `logs.py` decides where and how they are written."""

from __future__ import annotations

import logging
from typing import Any, Final

ROOT: Final = "inferd"
FIELDS: Final = "inferd_fields"
"""Attribute of a log record that holds an event's fields."""


def get(room: str = "") -> logging.Logger:
    """The logger of a room of the server, such as "lifecycle"."""
    return logging.getLogger(f"{ROOT}.{room}" if room else ROOT)


def event(
    logger: logging.Logger, level: int, name: str, /, *, error: BaseException | None = None, **fields: Any
) -> None:
    """Logs one event. Fields that are None are left out; the values of fields with secret names are hidden.

    `error` adds its traceback. Give it for unexpected errors only, never for errors of a client.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", name, exc_info=error, extra={FIELDS: fields})
