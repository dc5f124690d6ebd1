"""Puts the manager together from its real parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.server.config.load import model_config
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.lifecycle.loading.loader import Loader, Registry
from inferd.server.lifecycle.loading.warmup_requests import Recorded
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.operations.load_overrides import SOURCE, OverrideReader, ResolveRequest
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.resources.cpu_budget import available_cpus
from inferd.server.lifecycle.resources.memory import ProcessMemory
from inferd.server.lifecycle.resources.memory_budget import MemoryBudget
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.repository.configured_models import ConfiguredModel, ConfiguredModels
from inferd.server.repository.disk import Listing
from inferd.server.repository.file_events import FileEvents
from inferd.server.repository.layout import MODEL_FILE, TRITON_FILE
from inferd.server.repository.model_settings import Resolve
from inferd.server.repository.source import RepositoryScanner, Source
from inferd.server.repository.uploads import Uploads
from inferd.server.scheduling.ensemble.scheduler import StepAccess
from inferd.server.scheduling.inline import InlineLoop
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.policies.fair_share import Who


@dataclass(frozen=True, slots=True)
class Shared:
    """What a worker of a group has in common with the others.

    overrides   the operators' overrides, a copy of the supervisor's
    barrier     asked before a loaded version serves
    configured  the configured models in force; None: those of the configuration
    """

    overrides: Overrides
    barrier: ActivationBarrier
    configured: Mapping[str, ConfiguredModel] | None = None


def build_manager(
    config: ServerConfig,
    registry: Registry,
    *,
    observer_for: Callable[[ServableId], BatchObserver] | None = None,
    loop: InlineLoop | None = None,
    recorded: Recorded | None = None,
    shared: Shared | None = None,
    busy: Callable[[], bool] = lambda: False,
    who: Who | None = None,
    step_access: StepAccess | None = None,
) -> Manager:
    """A manager of the configured repository, which the caller starts.

    observer_for   gives the batch observer of each servable
    loop           the front end's, for batches that are short enough to run there
    recorded       reads recorded warm-up requests
    shared         for a worker of a group
    busy           whether requests are in flight
    who            tells the clients of a queue apart
    step_access    decides who may use the steps of ensembles; None: nobody needs credentials

    Raises OverridesError when the state directory cannot be read, ConfigError when repository.models_file cannot.
    """
    configured = ConfiguredModels.of(config)
    if shared is not None and shared.configured is not None:
        configured.replace(shared.configured)
    scanner = RepositoryScanner(
        config.repository, resolver(config, configured), named=configured, artefacts=registry.artefact_names
    )
    source = Source(scanner, poll=config.repository.poll)
    watched = WatchedSource(source, FileEvents(source.wake))
    uploads = uploads_of(config)
    loader = build_loader(
        config,
        registry,
        observer_for=observer_for,
        loop=loop,
        recorded=recorded,
        busy=busy,
        who=who,
        trust=CodeTrust(config.repository.allow, uploads.holds),
        step_access=step_access,
    )
    override_reader = OverrideReader(request_resolver(config, configured), uploads)
    manager = Manager(
        config,
        watched,
        loader,
        configured=configured,
        override_reader=override_reader,
        overrides=shared.overrides if shared is not None else None,
        barrier=shared.barrier if shared is not None else None,
    )
    loader.connect(manager.acquire)
    return manager


def build_loader(
    config: ServerConfig,
    registry: Registry,
    *,
    observer_for: Callable[[ServableId], BatchObserver] | None = None,
    loop: InlineLoop | None = None,
    recorded: Recorded | None = None,
    busy: Callable[[], bool] = lambda: False,
    who: Who | None = None,
    trust: CodeTrust | None = None,
    step_access: StepAccess | None = None,
) -> Loader:
    """A loader with the configured CPU threads and memory. The arguments are as in `build_manager`; `trust`: None for
    that of the configuration, without uploads."""
    return Loader(
        registry,
        cpu_threads=config.server.cpu_threads or available_cpus(),
        memory=ProcessMemory(busy),
        observer_for=observer_for,
        loop=loop,
        recorded=recorded,
        budget=MemoryBudget(config.memory.models) if config.memory.models else None,
        who=who,
        trust=trust or CodeTrust(config.repository.allow),
        step_access=step_access,
        largest_answer=config.inflight.bytes,
    )


def resolver(config: ServerConfig, configured: ConfiguredModels | None = None) -> Resolve:
    """The function that gives a model's settings: all layers of configuration over the files in its directory."""
    own = configured or ConfiguredModels()

    def resolve(
        name: str, directory: Path, model_file: Mapping[str, Any] | None, triton: Mapping[str, Any] | None
    ) -> tuple[ModelConfig, tuple[str, ...]]:
        return model_config(
            own.apply_to(config, name),
            name,
            model_file,
            triton,
            model_yaml_source=str(directory / MODEL_FILE),
            pbtxt_source=str(directory / TRITON_FILE),
        )

    return resolve


def request_resolver(config: ServerConfig, configured: ConfiguredModels | None = None) -> ResolveRequest:
    """The function that gives the settings of a load request: the server's layers over the settings in the request."""
    own = configured or ConfiguredModels()

    def resolve(name: str, triton: Mapping[str, Any]) -> tuple[ModelConfig, tuple[str, ...]]:
        settings, notes = model_config(own.apply_to(config, name), name, None, triton, pbtxt_source=SOURCE)
        # The owner trusts the steps that the files name, not those that came with a load.
        return settings.model_copy(update={"trusted_steps": False}), notes

    return resolve


def uploads_of(config: ServerConfig) -> Uploads:
    """The store of uploaded models' files."""
    state_dir = config.server.state_dir
    return Uploads(Path(state_dir) if state_dir is not None else None, config.admin.max_upload)


class WatchedSource:
    """A source whose next look file events bring forward. Thread-safe."""

    def __init__(self, source: Source, events: FileEvents) -> None:
        self._source = source
        self._events = events

    def start(self, deliver: Callable[[Listing], None]) -> None:
        """See SourceLike."""

        def delivered(listing: Listing) -> None:
            self._events.follow(listing.directories)
            deliver(listing)

        self._events.start()
        self._source.start(delivered)

    def request_scan(self) -> int:
        """See SourceLike."""
        return self._source.request_scan()

    def stop(self) -> None:
        """See SourceLike."""
        self._events.stop()
        self._source.stop()
