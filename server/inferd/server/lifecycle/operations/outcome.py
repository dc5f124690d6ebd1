"""The outcome of a load: whether what an operator wished has come true, or why it will not.

On the manager's thread, like every command.
"""

from __future__ import annotations

from collections.abc import Callable

from inferd.server.errors import Conflict, NotFound, Unavailable
from inferd.server.lifecycle.ensemble.definition import composing
from inferd.server.lifecycle.reconcile.model_state import ModelState
from inferd.server.lifecycle.reconcile.reconciler import Reconciler
from inferd.server.lifecycle.state import State

Outcome = Callable[[], bool]
"""Whether the wish has come true. Raises ServingError when it will not."""


def version_loaded(conductor: Reconciler, model: ModelState, version: int) -> bool:
    """Whether the version serves what is on disk. Raises NotFound, Conflict or Unavailable (held back)."""
    record = model.versions.get(version)
    subject = f"version {version} of model {model.name!r}"
    if record is None or record.disk is None:
        raise NotFound(f"{subject} is gone from the repository")
    if record.loading is not None:
        return False
    if model.disk is not None and model.disk.config is None and model.disk.error:
        raise Conflict(f"model {model.name!r}: {model.disk.error}")
    if record.failure is not None:
        raise Conflict(f"{subject} failed to load: {record.failure.reason}")
    if record.disk.error:
        raise Conflict(f"{subject}: {record.disk.error}")
    if composing(model) and record.state is State.START and record.error:
        raise Conflict(f"{subject} cannot be served: {record.error}")
    if record.disk.held and not record.disk.settling:
        raise Unavailable(f"{subject} is held back: {record.disk.held}")
    if record.servable is not None:
        return not record.disk.settling and record.is_stale(model.settings) is False
    if not record.disk.settling and version not in conductor.wanted(model.name).wanted:
        raise Conflict(f"{subject} is not wanted any more")
    return False


def model_loaded(conductor: Reconciler, model: ModelState) -> bool:
    """Whether all that is wanted of the model serves what is on disk. Raises as `version_loaded`."""
    disk = model.disk
    if disk is None:
        raise NotFound(f"model {model.name!r} is gone from the repository")
    if disk.config is None:
        if disk.held:
            return False
        raise Conflict(f"model {model.name!r}: {disk.error}")
    wanted = conductor.wanted(model.name).wanted
    # A version that settles may be the one that is meant.
    newest = max(wanted, default=-1)
    if any(version.settling and version.number >= newest for version in disk.versions):
        return False
    if not wanted and conductor.overrides.of(model.name).get("unloaded") is not None:
        raise Conflict(f"model {model.name!r} was unloaded again before it was loaded")
    if not wanted:
        told = [(version.number, version.error or version.held) for version in disk.versions]
        reasons = [f"version {number}: {words}" for number, words in told if words]
        reason = "; ".join(reasons) or disk.error
        raise Conflict(f"model {model.name!r} has no version that could be loaded: {reason or 'the policy wants none'}")
    failures = []
    done = True
    for number in sorted(wanted, reverse=True):
        try:
            done &= version_loaded(conductor, model, number)
        except Conflict as error:
            failures.append(str(error))
    if done and failures:
        raise Conflict("; ".join(failures))
    return done
