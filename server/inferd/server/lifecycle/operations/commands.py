"""What operators ask for: load, unload, label, roll back. Each changes the wishes and then waits until they have come
true.

All of it runs on the manager's thread. A command is refused with a ServingError; the wishes are then as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from inferd.server.errors import Conflict, ExecutionFailed, NotFound, ServingError, Unavailable
from inferd.server.lifecycle.ensemble.definition import composing
from inferd.server.lifecycle.operations.load_overrides import LoadOverride
from inferd.server.lifecycle.operations.load_with_overrides import LoadWithOverrides
from inferd.server.lifecycle.operations.outcome import Outcome, model_loaded, version_loaded
from inferd.server.lifecycle.operations.overrides import Kind, ModelOverrides, Override, OverridesError
from inferd.server.lifecycle.reconcile.labels import check_label, effective_labels
from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionState
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.refusals import unknown_model
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.observability.events import event, get


@dataclass(slots=True)
class Command:
    """One request of an operator.

    `after`: number of the listing that it needs. `begin` makes the wish and gives its outcome, or None: not yet.
    """

    model: str
    begin: Callable[[], Outcome | None]
    future: Future[ModelStatus]
    after: int = 0
    outcome: Outcome | None = None


class Commands:
    """The operators' side of the conductor. The manager's thread only."""

    def __init__(
        self,
        conductor: Reconciler,
        *,
        explicit: bool,
        patience: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        discreet: bool = False,
    ) -> None:
        """`patience`: seconds for which a load waits until the newest version has settled. `discreet`: see refusal."""
        self._discreet = discreet
        self._conductor = conductor
        self._patience = patience
        self._clock = clock
        self._explicit = explicit
        self._wall_clock = wall_clock
        self._waiting: list[Command] = []
        self._with: dict[str, Future[ModelStatus]] = {}  # loads under way that bring something of their own

    def add(self, command: Command) -> None:
        """Takes a command on; it begins when its listing has come."""
        self._waiting.append(command)

    def begin(self) -> None:
        """Begins what can begin."""
        listing = self._conductor.intake.listing
        for command in self._waiting:
            if command.outcome is None and not command.future.cancelled():
                if listing is None or listing.sequence < command.after:
                    continue
                try:
                    command.outcome = command.begin()
                    self._conductor.touch(command.model)
                except ServingError as error:
                    _finish(command.future, error=error)
                except OverridesError as error:
                    _finish(command.future, error=ExecutionFailed(str(error), accepted=False))
                except Exception as error:
                    _fail(command, error)
        self._drop()

    def finish(self) -> None:
        """Answers what has come true, and what will not."""
        for command in self._waiting:
            if command.outcome is None or command.future.done():
                continue
            try:
                if command.outcome():
                    _finish(command.future, self._status(command.model))
            except ServingError as error:
                _finish(command.future, error=error)
            except Exception as error:
                _fail(command, error)
        self._drop()

    def stop(self) -> None:
        """The server goes down: nothing will come true any more."""
        for command in self._waiting:
            _finish(command.future, error=Unavailable("the server is shutting down"))
        self._drop()

    def _drop(self) -> None:
        # A caller that gave up cancels its future.
        self._waiting = [command for command in self._waiting if not command.future.done()]

    def adopt(self, name: str, wishes: ModelOverrides) -> None:
        """Takes over wishes that somebody else keeps."""
        self._conductor.overrides.adopt(name, wishes)
        self._conductor.touch(name)

    # The commands

    def load(self, name: str, version: int | None, by: str, asked_at: float) -> Outcome | None:
        """Lifts unloads and the pin; a version that the policy leaves out is wanted from now on.

        `asked_at`: monotonic time. Who publishes a version and loads the model means that version: lifting the pin
        before it has settled would bring back the one before it. The models of an ensemble that are not served are
        loaded with it. A load of the whole model ends what came with an earlier one.
        """
        if version is None:
            uploaded = self._conductor.intake.substitutes.get(name)
            if uploaded is not None and not self._conductor.intake.in_repository(name):
                raise NotFound(f"model {name!r} was uploaded, and the repository has none of that name; it stays")
            self._drop_load_override(name)
        return self._load(name, version, by, asked_at)

    def load_with(
        self, name: str, substitute: LoadOverride, future: Future[ModelStatus], asked_at: float
    ) -> Callable[[], Outcome | None]:
        """How a load begins that brings settings or files; see LoadWithOverrides."""
        load = partial(self._load, name, None, substitute.by, asked_at)
        return LoadWithOverrides(self._conductor, load, self._with, future, name, substitute).begin

    def _drop_load_override(self, name: str) -> None:
        if self._conductor.intake.substitutes.drop(name):
            self._conductor.intake.apply_load_override()

    def _load(self, name: str, version: int | None, by: str, asked_at: float) -> Outcome | None:
        for part in self._parts(self._model(name)):
            if self._load_one(part, None, by, asked_at) is None:
                return None
        return self._load_one(name, version, by, asked_at)

    def _parts(self, model: ModelState) -> list[str]:
        """The models of an ensemble that are not served, those of ensembles in it too."""
        found: list[str] = []
        walk = [model.name]
        while walk:
            for part in composing(self._conductor.records.get(walk.pop())):
                if part not in (*found, model.name) and part in self._conductor.records:
                    walk.append(part)
                    if part not in self._conductor.board.serving:
                        found.append(part)
        return found

    def _load_one(self, name: str, version: int | None, by: str, asked_at: float) -> Outcome | None:
        model = self._model(name)
        if version is None and self._settling(model) and self._clock() < asked_at + self._patience:
            return None
        conductor = self._conductor
        conductor.intake.refresh(model)
        wishes = conductor.overrides.of(name).only(lambda wish: wish.kind != "pinned")
        if version is None:
            wishes = wishes.only(lambda wish: wish.kind != "unloaded")
            if self._explicit:
                wishes = self._plus(wishes, "loaded", None, by)
        else:
            self._on_disk(model, version)
            wishes = wishes.only(lambda wish: not (wish.kind == "unloaded" and wish.version == version))
        conductor.overrides.change(name, wishes)
        if version is not None and version not in conductor.decide(name).wanted:
            conductor.overrides.change(name, self._plus(wishes, "loaded", version, by))
        for number, record in model.versions.items():
            if version in (None, number):
                record.failure = None  # an operator's word is as good as a change on disk
        if version is not None:
            return partial(version_loaded, conductor, model, version)
        return partial(model_loaded, conductor, model)

    def unload(self, name: str, version: int | None, by: str) -> Outcome:
        """Takes the model or the version out of service until it is loaded again."""
        model = self._model(name)
        overrides = self._conductor.overrides
        wishes = overrides.of(name)
        if version is None:
            wishes = wishes.only(lambda wish: wish.kind not in ("loaded", "unloaded"))
            model.frozen = None
            self._drop_load_override(name)
        else:
            self._known(model, version)
            wishes = wishes.only(lambda wish: not (wish.kind == "loaded" and wish.version == version))
        overrides.change(name, self._plus(wishes, "unloaded", version, by))

        def gone() -> bool:
            records = [model.versions.get(version)] if version is not None else list(model.versions.values())
            return all(record is None or (record.servable is None and not record.ending) for record in records)

        return gone

    def adopt_configured_models(self, name: str, by: str, asked_at: float) -> Outcome | None:
        """A named model has been asked for anew: what operators wished of it before no longer counts."""
        self._conductor.overrides.change(name, ModelOverrides())
        return self.load(name, None, by, asked_at)

    def withdraw_configured_models(self, name: str) -> Outcome:
        """A named model is no longer asked for. One that also lies in a root stays."""
        conductor = self._conductor
        model = conductor.records.get(name)
        if model is None or (conductor.intake.listing is not None and name in conductor.intake.listing.models):
            return lambda: True
        conductor.overrides.change(name, ModelOverrides())
        model.frozen = None
        conductor.intake.substitutes.drop(name)
        model.adopt(None)
        return lambda: all(record.ended for record in model.versions.values())

    def set_label(self, name: str, label: str, version: int | None, by: str) -> Outcome:
        """Points a label to an available version, or removes it."""
        check_label(label)
        model = self._model(name)
        overrides = self._conductor.overrides
        configured = model.config.labels if model.config is not None else {}
        wishes = overrides.of(name).only(lambda wish: not (wish.kind == "label" and wish.label == label))
        if version is None:
            if label not in effective_labels(configured, overrides.of(name)):
                raise NotFound(f"model {name!r} has no label {label!r}")
            if label in configured:
                wishes = self._plus(wishes, "label", None, by, label)
        else:
            record = self._known(model, version)
            if record.servable is None:
                state = "loading" if record.state is State.LOADING else "not available"
                why = f": {record.error}" if record.error else ""
                raise Conflict(f"label {label!r}: version {version} of model {name!r} is {state}{why}")
            if configured.get(label) != version:
                wishes = self._plus(wishes, "label", version, by, label)
        overrides.change(name, wishes)
        return lambda: True

    def rollback(self, name: str, to: int | None, by: str) -> Outcome:
        """Pins an earlier version; only `load` lifts the pin."""
        model = self._model(name)
        entry = self._conductor.board.serving.get(name)
        if to is None:
            if entry is None:
                raise Conflict(f"model {name!r} serves no version to roll back from: name the one to serve")
            now = entry.default.id.version
            usable = [
                number
                for number, record in model.versions.items()
                if number < now and record.disk is not None and not record.has_failed(model.settings)
                and (record.disk.ready or record.servable is not None)
            ]  # fmt: skip
            if not usable:
                raise Conflict(f"model {name!r} has no version below {now}, which is served, that could be loaded")
            target = max(usable)
        else:
            self._on_disk(model, to)
            target = to
        wishes = self._conductor.overrides.of(name).only(
            lambda wish: (
                not (wish.kind in ("loaded", "pinned") or (wish.kind == "unloaded" and wish.version in (None, target)))
            )
        )
        if self._explicit:
            self._conductor.intake.refresh(model)
        self._conductor.overrides.change(name, self._plus(wishes, "pinned", target, by))
        record = model.versions.get(target)
        if record is not None:
            record.failure = None
        return partial(version_loaded, self._conductor, model, target)

    # Small parts

    def _model(self, name: str) -> ModelState:
        model = self._conductor.records.get(name)
        if model is None or (model.disk is None and not model.versions):
            raise unknown_model(self._conductor.board.statuses, name, discreet=self._discreet)
        return model

    def _settling(self, model: ModelState) -> bool:
        """Whether the newest version on disk is new and about to settle."""
        listing = self._conductor.intake.listing
        disk = listing.models.get(model.name) if listing is not None else None
        if disk is None or not disk.versions:
            return False
        newest = disk.versions[0]
        return newest.settling and newest.number not in model.available()

    def _known(self, model: ModelState, version: int) -> VersionState:
        record = model.versions.get(version)
        if record is None:
            raise NotFound(f"model {model.name!r} has no version {version}; its versions: {_numbers(model.versions)}")
        return record

    def _on_disk(self, model: ModelState, version: int) -> None:
        if model.disk is None or model.disk.version(version) is None:
            there = _numbers((model.disk and [found.number for found in model.disk.versions]) or [])
            raise NotFound(f"model {model.name!r} has no version {version} on disk; on disk: {there}")

    def _plus(
        self, wishes: ModelOverrides, kind: Kind, version: int | None, by: str, label: str = ""
    ) -> ModelOverrides:
        return wishes.plus(Override(kind, version, by, self._wall_clock(), label))

    def _status(self, name: str) -> ModelStatus:
        return self._conductor.board.statuses.get(name) or ModelStatus(name)


def _numbers(versions: Iterable[int]) -> str:
    numbers = sorted(versions, reverse=True)
    return (", ".join(map(str, numbers[:10])) or "none") + (" ..." if len(numbers) > 10 else "")


def _fail(command: Command, error: Exception) -> None:
    """Ends one that nobody foresaw: tried again it would fail again, and keep everything behind it waiting."""
    event(get("lifecycle"), logging.ERROR, "an operator's request failed", error=error, model=command.model)
    _finish(command.future, error=ExecutionFailed(f"{type(error).__name__}: {error}", accepted=False))


def _finish(future: Future[ModelStatus], status: ModelStatus | None = None, error: ServingError | None = None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        assert status is not None
        future.set_result(status)
