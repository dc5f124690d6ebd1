"""What the manager knows of each version and model: mutable, and touched on the manager's thread only.

Legal transitions of a version's state (`State`), by what announces them:

    (unknown) → START                    wanted, to be loaded
    START → LOADING                      the load pool has it
    LOADING → AVAILABLE | START          loaded and in the serving map | failed, `error` says why, tried again later
    AVAILABLE → AVAILABLE                reloaded from other content (generation grows), or `error` about that changed
    AVAILABLE → UNLOADING → END          no longer served; END when its last request is answered and all is closed
    START | LOADING → END                no longer wanted, never served
    END | UNLOADING → START              wanted again

A reload beside a served generation is not announced until it serves: for everyone outside, the version is AVAILABLE all
the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.backoff import LoadFailure, Loss
from inferd.server.lifecycle.reconcile.transition_policy import VersionPhase
from inferd.server.lifecycle.reconcile.version_policy import describe
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ModelStatus, ServableId, State, VersionStatus
from inferd.server.repository.disk import ModelOnDisk, VersionOnDisk
from inferd.server.repository.tree import Tree

HISTORY = 16
GONE = "removed from disk"
UNREADABLE = "an error of the model itself"
_LEGAL = {
    None: {State.START},
    State.START: {State.START, State.LOADING, State.END},
    State.LOADING: {State.AVAILABLE, State.START, State.END},
    State.AVAILABLE: {State.AVAILABLE, State.UNLOADING},
    State.UNLOADING: {State.END, State.START},
    State.END: {State.START},
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a load is made of: the files, and the settings that reach the loader. Equal content need not be loaded
    again."""

    tree: Tree
    settings: str

    def news(self, before: Content) -> str:
        """What is new of it, in words."""
        return "its files" if self.tree != before.tree else "its settings"


def settings_key(config: ModelConfig) -> str:
    """The part of a model's settings that reaches the loader, comparable."""
    return config.model_dump_json(exclude={"version_policy", "transition", "labels"})


@dataclass(slots=True)
class Loading:
    """A load under way. `cancellation` is the loader's threads', too."""

    generation: int
    content: Content
    cancellation: Cancellation = field(default_factory=Cancellation)
    give_up: Callable[[str], None] | None = None  # while it is loaded and waits to be let in

    def cancel(self, reason: str) -> None:
        """Nobody wants it any more, or it is out of date."""
        self.cancellation.cancel(reason)
        if self.give_up is not None:
            self.give_up(reason)


@dataclass(frozen=True, slots=True)
class Told:
    """What the status tells of a servable, kept when the servable itself is gone and its memory with it."""

    generation: int = 0
    backend: str = ""
    devices: tuple[str, ...] = ()
    batching: str = ""
    load_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, servable: Servable) -> Told:
        return cls(
            servable.generation,
            servable.backend,
            servable.devices,
            servable.batching,
            servable.load_seconds,
            servable.notes,
        )


