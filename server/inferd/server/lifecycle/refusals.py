"""Why a request cannot have the model that it asks for, in words. Made from the published statuses, on any thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from inferd.server.errors import Conflict, NotFound, ServingError, Unavailable
from inferd.server.lifecycle.state import ModelStatus, State, VersionStatus

_SHOWN = 10


def refusal(
    statuses: Mapping[str, ModelStatus],
    name: str,
    version: int | None,
    label: str | None,
    *,
    scanned: bool,
    discreet: bool = False,
) -> ServingError:
    """The error for a request that found no servable. `scanned`: whether the repository has been read at least once;
    `discreet`: no other model is named, because the caller may not be allowed to know of it."""
    model = statuses.get(name)
    if model is None:
        if not scanned:
            return Unavailable(f"model {name!r}: the server is starting and has not read its repository yet")
        return unknown_model(statuses, name, discreet=discreet)
    if label is not None:
        number = model.labels.get(label)
        if number is None:
            known = f"its labels: {_listed(model.labels)}" if model.labels else "it has no labels"
            return NotFound(f"model {name!r} has no label {label!r}; {known}")
        return _version(model, number, f"label {label!r} of model {name!r} points to version {number}, which")
    if version is not None:
        return _version(model, version, f"version {version} of model {name!r}")
    return _model(model)


def unknown_model(statuses: Mapping[str, ModelStatus], name: str, *, discreet: bool = False) -> NotFound:
    """The error for an unknown name. Says which models there are and which was probably meant, unless `discreet`."""
    if discreet:
        return NotFound(f"unknown model {name[:200]!r}")
    if not statuses:
        return NotFound(f"unknown model {name[:200]!r}: the repository holds no models")
    near = difflib.get_close_matches(name[:200], list(statuses)[:1000], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return NotFound(f"unknown model {name[:200]!r}; {hint}models: {_listed(sorted(statuses))}")


def _version(model: ModelStatus, number: int, subject: str) -> ServingError:
    status = next((status for status in model.versions if status.id.version == number), None)
    if status is None:
        return NotFound(f"{subject} does not exist; {_served(model)}")
    unavailable = _state(status, subject)
    if unavailable is not None:
        return unavailable
    unloaded = _unloaded(model, str(number))
    if unloaded:
        return NotFound(f"{subject} {unloaded}; {_served(model)}")
    reason = next((note for note in status.notes if note.startswith("on disk, not served")), "is not served")
    return NotFound(f"{subject} is {reason.removeprefix('is ')}; {_served(model)}")


def _model(model: ModelStatus) -> ServingError:
    subject = f"model {model.name!r}"
    unloaded = _unloaded(model, "")
    if unloaded and not any(status.state in (State.LOADING, State.UNLOADING) for status in model.versions):
        return NotFound(f"{subject} {unloaded}")
    coming = [status for status in model.versions if status.state is State.LOADING]
    waiting = [status for status in model.versions if status.state is State.START]
    failed = [status for status in model.versions if status.state is State.FAILED]
    leaving = [status for status in model.versions if status.state is State.UNLOADING]
    if model.error and all(status.error == model.error for status in failed):
        failed = []  # what is wrong is wrong with the model as a whole
    for status in (*coming, *waiting, *failed, *leaving):
        error = _state(status, f"version {status.id.version} of {subject}")
        if error is not None:
            return error
    if model.error:
        return Conflict(f"{subject} cannot be served: {model.error}")
    return NotFound(f"{subject} has no version in service")


def _state(status: VersionStatus, subject: str) -> ServingError | None:
    """The error that follows from the state of a version alone, None when it says nothing."""
    if status.state is State.LOADING:
        return Unavailable(f"{subject} is loading" + (f" (before: {status.error})" if status.error else ""))
    if status.state is State.UNLOADING:
        return Unavailable(f"{subject} is unloading")
    if status.state is State.AVAILABLE:
        return Unavailable(f"{subject} has just become available")
    if status.state is State.FAILED:
        return Conflict(f"{subject} failed to load: {status.error}")
    if status.state is State.START:
        waiting = next((note.removeprefix("waiting: ") for note in status.notes if note.startswith("waiting: ")), "")
        return Unavailable(f"{subject} is not loaded yet" + (f": {waiting}" if waiting else ""))
    return None


def _unloaded(model: ModelStatus, value: str) -> str:
    for override in model.overrides:
        if override.kind == "unloaded" and override.value in ("", value):
            return f"was unloaded by {override.by}"
    return ""


def _served(model: ModelStatus) -> str:
    numbers = [str(status.id.version) for status in model.versions if status.state is State.AVAILABLE]
    return f"served: {_listed(numbers)}" if numbers else "no version is served"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
