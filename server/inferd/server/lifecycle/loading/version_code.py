"""The Python code of a version: `steps.py` beside its artefact, or an artefact that is code itself.

It is refused here, before a worker process is started, and again by what would run it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from inferd.backends.api import Backend, LoadError, Signature
from inferd.backends.functions.source import KIND, not_allowed
from inferd.backends.functions.steps import STEPS_FILE
from inferd.backends.registry import code_of
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.declared import signature_of


@dataclass(frozen=True, slots=True)
class VersionCode:
    """The files of one version that are Python code.

    artefact   the name of the artefact if it is code, else ""
    steps      the file of its steps; None: it has none
    """

    artefact: str = ""
    steps: Path | None = None

    @property
    def python(self) -> bool:
        return bool(self.artefact) or self.steps is not None

    def check(self, allow: Collection[str], setting: str) -> None:
        """Raises LoadError if there is code, and it is not among what is allowed. `setting`: what would allow it."""
        if not self.python or KIND in allow:
            return
        name = self.artefact or STEPS_FILE
        raise LoadError(f"{not_allowed(name)}, as in {setting}")


def version_code(backend: Backend, artefact: Path, directory: Path) -> VersionCode:
    """The code of the version in `directory`, whose artefact was found by `backend`. Reads names only."""
    steps = directory / STEPS_FILE
    return VersionCode(artefact.name if code_of(backend) == KIND else "", steps if steps.exists() else None)


def refuse_steps_of_ensemble(directory: Path) -> None:
    """Raises LoadError if the version directory of an ensemble holds steps, which nothing would run."""
    if (directory / STEPS_FILE).exists():
        raise LoadError(
            f"{STEPS_FILE} lies in a version of an ensemble, which runs no code of its own: make it a model "
            "(model.py), and name that as a step"
        )


def inner_signatures(config: ModelConfig, steps: Path | None) -> tuple[Signature, ...]:
    """The declared signatures of the model between the steps. Raises LoadError if it is declared without steps."""
    if config.inner_signatures and steps is None:
        raise LoadError(f"inner_signatures are declared, but the version has no {STEPS_FILE}")
    return tuple(map(signature_of, config.inner_signatures))
