"""What is known of each model and version. Mutable: the reconciler and its transitions write it, on the manager's
thread.

Legal transitions of a version's state (`State`) and what each of them announces:

    (unknown) → START                    the version is wanted and will be loaded, now or when its files are complete
    (unknown) | END → FAILED             the version is wanted, and its files cannot be used: `error` says why
    START → LOADING                      the load pool has it
    LOADING → AVAILABLE | FAILED         loaded and in the serving map | failed: `error` says why, it is tried again
    LOADING → START                      the load was cut short
    START → FAILED                       an ensemble that cannot be put together: `error` says why
    FAILED → START | LOADING             the cause may have passed | it is tried again
    AVAILABLE → AVAILABLE                loaded again from other content (a higher generation), or `error` has changed
    AVAILABLE → UNLOADING → END          no longer served; END when its last request is answered and all is closed
    START | LOADING | FAILED → END       no longer wanted, never served
    END | UNLOADING → START              wanted again

While a new generation is loaded beside the one that serves, nothing is announced: for everyone outside, the version
stays AVAILABLE.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.backoff import LoadFailure, Loss
from inferd.server.lifecycle.reconcile.desired import Desired, describe_policy
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ModelStatus, ServableId, State, VersionStatus
from inferd.server.repository.disk import ModelOnDisk, VersionOnDisk
from inferd.server.repository.tree import Tree

HISTORY = 16  # ended versions of a model whose last status is kept
GONE = "removed from disk"
UNREADABLE = "an error of the model itself"
_LEGAL = {
    None: {State.START, State.FAILED},
    State.START: {State.START, State.LOADING, State.FAILED, State.END},
    State.LOADING: {State.AVAILABLE, State.START, State.FAILED, State.END},
    State.FAILED: {State.FAILED, State.START, State.LOADING, State.END},
    State.AVAILABLE: {State.AVAILABLE, State.UNLOADING},
    State.UNLOADING: {State.END, State.START},
    State.END: {State.START, State.FAILED},
}


class VersionPhase(enum.Enum):
    """Where a version stands, as far as its next step is concerned."""

    NEW = "new"  # not loaded, may be loaded now
    IDLE = "idle"  # not loaded, and not to be loaded now: between two tries, or held back
    LOADING = "loading"
    AVAILABLE = "available"
    STALE = "available, and other content may be loaded now"
    RELOADING = "available, and other content is being loaded"


@dataclass(frozen=True, slots=True)
class Content:
    """What a load is made of: the files, and the settings that reach the loader. Equal content need not be loaded
    again."""

    tree: Tree
    settings: str

    def difference(self, before: Content) -> str:
        """What differs from `before`, in words."""
        return "its files" if self.tree != before.tree else "its settings"


def settings_key(config: ModelConfig) -> str:
    """The part of a model's settings that reaches the loader, as a text that can be compared."""
    return config.model_dump_json(exclude={"version_policy", "transition", "labels"})


@dataclass(slots=True)
class Loading:
    """A load under way.

    cancellation   shared with the thread that loads
    servable       while the loaded version waits for the activation barrier: what was loaded
    withdraw       takes the question to the barrier back; None once that was done
    """

    generation: int
    content: Content
    cancellation: Cancellation = field(default_factory=Cancellation)
    servable: Servable | None = None
    withdraw: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class ServableFacts:
    """What the status says of a servable. Kept when the servable itself is gone and its memory with it."""

    generation: int = 0
    backend: str = ""
    devices: tuple[str, ...] = ()
    batching: str = ""
    load_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    origin: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, servable: Servable) -> ServableFacts:
        """The facts of a servable."""
        return cls(
            servable.generation,
            servable.backend,
            servable.devices,
            servable.batching,
            servable.load_seconds,
            servable.notes,
            servable.origin,
        )


