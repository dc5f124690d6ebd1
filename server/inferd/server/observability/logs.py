"""Structured logs: one line per event, as text or JSON, to standard error or to a file that rotates.

    log = get("lifecycle")
    event(log, logging.INFO, "version available", model="digits", version=2, seconds=0.4)

    2026-01-02T03:04:05.678Z info inferd.lifecycle "version available" model=digits version=2 seconds=0.4
    {"time":"2026-01-02T03:04:05.678Z","level":"info","logger":"inferd.lifecycle","event":"version available",...}

Field names used across the server: request_id, model, version, generation, code, protocol, method, peer, seconds.
Nothing happens at import; only `start`, called by the composition root, touches handlers.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import queue
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from inferd.server.config.schema import Log
from inferd.server.config.secrets import HIDDEN, is_secret, redacted
from inferd.server.observability.events import FIELDS, get

# Lines that wait for a slow disk or a blocked pipe; more are dropped and counted, so that no caller waits for a log.
_WAITING: Final = 10_000
_LAST_WORDS: Final = 5.0
_LONGEST: Final = 16_384
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@%+,()-]+")


def start(settings: Log, stream: TextIO | None = None, *, worker: int | None = None) -> Logs:
    """Sends the server's events to their place until the `Logs` is closed. Raises OSError for a file it cannot open.

    `stream` stands for standard error. With a file, lines go there and nowhere else; a `worker` of several writes a
    file of its own (server-2.log), since two cannot rotate one, and its number into every line.
    """
    if settings.file is None:
        handler: logging.Handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    else:
        file = Path(settings.file)
        handler = logging.handlers.RotatingFileHandler(
            file if worker is None else file.with_name(f"{file.stem}-{worker}{file.suffix}"),
            maxBytes=settings.max_size,
            backupCount=settings.backups,
            encoding="utf-8",
        )
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    return Logs(handler, getattr(logging, settings.level.upper()), worker=worker)


class Logs:
    """Logging that is on. `close` writes what waits, and leaves the logger as it was found. Thread-safe."""

    def __init__(
        self, handler: logging.Handler, level: int, *, waiting: int = _WAITING, worker: int | None = None
    ) -> None:
        self._handler: Final = handler
        self._lines: Final[queue.Queue[logging.LogRecord | None]] = queue.Queue(waiting)
        self._front: Final = _QueueingHandler(self._lines, worker)
        self._logger: Final = get()
        self._before: Final = (self._logger.level, self._logger.propagate)
        self._once = threading.Lock()
        self._open = True
        self._writer: Final = threading.Thread(target=self._write, name="inferd-logs", daemon=True)
        self._writer.start()
        self._logger.addHandler(self._front)
        self._logger.setLevel(level)
        self._logger.propagate = False

    @property
    def lost(self) -> int:
        """Lines dropped because the place they go to did not keep up."""
        return self._front.lost

    def close(self) -> None:
        """Ends it, after at most some seconds if the place that lines go to hangs; later calls do nothing."""
        with self._once:
            if not self._open:
                return
            self._open = False
        self._logger.removeHandler(self._front)
        self._logger.propagate = self._before[1]
        self._logger.setLevel(self._before[0])
        try:
            self._lines.put(None, timeout=_LAST_WORDS)
        except queue.Full:
            return
        self._writer.join(_LAST_WORDS)
        if not self._writer.is_alive():
            self._handler.close()

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            self._handler.handle(record)


class _QueueingHandler(logging.Handler):
    """Hands lines over without waiting."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None], worker: int | None) -> None:
        super().__init__()
        self._worker = worker
        self._lines = lines
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # The words are made here: arguments may change, and a traceback holds on to everything in its frames.
            record.msg, record.args = record.getMessage(), None
            if self._worker is not None:
                setattr(record, FIELDS, {"worker": self._worker, **(getattr(record, FIELDS, None) or {})})
            if record.exc_info:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
                record.exc_info = None
            self._lines.put_nowait(record)
        except queue.Full:
            self.lost += 1  # under the handler's lock
        except Exception:
            self.handleError(record)  # a bad format string is no reason to fail a request


class JsonFormatter(logging.Formatter):
    """One JSON object per line. A field named time, level, logger or event gets a `_` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        moment, fields = _parts(record)
        head = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        body = {(f"{key}_" if key in head else key): _bounded(value) for key, value in fields.items()}
        try:
            return _json({**head, **body})
        except (TypeError, ValueError, RecursionError):  # a field that is no JSON: NaN inside, keys that are not text
            return _json({**head, **{key: _bounded(str(value)) for key, value in body.items()}})


class TextFormatter(logging.Formatter):
    """`time level logger "event" key=value ...`; what is not plain is quoted as JSON, so a line stays a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment, fields = _parts(record)
        pairs = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
        return f"{moment} {record.levelname.lower()} {record.name} {_quoted(record.getMessage())}{pairs}"


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Time and fields of a record."""
    moment = datetime.fromtimestamp(record.created, UTC)
    given = getattr(record, FIELDS, None)
    fields = {
        key: HIDDEN if is_secret(key) else redacted(value)
        for key, value in (given.items() if isinstance(given, Mapping) else ())
        if value is not None
    }
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        fields["traceback"] = record.exc_text
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z", fields


def _json(value: Mapping[str, Any]) -> str:
    # ASCII only: control characters, direction marks and half surrogates of a client's making reach no terminal.
    return json.dumps(value, separators=(",", ":"), default=str, allow_nan=False)


def _plain(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(_bounded(text))


def _bounded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{value[:_LONGEST]}..." if isinstance(value, str) and len(value) > _LONGEST else value
