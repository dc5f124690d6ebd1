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

# Records that wait for a slow disk or a blocked pipe. More are dropped and counted: no caller waits for the log.
_WAITING: Final = 10_000
_CLOSE_TIMEOUT: Final = 5.0  # seconds
_LONGEST: Final = 16_384
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@%+,()-]+")


def start(settings: Log, stream: TextIO | None = None, *, worker: int | None = None) -> Logs:
    """Writes the server's events to the configured place until the returned `Logs` is closed. Raises OSError for a file
    that cannot be opened.

    stream   used instead of standard error
    worker   the number of this worker, if there are several. It is added to every line, and each worker writes a file
             of its own (server-2.log), because two processes cannot rotate one file.
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
    """Active logging. `close` writes the waiting records and restores the logger. Thread-safe."""

    def __init__(
        self, handler: logging.Handler, level: int, *, waiting: int = _WAITING, worker: int | None = None
    ) -> None:
        self._handler: Final = handler
        self._lines: Final[queue.Queue[logging.LogRecord | None]] = queue.Queue(waiting)
        self._queueing: Final = _QueueingHandler(self._lines, worker)
        self._logger: Final = get()
        self._before: Final = (self._logger.level, self._logger.propagate)
        self._closing = threading.Lock()
        self._open = True
        self._writer: Final = threading.Thread(target=self._write, name="inferd-logs", daemon=True)
        self._writer.start()
        self._logger.addHandler(self._queueing)
        self._logger.setLevel(level)
        self._logger.propagate = False

    @property
    def lost(self) -> int:
        """How many records were dropped because the disk or the pipe was too slow."""
        return self._queueing.lost

    def close(self) -> None:
        """Writes the waiting records and ends. Gives up after some seconds if the output hangs. Idempotent."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        self._logger.removeHandler(self._queueing)
        self._logger.propagate = self._before[1]
        self._logger.setLevel(self._before[0])
        try:
            self._lines.put(None, timeout=_CLOSE_TIMEOUT)
        except queue.Full:
            return
        self._writer.join(_CLOSE_TIMEOUT)
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
    """Puts records into the queue of the writing thread, without waiting."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None], worker: int | None) -> None:
        super().__init__()
        self._worker = worker
        self._lines = lines
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Format now: arguments may change later, and a traceback keeps all objects of its frames alive.
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
            self.handleError(record)  # a wrong format string must not fail a request


class JsonFormatter(logging.Formatter):
    """One JSON object per line. `_` is appended to the names of fields called time, level, logger or event."""

    def format(self, record: logging.LogRecord) -> str:
        moment, fields = _parts(record)
        head = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        body = {(f"{key}_" if key in head else key): _bounded(value) for key, value in fields.items()}
        try:
            return _json({**head, **body})
        except (TypeError, ValueError, RecursionError):  # a field that JSON cannot hold: NaN, keys that are not text
            return _json({**head, **{key: _bounded(str(value)) for key, value in body.items()}})


class TextFormatter(logging.Formatter):
    """`time level logger "event" key=value ...`. Values with other than plain characters are quoted as JSON, so each
    event is one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment, fields = _parts(record)
        pairs = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
        return f"{moment} {record.levelname.lower()} {record.name} {_quoted(record.getMessage())}{pairs}"


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """The time and the fields of a record, with secrets hidden."""
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
    # ASCII only, so that control characters, direction marks and surrogates from clients reach no terminal.
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