class VersionState:
    """One version of one model. The manager's thread only.

    disk           the version as the source saw it, None when it is not on disk
    servable       what serves, None when nothing does
    content        what the servable was loaded from
    digest         hash of the servable's files, None until it is known
    hashing        the files whose hash is being compared with `digest`
    differs        files whose hash is known to be another one
    loading        the load under way
    aborted        why the last load was not brought to its end
    failure        the last load failed
    insisted       an operator has asked for this version by number since its files last changed or served
    lost           the worker process of the servable has ended
    losses         how many times in a row that happened
    restarts       how many times it happened in all
    available_at   when the servable came into service, monotonic
    ending         servables that left the serving map and are not closed yet, by generation
    waiting        what an ensemble waits for
    """

    def __init__(self, id: ServableId) -> None:  # noqa: A002
        self.id = id
        self.disk: VersionOnDisk | None = None
        self.servable: Servable | None = None
        self.content: Content | None = None
        self.digest: str | None = None
        self.hashing: Tree | None = None
        self.differs: Tree | None = None
        self.loading: Loading | None = None
        self.aborted = ""
        self.failure: LoadFailure | None = None
        self.insisted = False
        self.lost: Loss | None = None
        self.losses = 0
        self.restarts = 0
        self.available_at = 0.0
        self.ending: dict[int, Servable] = {}
        self.state: State | None = None
        self.error = ""
        self.waiting = ""
        self.changed_at = 0.0
        self.facts = ServableFacts()

    def on_disk(self, settings: str) -> Content | None:
        """The content that could be loaded now."""
        return Content(self.disk.tree, settings) if self.disk is not None and self.disk.ready else None

    @property
    def retry_times(self) -> list[float]:
        """Monotonic times at which something may be tried again."""
        waits = (self.failure, self.lost)
        return [wait.next_at for wait in waits if wait is not None and math.isfinite(wait.next_at)]

    def has_failed(self, settings: str) -> bool:
        """Whether the content on disk has been tried and could not be loaded."""
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
        """The version's phase. `settings` None: the model's settings cannot be read."""
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
        """Whether the version is loaded or being loaded."""
        return self.servable is not None or self.loading is not None

    @property
    def ended(self) -> bool:
        """Whether nothing of the version is loaded, being loaded or being closed."""
        return self.servable is None and self.loading is None and not self.ending

    def status(self, labels: Iterable[str], wanted: bool, why_not: str, model_error: str = "") -> VersionStatus:
        """The version as others see it. `why_not`: why it is not wanted, if it is not; `model_error`: why nothing of
        the model can be loaded, "" if it can."""
        notes = list(self.facts.notes)
        state, error = self.state, self.error
        disk = self.disk
        if state is None:
            state = State.START if disk is not None and not disk.ready else State.END
            if disk is not None and (disk.error or model_error):
                state, error = State.FAILED, disk.error or model_error
        if disk is not None and not wanted and self.ended and disk.ready and state is not State.FAILED:
            notes.append(f"on disk, not served: {why_not}")
        if disk is not None and disk.held:
            notes.append(f"waiting: {disk.held}")
        if self.waiting:
            notes.append(f"waiting: {self.waiting}")
        if disk is not None and disk.error:
            error = f"files on disk differ: {disk.error}" if self.servable is not None else disk.error
        if self.failure is not None and (wanted or self.servable is not None):  # otherwise there is no next try
            often = "once" if self.failure.tries == 1 else f"{self.failure.tries} times"
            if math.isfinite(self.failure.next_wall):
                at = datetime.fromtimestamp(self.failure.next_wall, UTC).strftime("%H:%M:%S UTC")
                notes.append(f"failed {often}; next try at {at}, or when the files change")
            else:
                notes.append("held back; next try when the files change or an operator loads this version by number")
        if self.aborted:
            notes.append(self.aborted)
        if self.servable is not None and self.loading is not None:
            why = "from changed files" if self.lost is None else "in a new worker process"
            notes.append(f"generation {self.loading.generation} is loading {why}")
        for generation, old in self.ending.items():
            notes.append(f"generation {generation} finishes {old.handles} requests")
        return VersionStatus(
            self.id,
            state,
            error,
            generation=self.facts.generation,
            backend=self.facts.backend,
            devices=self.facts.devices,
            # The scheduler may find out later that a model must not be batched.
            batching=self.servable.scheduler.batching if self.servable is not None else self.facts.batching,
            load_seconds=self.facts.load_seconds,
            changed_at=self.changed_at,
            labels=tuple(sorted(labels)),
            notes=tuple(notes),
            lost=self.lost is not None,
            restarts=self.restarts,
            origin=self.facts.origin,
        )


