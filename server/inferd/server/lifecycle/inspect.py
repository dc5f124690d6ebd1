"""What `inferd check` does with a repository: opens everything that would be served and says what it found.

Nothing is served, warmed up or left open. Every version is opened where a server would open it, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inferd.backends.api import LoadError, Signature
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.assemble import build_loader, resolver
from inferd.server.lifecycle.desired import desired
from inferd.server.lifecycle.disk import ModelOnDisk, VersionOnDisk
from inferd.server.lifecycle.loader import Loader, LoadRequest, Registry
from inferd.server.lifecycle.overrides import Wishes
from inferd.server.lifecycle.source import RepositoryScanner
from inferd.server.lifecycle.state import ServableId


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    model       its name; "" for a repository root
    version     None for the model as a whole
    path        where it lies; "" for a root, whose path is in the error
    error       "" when it is in order
    signatures  of an opened version, the default one first
    """

    model: str
    version: int | None = None
    path: str = ""
    error: str = ""
    backend: str = ""
    signatures: tuple[Signature, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.error


def inspect_repository(config: ServerConfig, registry: Registry) -> list[Finding]:
    """Findings for every root with a problem, every model and every version that its policy wants, by name and version.

    A version that is still being written is looked at as it is. Never raises for what it finds.
    """
    return list(_findings(config, registry))


def _findings(config: ServerConfig, registry: Registry) -> Iterator[Finding]:
    repository = config.repository.model_copy(update={"settle": 0.0})
    listing = RepositoryScanner(repository, resolver(config)).scan()
    for error in listing.errors:
        yield Finding("", error=error)
    loader = build_loader(config, registry)
    for model in listing.models.values():
        yield Finding(model.name, path=str(model.directory), error=model.error, notes=model.notes)
        yield from _versions(model, loader)


def _versions(model: ModelOnDisk, loader: Loader) -> Iterator[Finding]:
    for version in model.versions:
        if version.error or version.held:
            yield Finding(model.name, version.number, str(version.path), error=version.error or version.held)
    if model.config is None:
        return
    there = [version.number for version in model.versions if version.ready]
    labels = frozenset(model.config.labels.values())
    wanted = desired(model.config, Wishes(), there, (), served_by_default=True).wanted
    for number in sorted(labels - frozenset(there)):
        names = ", ".join(sorted(label for label, version in model.config.labels.items() if version == number))
        yield Finding(model.name, number, error=f"label {names} points to version {number}, which is not there")
    for version in model.versions:
        if version.number in wanted:
            yield _open(model, version, loader)


def _open(model: ModelOnDisk, version: VersionOnDisk, loader: Loader) -> Finding:
    assert model.config is not None
    request = LoadRequest(ServableId(model.name, version.number), 0, version, model.config)
    where = str(version.path)
    try:
        opened, backend, _ = loader.open(request)
    except LoadError as error:
        return Finding(model.name, version.number, where, error=str(error))
    try:
        return Finding(
            model.name,
            version.number,
            where,
            backend=backend.name,
            signatures=tuple(opened.signatures),
            notes=tuple(opened.traits.notes),
        )
    finally:
        opened.close()
