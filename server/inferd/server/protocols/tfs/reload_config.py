"""HandleReloadConfigRequest: the configuration in the request takes the place of the one in force.

It is about the models that are named one by one, each with its base path: they are added, changed and removed. Models
that lie in the repository's roots are not TensorFlow Serving's to add or remove; of one that the configuration names,
the labels are moved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from inferd.server.compat.model_server_config import ModelEntry, checked, latest
from inferd.server.config.errors import ConfigError
from inferd.server.errors import Conflict, InvalidRequest, NotFound, Unsupported
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.operations.admin_operations import when_all
from inferd.server.lifecycle.reconcile.model_state import GONE
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.protocols.tfs.error_messages import named
from inferd.server.repository.configured_models import ConfiguredModel
from inferd.server.transport.calls import UnaryCall
from inferd.tfs.v1 import model_service_pb2 as pb

_SOURCE = "the configuration"


@dataclass(slots=True)
class _ReloadPlan:
    """`models` that are named from now on, and labels to be moved of models in the roots: model, label, version."""

    models: dict[str, ConfiguredModel] = field(default_factory=dict)
    moves: list[tuple[str, str, int | None]] = field(default_factory=list)


class Reload:
    """Replaces the configuration by the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike, edge: ErrorBoundary) -> None:
        self._manager = manager
        self._edge = edge

    def __call__(self, call: UnaryCall) -> None:
        """Refuses what cannot be before anything is done. Answers when every model that is new or changed serves what
        it should, and every removed one is gone."""
        by = self._edge.gate.admit_admin(call)
        request = parse(pb.ReloadConfigRequest, call.request)
        kind = request.config.WhichOneof("config")
        if kind == "custom_model_config":
            raise Unsupported("custom_model_config is not supported: expected model_config_list")
        if kind is None:  # nothing is asked for, which is not "no models"
            call.reply(_answer())
            return
        plan = self._plan(request.config.model_config_list.config)
        wishes = [
            *self._manager.replace_configured_models(plan.models, by=by),
            *(self._manager.set_label(name, label, version, by=by) for name, label, version in plan.moves),
        ]
        when_all(wishes, partial(self._done, call, plan))

    def _plan(self, configs: Sequence[pb.ModelConfig]) -> _ReloadPlan:
        plan = _ReloadPlan()
        before = self._manager.configured_models
        named_now = []
        for config in configs:
            model = self._in_root(named(config.name), config.base_path)
            if model is not None:
                plan.moves += _moves(model, config)
            else:
                named_now.append(_entry(config))
        try:
            entries = checked(named_now, _SOURCE)
        except ConfigError as error:
            raise InvalidRequest(str(error)) from None
        for entry in entries:
            old = before.get(entry.name)
            if old is not None and "" not in (old.platform, entry.platform) and old.platform != entry.platform:
                raise Conflict(
                    f"model {entry.name}: its model_platform is {old.platform} and cannot become {entry.platform}: "
                    "remove the model first"
                )
            self._check_labels(entry)
            plan.models[entry.name] = ConfiguredModel.of(entry)
        return plan

    def _in_root(self, name: str, base_path: str) -> ModelStatus | None:
        """The model of this name in the repository's roots, if that is what is meant."""
        if name in self._manager.configured_models:
            return None
        try:
            model = self._manager.status(name)
        except NotFound:
            return None
        if not model.error and all(v.state is State.END and GONE in v.notes for v in model.versions):
            return None  # no more than the memory of one that was named before
        if base_path and os.path.basename(base_path.rstrip("/")) != name:
            raise Conflict(
                f"model {name}: base_path {base_path[:200]!r} is not where it is: it lies in the repository, under its "
                "own name"
            )
        return model

    def _check_labels(self, entry: ModelEntry) -> None:
        """Labels may stand for versions that are on disk: these are loaded for them. What was never seen is refused
        where it can be told beforehand."""
        old = self._manager.configured_models.get(entry.name)
        if old is None or old.base_path != ConfiguredModel.of(entry).base_path:
            return
        try:
            versions = self._manager.status(entry.name).versions
        except NotFound:
            return
        there = {v.id.version for v in versions if v.state is not State.END or (v.notes and GONE not in v.notes)}
        for label, number in entry.labels.items():
            if number not in there:
                raise _unlabelled(label, entry.name, number)

    def _done(self, call: UnaryCall, plan: _ReloadPlan, error: BaseException | None) -> None:
        error = error or self._unavailable(plan.models)
        if error is not None:
            self._edge.fail(call, error)
            return
        call.reply(_answer())

    def _unavailable(self, models: Mapping[str, ConfiguredModel]) -> Conflict | None:
        for name, model in models.items():
            try:
                versions = self._manager.status(name).versions
            except NotFound:
                continue
            there = {version.id.version for version in versions if version.state is State.AVAILABLE}
            for label, number in model.settings["labels"].items():
                if number not in there:
                    return _unlabelled(label, name, number)
        return None


def _answer() -> bytes:
    return pb.ReloadConfigResponse(status=pb.StatusProto()).SerializeToString()


def _unlabelled(label: str, name: str, version: int) -> Conflict:
    return Conflict(
        f"Request to assign label to version {version} of model {name}, which is not currently available for inference "
        f"(label {label!r})"
    )


def _entry(config: pb.ModelConfig) -> ModelEntry:
    return ModelEntry(
        config.name,
        config.base_path,
        config.model_platform,
        _policy(config.model_version_policy),
        dict(config.version_labels),
    )


def _policy(policy: pb.ServableVersionPolicy) -> dict[str, object]:
    kind = policy.WhichOneof("policy_choice")
    if kind == "latest":
        return latest(policy.latest.num_versions)
    if kind == "specific":
        return {"specific": list(policy.specific.versions)}
    return {"all": True} if kind == "all" else {}


def _moves(model: ModelStatus, config: pb.ModelConfig) -> list[tuple[str, str, int | None]]:
    """The labels to be set and removed of a model in the roots."""
    name = config.name
    if config.model_platform not in ("", "tensorflow"):
        raise InvalidRequest(f"model {name}: expected model_platform tensorflow, got {config.model_platform!r:.100}")
    policy = _shown(config.model_version_policy)
    if policy not in ("", model.version_policy):
        raise Unsupported(
            f"model {name}: version policy {policy} is not supported here: {model.version_policy} is in force; it "
            "is set in model.yaml"
        )
    wanted = config.version_labels
    removed = [(name, label, None) for label in model.labels if label not in wanted]
    changed = [(name, label, number) for label, number in wanted.items() if model.labels.get(label) != number]
    return [*changed, *removed]


def _shown(policy: pb.ServableVersionPolicy) -> str:
    """In the words of the status."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "latest":
        return f"latest({policy.latest.num_versions or 1})"
    if kind == "specific":
        return f"specific({', '.join(map(str, policy.specific.versions))})"
    return kind or ""