class ModelState:
    """One model: its versions, and the last statuses of versions that are gone. The manager's thread only.

    disk       the model as the source saw it, None when it is not in the repository
    config     its settings, the last ones that could be read
    settings   their key, see `settings_key`
    frozen     explicit mode: the versions that were on disk when an operator last asked for a load
    want       what was desired of it when that was last decided
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk: ModelOnDisk | None = None
        self.config: ModelConfig | None = None
        self.settings = ""
        self.versions: dict[int, VersionState] = {}
        self.history: OrderedDict[int, VersionStatus] = OrderedDict()
        self.frozen: frozenset[int] | None = None
        self.want = Desired()

    def version(self, number: int) -> VersionState:
        """The state of a version, made if need be."""
        found = self.versions.get(number)
        if found is None:
            found = self.versions[number] = VersionState(ServableId(self.name, number))
        return found

    def available(self) -> dict[int, Servable]:
        """The servables in service, by version."""
        return {number: version.servable for number, version in self.versions.items() if version.servable is not None}

    @property
    def readable(self) -> bool:
        """Whether the settings on disk can be read."""
        return self.disk is not None and self.disk.config is not None

    @property
    def settling(self) -> list[int]:
        """The versions on disk that may be loaded as soon as their files have settled."""
        return [n for n, version in self.versions.items() if version.disk is not None and version.disk.settling]

    @property
    def held(self) -> list[int]:
        """The versions on disk whose files are not complete or have not settled."""
        return [n for n, version in self.versions.items() if version.disk is not None and version.disk.held]

    @property
    def faulty(self) -> list[int]:
        """The versions on disk whose files cannot be loaded as they are."""
        return [n for n, version in self.versions.items() if version.disk is not None and version.disk.error]

    @property
    def candidates(self) -> frozenset[int]:
        """The versions on disk that may be loaded or are loaded."""
        return frozenset(
            number
            for number, version in self.versions.items()
            if version.disk is not None and (version.servable is not None or (self.readable and version.disk.ready))
        )

    @property
    def failed(self) -> frozenset[int]:
        """The candidates whose content could not be loaded."""
        return frozenset(
            number
            for number in self.candidates
            if self.versions[number].servable is None and self.versions[number].has_failed(self.settings)
        )

    @property
    def in_use(self) -> bool:
        """Whether anything of the model is served or being closed."""
        return any(version.servable is not None or version.ending for version in self.versions.values())

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded."""
        return any(version.loading is not None for version in self.versions.values())

    def adopt(self, disk: ModelOnDisk | None) -> None:
        """Takes over what the source saw. None: the model is gone."""
        self.disk = disk
        if disk is not None and disk.config is not None and disk.config != self.config:
            self.config = disk.config
            self.settings = settings_key(disk.config)
        seen = {version.number: version for version in disk.versions} if disk is not None else {}
        for number in seen:
            self.version(number)
        for number, version in self.versions.items():
            version.disk = seen.get(number)

    def forget_failures(self, number: int | None = None) -> None:
        """Lets one version (None: all) be tried again at once."""
        for version in self.versions.values():
            if number in (None, version.id.version):
                version.failure = None
                serves = version.servable is not None and version.is_stale(self.settings) is False
                version.insisted = (version.insisted or number is not None) and not serves

    def forget_ended(self) -> None:
        """Drops versions that are gone from disk and have ended, and keeps the last status of those that were
        announced."""
        for number, version in list(self.versions.items()):
            if version.disk is None and version.ended:
                if version.state is State.END:
                    self.history.pop(number, None)
                    notes = (GONE, version.aborted) if version.aborted else (GONE,)
                    self.history[number] = replace(version.status((), False, ""), notes=notes)
                    while len(self.history) > HISTORY:
                        self.history.popitem(last=False)
                del self.versions[number]

    def status(self, overrides: ModelOverrides, *, persistent: bool) -> ModelStatus:
        """The model as others see it. `persistent`: whether the operators' overrides outlive the process."""
        want = self.want
        policy = describe_policy(self.config.version_policy) if self.config is not None else ""
        pointing: dict[int, list[str]] = {}
        for label, number in want.labels.items():
            pointing.setdefault(number, []).append(label)
        shown: dict[int, VersionStatus] = dict(self.history)
        idle = 0
        for number in sorted(self.versions, reverse=True):
            version = self.versions[number]
            if version.state is None and version.disk is not None and version.disk.ready:
                idle += 1
                if idle > HISTORY:
                    continue
            why_not = self.why_not_wanted(number, overrides, asked=want.asked)
            gone = overrides.get("unloaded") or overrides.get("unloaded", number)
            unreadable = self.disk.problem if self.disk is not None and self.config is None and not gone else ""
            shown[number] = version.status(pointing.get(number, ()), number in want.wanted, why_not, unreadable)
        return ModelStatus(
            self.name,
            tuple(shown[number] for number in sorted(shown, reverse=True)),
            labels=dict(sorted(want.labels.items())),
            overrides=tuple(override.shown(persistent=persistent) for override in overrides.items),
            error=self.disk.problem or self._missing(overrides) if self.disk is not None else "",
            version_policy=policy,
            parts=tuple(dict.fromkeys(step.model for step in self.config.ensemble)) if self.config is not None else (),
        )

    def why_not_wanted(self, number: int, overrides: ModelOverrides, *, asked: bool) -> str:
        """Why a version is not wanted: the rule that decides, in the order of `desired`."""
        disk = self.versions[number].disk
        if disk is None:
            return GONE
        if not disk.ready:
            return disk.held or disk.error
        if overrides.get("unloaded") or overrides.get("unloaded", number):
            return "unloaded by an operator"
        if overrides.pin is not None:
            return f"an operator pinned version {overrides.pin}"
        if self.config is None or self.disk is None or self.disk.config is None:
            return UNREADABLE
        policy = describe_policy(self.config.version_policy)
        return f"version policy {policy}" if asked else "explicit mode, and nobody asked for it"

    def _missing(self, overrides: ModelOverrides) -> str:
        """Which versions are asked for by number and are not there, in words."""
        specific = self.config.version_policy.specific if self.config is not None else None
        pinned = overrides.pin is not None
        asked = (overrides.pin,) if pinned else specific or ()
        missing = [str(number) for number in asked if number not in self.versions]
        who = "an operator's pin" if pinned else "version_policy.specific"
        return f"not on disk: version {', '.join(missing)}, which {who} asks for" if missing else ""
