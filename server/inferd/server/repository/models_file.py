"""Follows repository.models_file: when its text changes, its models replace the configured models."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from inferd.server.compat.model_server_config import ModelsFile, parse_models, read_text
from inferd.server.config.errors import ConfigError
from inferd.server.observability.events import event, get
from inferd.server.repository.configured_models import ConfiguredModel

log = get("lifecycle")


class ModelsSetter(Protocol):
    """The part of the manager that is used here: the current configured models, and their replacement."""

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]: ...
    def replace_configured_models(self, models: Mapping[str, ConfiguredModel], *, by: str) -> object: ...


class FollowedFile:
    """Reads the file every `poll` seconds on a thread of its own. A file that cannot be read changes nothing.

    fixed   the models of repository.models, which are kept whatever the file says
    known   the current text of the file must not be applied: it has been applied already, or has been overruled by a
            reload request, before this worker started
    """

    def __init__(
        self,
        file: Path,
        poll: float,
        fixed: Mapping[str, ConfiguredModel],
        manager: ModelsSetter,
        *,
        known: bool = False,
    ) -> None:
        self._file = file
        self._poll = poll
        self._fixed = dict(fixed)
        self._manager = manager
        self._applied = self._initial_text(known)
        self._error = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts to follow the file."""
        self._thread = threading.Thread(target=self._run, name="inferd-models-file", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops following the file."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def check(self) -> None:
        """Reads the file once and applies a change. Never raises because of the file's content."""
        try:
            text = read_text(self._file)
            if text == self._applied:
                self._error = ""
                return
            found = parse_models(text, str(self._file))
        except ConfigError as error:
            if str(error) != self._error:
                self._error = str(error)
                event(log, logging.ERROR, "models file not taken over; what is served stays", reason=self._error)
            return
        self._applied, self._error = text, ""
        models = self._models(found)
        if models == self._manager.configured_models:
            return
        for note in found.notes:
            event(log, logging.WARNING, "models file", reason=note)
        event(log, logging.INFO, "models file changed", models=len(found.entries))
        self._manager.replace_configured_models(models, by=str(self._file))

    def _initial_text(self, known: bool) -> str | None:
        """The file's text if it is in force already, else None. Without it the first check would undo a reload request
        that came before."""
        try:
            text = read_text(self._file)
            return (
                text
                if known or self._models(parse_models(text, str(self._file))) == self._manager.configured_models
                else None
            )
        except ConfigError:
            return None

    def _models(self, found: ModelsFile) -> dict[str, ConfiguredModel]:
        return {**self._fixed, **{entry.name: ConfiguredModel.of(entry) for entry in found.entries}}

    def _run(self) -> None:
        while not self._stopped.wait(self._poll):
            try:
                self.check()
            except Exception as error:
                event(log, logging.ERROR, "the models file could not be followed; it is looked at again", error=error)
