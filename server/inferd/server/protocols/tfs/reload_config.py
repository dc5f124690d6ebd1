"""HandleReloadConfigRequest: replaces the list of configured models by the list in the request.

Configured models are those that are named one by one, each with its base path: the request adds, changes and removes
them. Models in the repository's roots cannot be added or removed by a request; if a request names one, only its labels
are changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from inferd.server.access.caller import Caller
from inferd.server.compat.model_server_config import ModelEntry, checked, latest
from inferd.server.config.errors import ConfigError
from inferd.server.errors import Conflict, InvalidRequest, NotFound, Unsupported
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.operations.admin_operations import when_all
from inferd.server.lifecycle.reconcile.model_state import GONE
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.tfs.error_messages import named
from inferd.server.repository.configured_models import BasePaths, ConfiguredModel
from inferd.server.transport.calls import UnaryCall
from inferd.tfs.v1 import model_service_pb2 as pb

_SOURCE = "the configuration"  # the name of the request in error messages


@dataclass(slots=True)
class _ReloadPlan:
    """`models` are all configured models from now on. `label_changes` are for models in the roots: model, label, and
    version, None to remove the label."""

    models: dict[str, ConfiguredModel] = field(default_factory=dict)
    label_changes: list[tuple[str, str, int | None]] = field(default_factory=list)


class ReloadConfig:
    """Replaces the configured models through the manager. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary, places: BasePaths) -> None:
        """`places`: where base paths may lie."""
        self._places = places
        self._manager = manager
        self._boundary = boundary

    def __call__(self, call: UnaryCall, request: pb.ReloadConfigRequest, caller: Caller) -> None:
        """Refuses an impossible configuration before it changes anything. Replaces all configured models, so that the
        caller must be an operator of every model (see the method's rule). Replies when every new or changed model
        serves what the configuration says, and every removed model is unloaded."""
        kind = request.config.WhichOneof("config")
        if kind == "custom_model_config":
            raise Unsupported("custom_model_config is not supported: expected model_config_list")
        if kind is None:  # no list at all changes nothing; an empty list would remove every configured model
            call.reply(_response())
            return
        plan = self._plan(request.config.model_config_list.config)
        operations = [
            *self._manager.replace_configured_models(plan.models, by=caller.operator),
            *(
                self._manager.set_label(name, label, version, by=caller.operator)
                for name, label, version in plan.label_changes
            ),
        ]
        when_all(operations, partial(self._done, call, plan))

    def _plan(self, configs: Sequence[pb.ModelConfig]) -> _ReloadPlan:
        plan = _ReloadPlan()
        before = self._manager.configured_models
        given_entries = []
        for config in configs:
            model = self._in_root(named(config.name), config.base_path)
            if model is not None:
                plan.label_changes += _label_changes(model, config)
            else:
                given_entries.append(_entry(config))
        try:
            entries = checked(given_entries, _SOURCE)
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
            configured = plan.models[entry.name] = ConfiguredModel.of(entry)
            if old is None or old.base_path != configured.base_path:
                self._places.check(configured, entry.name)
        return plan

    def _in_root(self, name: str, base_path: str) -> ModelStatus | None:
        """The status of the model in the repository's roots that the request means, None if it means a configured
        model. Raises Conflict for a base path that is not that model's."""
        if name in self._manager.configured_models:
            return None
        try:
            model = self._manager.status(name)
        except NotFound:
            return None
        if not model.error and all(v.state is State.END and GONE in v.notes for v in model.versions):
            return None  # only the remembered status of a configured model that was removed
        if base_path and os.path.basename(base_path.rstrip("/")) != name:
            raise Conflict(
                f"model {name}: base_path {base_path[:200]!r} is not where it is: it lies in the repository, under its "
                "own name"
            )
        return model

    def _check_labels(self, entry: ModelEntry) -> None:
        """Raises Conflict for a label of a version that is not on disk, if the model's base path does not change. A
        label may name a version that is on disk but not served: the version is loaded for it."""
        old = self._manager.configured_models.get(entry.name)
        if old is None or old.base_path != ConfiguredModel.of(entry).base_path:
            return
        try:
            versions = self._manager.status(entry.name).versions
        except NotFound:
            return
        on_disk = {v.id.version for v in versions if v.state is not State.END or (v.notes and GONE not in v.notes)}
        for label, number in entry.labels.items():
            if number not in on_disk:
                raise _label_conflict(label, entry.name, number)

    def _done(self, call: UnaryCall, plan: _ReloadPlan, error: BaseException | None) -> None:
        error = error or self._unavailable(plan.models)
        if error is not None:
            self._boundary.fail(call, error)
            return
        call.reply(_response())

    def _unavailable(self, models: Mapping[str, ConfiguredModel]) -> Conflict | None:
        """The error for the first label whose version is not AVAILABLE, None if all are."""
        for name, model in models.items():
            try:
                versions = self._manager.status(name).versions
            except NotFound:
                continue
            available = {version.id.version for version in versions if version.state is State.AVAILABLE}
            for label, number in model.settings["labels"].items():
                if number not in available:
                    return _label_conflict(label, name, number)
        return None


def _response() -> bytes:
    return pb.ReloadConfigResponse(status=pb.StatusProto()).SerializeToString()


def _label_conflict(label: str, name: str, version: int) -> Conflict:
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


def _label_changes(model: ModelStatus, config: pb.ModelConfig) -> list[tuple[str, str, int | None]]:
    """The labels to set and remove on a model in the roots, as `_ReloadPlan` has them. Raises InvalidRequest or
    Unsupported if the configuration would change anything else."""
    name = config.name
    if config.model_platform not in ("", "tensorflow"):
        raise InvalidRequest(f"model {name}: expected model_platform tensorflow, got {config.model_platform!r:.100}")
    policy = _policy_text(config.model_version_policy)
    if policy not in ("", model.version_policy):
        raise Unsupported(
            f"model {name}: version policy {policy} is not supported here: {model.version_policy} is in force; it "
            "is set in model.yaml"
        )
    wanted = config.version_labels
    removed = [(name, label, None) for label in model.labels if label not in wanted]
    changed = [(name, label, number) for label, number in wanted.items() if model.labels.get(label) != number]
    return [*changed, *removed]


def _policy_text(policy: pb.ServableVersionPolicy) -> str:
    """The policy as text, in the form that a model's status has it; "" for none."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "latest":
        return f"latest({policy.latest.num_versions or 1})"
    if kind == "specific":
        return f"specific({', '.join(map(str, policy.specific.versions))})"
    return kind or ""