class VersionState:
    """One version of one model."""

    def __init__(self, id: ServableId) -> None:  # noqa: A002
        self.id = id
        self.disk: VersionOnDisk | None = None
        self.servable: Servable | None = None
        self.content: Content | None = None  # of the servable
        self.digest: str | None = None  # hash of the servable's files, None until it is known
        self.hashing: Tree | None = None  # files whose hash is being compared
        self.differs: Tree | None = None  # files whose hash is known to be another one
        self.loading: Loading | None = None
        self.cut = ""  # why the last load was not brought to its end
        self.failure: LoadFailure | None = None
        self.lost: Loss | None = None  # the servable's process is gone
        self.losses = 0  # in a row
        self.restarts = 0  # of all its processes
        self.available_at = 0.0  # monotonic
        self.ending: dict[int, Servable] = {}  # by generation
        self.state: State | None = None
        self.error = ""
        self.waiting = ""  # of an ensemble: what it waits for
        self.changed_at = 0.0
        self.told = Told()

    def on_disk(self, settings: str) -> Content | None:
        """The content that could be loaded now."""
        return Content(self.disk.tree, settings) if self.disk is not None and self.disk.ready else None

    @property
    def next_times(self) -> list[float]:
        """Monotonic times at which something may be tried again."""
        return [wait.next_at for wait in (self.failure, self.lost) if wait is not None]

    def has_failed(self, settings: str) -> bool:
        """Whether what lies on disk has been tried and could not be loaded."""
        return self.failure is not None and self.failure.content == self.on_disk(settings)

    def is_stale(self, settings: str) -> bool | None:
        """Whether the disk has other content than what is served; None when only a hash can tell."""
        content = self.on_disk(settings)
        if content is None or content == self.content or self.content is None:
            return False
        if content.settings != self.content.settings or self.digest is None or self.differs == content.tree:
            return True
        return None

    def phase(self, settings: str | None, now: float) -> VersionPhase:
        """Where the version stands for the transition policy. `settings` None: the model's settings cannot be read."""
        if self.loading is not None:
            return VersionPhase.LOADING if self.servable is None else VersionPhase.RELOADING
        content = None if settings is None else self.on_disk(settings)
        may_try = content is not None and not (
            self.failure is not None and self.failure.content == content and now < self.failure.next_at
        )
        if self.servable is None:
            return VersionPhase.NEW if may_try else VersionPhase.IDLE
        if self.lost is not None:
            return VersionPhase.STALE if may_try and now >= self.lost.next_at else VersionPhase.AVAILABLE
        return (
            VersionPhase.STALE
            if may_try and settings is not None and self.is_stale(settings)
            else VersionPhase.AVAILABLE
        )

    def move(self, state: State, error: str, at: float) -> None:
        """Changes the state."""
        assert state in _LEGAL[self.state], f"{self.id}: {self.state} → {state}"
        self.state, self.error, self.changed_at = state, error, at

    @property
    def loaded(self) -> bool:
        """Whether it is loaded, or being loaded."""
        return self.servable is not None or self.loading is not None

    @property
    def ended(self) -> bool:
        """Whether nothing of the version is loaded, being loaded or being closed."""
        return self.servable is None and self.loading is None and not self.ending

    def status(self, labels: Iterable[str], wanted: bool, why_not: str) -> VersionStatus:
        """The version as others see it."""
        notes = list(self.told.notes)
        state, error = self.state, self.error
        disk = self.disk
        if state is None:
            state = State.START if disk is not None and not disk.ready else State.END
        if disk is not None and not wanted and self.ended and disk.ready:
            notes.append(f"on disk, not served: {why_not}")
        if disk is not None and disk.held:
            notes.append(f"waiting: {disk.held}")
        if self.waiting:
            notes.append(f"waiting: {self.waiting}")
        if disk is not None and disk.error:
            error = f"files on disk differ: {disk.error}" if self.servable is not None else disk.error
        if self.failure is not None:
            at = datetime.fromtimestamp(self.failure.next_wall, UTC).strftime("%H:%M:%S UTC")
            often = "once" if self.failure.tries == 1 else f"{self.failure.tries} times"
            notes.append(f"failed {often}; next try at {at}, or when the files change")
        if self.cut:
            notes.append(self.cut)
        if self.servable is not None and self.loading is not None:
            why = "from changed files" if self.lost is None else "in a new worker process"
            notes.append(f"generation {self.loading.generation} is loading {why}")
        for generation, old in self.ending.items():
            notes.append(f"generation {generation} finishes {old.handles} requests")
        return VersionStatus(
            self.id,
            state,
            error,
            generation=self.told.generation,
            backend=self.told.backend,
            devices=self.told.devices,
            # The scheduler may find out later that a model must not be batched.
            batching=self.servable.scheduler.batching if self.servable is not None else self.told.batching,
            load_seconds=self.told.load_seconds,
            changed_at=self.changed_at,
            labels=tuple(sorted(labels)),
            notes=tuple(notes),
            lost=self.lost is not None,
            restarts=self.restarts,
        )


