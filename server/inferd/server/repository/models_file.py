"""Follows repository.models_file: when its text has changed, its models take the place of those named before."""

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
    """The models in force, and how they are replaced; the manager's."""

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]: ...
    def replace_configured_models(self, models: Mapping[str, ConfiguredModel], *, by: str) -> object: ...


class FollowedFile:
    """Looks at the file every `poll` seconds on a thread of its own. A file that cannot be read changes nothing.

    `fixed` are named models of the settings themselves, which stay beside those of the file. `known`: what the file
    says now has been taken over or overruled before, as by a reload that a worker of a group was not there for.
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
        self._seen = self._begun(known)
        self._problem = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look."""
        self._thread = threading.Thread(target=self._run, name="inferd-models-file", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the looking."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def look(self) -> None:
        """One look. Never raises for what the file holds."""
        try:
            text = read_text(self._file)
            if text == self._seen:
                self._problem = ""
                return
            found = parse_models(text, str(self._file))
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                event(log, logging.ERROR, "models file not taken over; what is served stays", reason=self._problem)
            return
        self._seen, self._problem = text, ""
        models = self._models(found)
        if models == self._manager.configured_models:
            return  # as at the first look
        for note in found.notes:
            event(log, logging.WARNING, "models file", reason=note)
        event(log, logging.INFO, "models file changed", models=len(found.entries))
        self._manager.replace_configured_models(models, by=str(self._file))

    def _begun(self, known: bool) -> str | None:
        """The text that is in force. Without it the first look would undo a reload that came before."""
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
                self.look()
            except Exception as error:
                event(log, logging.ERROR, "the models file could not be followed; it is looked at again", error=error)
