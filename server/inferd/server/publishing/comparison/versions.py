"""Where the versions of a model lie, and what its settings ask of a new one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferd.backends.files import FileRule
from inferd.server.config.gate_schema import Gate
from inferd.server.config.load import load_config
from inferd.server.config.model_schema import ModelConfig
from inferd.server.lifecycle.assemble import resolver
from inferd.server.publishing.comparison.task import VersionPlace
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.rows import MOST_BYTES
from inferd.server.publishing.staging import check_model_name
from inferd.server.repository.layout import version_number
from inferd.server.repository.source import RepositoryScanner

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """A model in a repository. `directory`: its own."""

    repository: Path
    model: str

    @property
    def directory(self) -> Path:
        return self.repository / self.model

    def versions(self) -> list[int]:
        """The numbers that are there, ascending."""
        try:
            names = os.listdir(self.directory)
        except OSError as error:
            reason = error.strerror or str(error)
            raise PublishError(f"there is no model {self.model!r} in {self.repository}: {reason}") from None
        return sorted(number for name in names if (number := version_number(name)) is not None)

    def version(self, number: int | None) -> VersionPlace:
        """A version; None: the newest. Raises PublishError."""
        there = self.versions()
        if not there:
            raise PublishError(f"{self.directory} holds no version")
        number = there[-1] if number is None else number
        if number not in there:
            known = ", ".join(map(str, there[-_SHOWN:]))
            raise PublishError(f"there is no version {number} of {self.model}; there are {known}")
        return VersionPlace(self.repository, self.model, number, self.directory / str(number))

    def settings(self, settings: ProbeSettings) -> ModelConfig:
        """The model's settings, as a server with this configuration has them. Raises PublishError, ConfigError."""
        config = load_config(settings.config, {}, settings.sets)
        repository = config.repository.model_copy(
            update={"roots": [str(self.repository)], "settle": 0.0, "model_name": None, "ready_file": None}
        )
        found = RepositoryScanner(repository, resolver(config)).scan().models.get(self.model)
        if found is None or found.config is None:
            reason = (found.problem or found.held) if found is not None else "it is not there"
            raise PublishError(f"the settings of {self.model} cannot be read: {reason}")
        return found.config


def place_of(repository: Path, model: str) -> ModelVersions:
    """A model in a repository. Raises PublishError."""
    check_model_name(model)
    return ModelVersions(Path(os.path.abspath(repository)), model)


def sample_of(place: ModelVersions, gate: Gate, given: Path | None, work: Path) -> Path:
    """The file of sample rows: `given`, else a copy in `work` of the one that `gate.sample` names. Raises
    PublishError."""
    if given is not None:
        return given
    if gate.sample is None:
        raise PublishError(
            "there are no rows to compare with: give --sample, or set gate.sample in model.yaml", usage=True
        )
    name = gate.sample
    try:
        content = FileRule(str(place.directory)).read(place.directory / name, MOST_BYTES)
    except OSError as error:
        reason = str(error) if type(error) is not FileNotFoundError else "it is not there"
        raise PublishError(f"gate.sample {name!r} in {place.directory} cannot be read: {reason}") from None
    copy = work / f"sample{Path(name).suffix.lower()}"
    copy.write_bytes(content)
    return copy