class ModelState:
    """One model: its versions, and the statuses of those that are gone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk: ModelOnDisk | None = None
        self.config: ModelConfig | None = None  # the last one that could be read
        self.settings = ""  # its key
        self.versions: dict[int, VersionState] = {}
        self.history: OrderedDict[int, VersionStatus] = OrderedDict()
        self.frozen: frozenset[int] | None = None  # explicit mode: the versions on disk when an operator last said load

    def version(self, number: int) -> VersionState:
        """The record of a version, made if need be."""
        record = self.versions.get(number)
        if record is None:
            record = self.versions[number] = VersionState(ServableId(self.name, number))
        return record

    def available(self) -> dict[int, Servable]:
        """The servables in service, by version."""
        return {number: record.servable for number, record in self.versions.items() if record.servable is not None}

    @property
    def settling(self) -> list[int]:
        """The versions on disk that may be loaded as soon as their files have settled."""
        return [n for n, record in self.versions.items() if record.disk is not None and record.disk.settling]

    @property
    def in_use(self) -> bool:
        """Whether anything of it is served or being closed."""
        return any(record.servable is not None or record.ending for record in self.versions.values())

    def adopt(self, disk: ModelOnDisk | None) -> None:
        """Takes over what the source saw. None: the model is gone."""
        self.disk = disk
        if disk is not None and disk.config is not None and disk.config != self.config:
            self.config = disk.config
            self.settings = settings_key(disk.config)
        seen = {version.number: version for version in disk.versions} if disk is not None else {}
        for number in seen:
            self.version(number)
        for number, record in self.versions.items():
            record.disk = seen.get(number)

    def as_frozen(self, disk: ModelOnDisk) -> ModelOnDisk:
        """Explicit mode: what an operator loaded, as it was then. Versions that are not loaded yet are seen as they
        are: they may still settle, or be mended."""
        before = self.disk
        if self.frozen is None or before is None:
            return disk
        versions = []
        for number in sorted(self.frozen, reverse=True):
            known = self.versions.get(number)
            loaded = known is not None and known.servable is not None
            chosen = before.version(number) if loaded else disk.version(number)
            if chosen is not None:
                versions.append(chosen)
        return replace(before if before.config is not None else disk, versions=tuple(versions))

    def forget_ended(self) -> None:
        """Drops records of versions that are gone from disk and ended, and keeps the last statuses of those that
        lived."""
        for number, record in list(self.versions.items()):
            if record.disk is None and record.ended:
                if record.state is State.END:
                    self.history.pop(number, None)
                    notes = (GONE, record.cut) if record.cut else (GONE,)
                    self.history[number] = replace(record.status((), False, ""), notes=notes)
                    while len(self.history) > HISTORY:
                        self.history.popitem(last=False)
                del self.versions[number]

    def status(
        self,
        labels: dict[str, int],
        wanted: frozenset[int],
        wishes: ModelOverrides,
        *,
        persistent: bool,
        asked: bool = True,
    ) -> ModelStatus:
        """The model as others see it. `asked`: whether it is served at all, see Desired."""
        policy = describe(self.config.version_policy) if self.config is not None else ""
        pointing: dict[int, list[str]] = {}
        for label, number in labels.items():
            pointing.setdefault(number, []).append(label)
        told: dict[int, VersionStatus] = dict(self.history)
        idle = 0
        for number in sorted(self.versions, reverse=True):
            record = self.versions[number]
            if record.state is None and record.disk is not None and record.disk.ready:
                idle += 1
                if idle > HISTORY:
                    continue
            told[number] = record.status(
                pointing.get(number, ()), number in wanted, self.why_not(number, wishes, asked=asked)
            )
        return ModelStatus(
            self.name,
            tuple(told[number] for number in sorted(told, reverse=True)),
            labels=dict(sorted(labels.items())),
            overrides=tuple(wish.shown(persistent=persistent) for wish in wishes.items),
            error=self.disk.error or self._missing(wishes) if self.disk is not None else "",
            version_policy=policy,
            parts=tuple(dict.fromkeys(step.model for step in self.config.ensemble)) if self.config is not None else (),
        )

    def why_not(self, number: int, wishes: ModelOverrides, *, asked: bool) -> str:
        """Why a version is not wanted: what decides first, as in `desired`."""
        disk = self.versions[number].disk
        if disk is None:
            return GONE
        if not disk.ready:
            return disk.held or disk.error
        if wishes.get("unloaded") or wishes.get("unloaded", number):
            return "unloaded by an operator"
        if wishes.pin is not None:
            return f"an operator pinned version {wishes.pin}"
        if self.config is None or self.disk is None or self.disk.config is None:
            return UNREADABLE
        policy = describe(self.config.version_policy)
        return f"version policy {policy}" if asked else "explicit mode, and nobody asked for it"

    def _missing(self, wishes: ModelOverrides) -> str:
        """What is asked for by number and is not there."""
        specific = self.config.version_policy.specific if self.config is not None else None
        pinned = wishes.pin is not None
        asked = (wishes.pin,) if pinned else specific or ()
        missing = [str(number) for number in asked if number not in self.versions]
        who = "an operator's pin" if pinned else "version_policy.specific"
        return f"not on disk: version {', '.join(missing)}, which {who} asks for" if missing else ""
