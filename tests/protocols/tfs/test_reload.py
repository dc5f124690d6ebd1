"""HandleReloadConfigRequest with TensorFlow Serving's real stubs: labels, and configured models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from support.foreign_models import serve
from support.rpc import Served, refused

from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Conflict
from inferd.server.lifecycle.reconcile.model_state import GONE
from inferd.server.lifecycle.state import ServableId, State, VersionStatus

pytestmark = pytest.mark.heavy
pytest.importorskip("tensorflow")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[Served]:
    """Base paths may lie where the tests put them."""
    served = serve(kind=kind, config=ServerConfig.model_validate({"repository": {"roots": [str(tmp_path)]}}))
    yield served
    served.end()


def models(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def _config(name: str = "digits", **fields: Any) -> Any:
    asked = model_management_pb2.ReloadConfigRequest()
    config = asked.config.model_config_list.config.add(name=name, model_platform="tensorflow", **fields)
    config.version_labels.update({})
    return asked


def test_a_reload_sets_and_removes_labels_of_a_model_in_a_root(channel: Any, server: Served) -> None:
    server.manager.labels["digits"] = {"old": 1, "stable": 1}
    asked = _config(base_path="/models/digits")
    asked.config.model_config_list.config[0].version_labels.update({"stable": 1, "canary": 2})
    asked.config.model_config_list.config[0].model_version_policy.latest.num_versions = 1
    answer = models(channel).HandleReloadConfigRequest(asked)
    assert answer.status.error_code == 0
    assert server.manager.asked == [("label", "digits", "canary", 2), ("label", "digits", "old", None)]


def test_a_reload_without_a_config_changes_nothing(channel: Any, server: Served) -> None:
    models(channel).HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
    assert server.manager.asked == []


def _policy() -> Any:
    asked = _config()
    asked.config.model_config_list.config[0].model_version_policy.specific.versions.append(1)
    return asked


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (_config("nope"), "INVALID_ARGUMENT", "model nope.base_path: expected a directory on this machine"),
        (_config("nope", base_path="gs://b/nope"), "INVALID_ARGUMENT", "got 'gs://b/nope'"),
        (_config(base_path="/models/other"), "FAILED_PRECONDITION", "it lies in the repository, under its own name"),
        (_policy(), "UNIMPLEMENTED", "version policy specific(1) is not supported here: latest(1) is in force"),
        (_config(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_a_reload_refuses_changes_of_models_in_a_root(
    channel: Any, server: Served, asked: Any, code: str, text: str
) -> None:
    error = refused(lambda: models(channel).HandleReloadConfigRequest(asked))
    assert error.code().name == code
    assert text in error.details()
    assert server.manager.asked == []


def test_a_label_of_an_unavailable_version_is_refused(channel: Any, server: Served) -> None:
    server.manager.hold_admin = Future()
    server.manager.hold_admin.set_exception(Conflict("version 7 of model 'digits' is not available"))
    asked = _config()
    asked.config.model_config_list.config[0].version_labels["canary"] = 7
    error = refused(lambda: models(channel).HandleReloadConfigRequest(asked))
    assert error.code().name == "FAILED_PRECONDITION"
    assert "version 7" in error.details()


def _named(name: str, base: Path, **labels: int) -> Any:
    asked = _config(name, base_path=str(base))
    asked.config.model_config_list.config[0].version_labels.update(labels)
    return asked


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base" / "1").mkdir(parents=True)
    return tmp_path / "base"


def test_a_reload_replaces_the_configured_models(channel: Any, server: Served, base: Path) -> None:
    asked = _named("new", base, stable=1)
    asked.config.model_config_list.config[0].model_version_policy.specific.versions.extend([1, 2])
    asked.config.model_config_list.config.add(name="digits")  # in a root: its labels only
    models(channel).HandleReloadConfigRequest(asked)
    found = server.manager.configured_models["new"]
    assert (found.base_path, found.platform) == (base, "tensorflow")
    assert found.settings == {
        "backend": "tensorflow",
        "version_policy": {"specific": [1, 2]},
        "labels": {"stable": 1},
    }
    assert list(server.manager.configured_models) == ["new"]
    none = model_management_pb2.ReloadConfigRequest()
    none.config.model_config_list.SetInParent()
    models(channel).HandleReloadConfigRequest(none)
    assert server.manager.configured_models == {}
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "digits"
    assert models(channel).GetModelStatus(asked).model_version_status[0].state == 30


def test_a_removed_model_may_be_configured_again(channel: Any, server: Served, base: Path) -> None:
    """The status of its last versions is still remembered, which must not count as a model in the repository."""
    server.manager.change(VersionStatus(ServableId("m", 1), State.END, generation=1, notes=(GONE,)))
    asked = model_management_pb2.ReloadConfigRequest()
    asked.config.model_config_list.config.add(name="m", base_path=str(base))
    models(channel).HandleReloadConfigRequest(asked)
    assert list(server.manager.configured_models) == ["m"]


def test_a_reload_without_a_config_keeps_the_configured_models(channel: Any, server: Served, base: Path) -> None:
    models(channel).HandleReloadConfigRequest(_named("new", base))
    models(channel).HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
    assert list(server.manager.configured_models) == ["new"]


def test_a_label_of_a_version_not_on_disk_changes_nothing(channel: Any, server: Served, base: Path) -> None:
    models(channel).HandleReloadConfigRequest(_named("new", base))
    before = dict(server.manager.configured_models)
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_named("new", base, canary=7)))
    assert error.code().name == "FAILED_PRECONDITION"
    assert error.details().startswith("Request to assign label to version 7 of model new, which is not currently")
    server.manager.change(VersionStatus(ServableId("new", 7), State.END, notes=("removed from disk",)))
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_named("new", base, canary=7)))
    assert error.code().name == "FAILED_PRECONDITION"
    assert server.manager.configured_models == before
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_named("other", base, canary=7)))
    assert error.code().name == "FAILED_PRECONDITION"


def test_a_reload_cannot_change_the_platform(channel: Any, server: Served, base: Path) -> None:
    models(channel).HandleReloadConfigRequest(_named("new", base))
    asked = _named("new", base)
    asked.config.model_config_list.config[0].model_platform = "onnx"
    error = refused(lambda: models(channel).HandleReloadConfigRequest(asked))
    assert error.code().name == "FAILED_PRECONDITION"
    assert "model_platform is tensorflow and cannot become onnx" in error.details()
    asked.config.model_config_list.config[0].model_platform = "caffe"
    assert refused(lambda: models(channel).HandleReloadConfigRequest(asked)).code().name == "INVALID_ARGUMENT"


def test_a_custom_model_config_is_refused(channel: Any, server: Served, base: Path) -> None:
    asked = model_management_pb2.ReloadConfigRequest()
    asked.config.custom_model_config.SetInParent()
    assert refused(lambda: models(channel).HandleReloadConfigRequest(asked)).code().name == "UNIMPLEMENTED"


def test_a_reload_is_refused_to_remote_callers(channel: Any, server: Served) -> None:
    metadata = [("x-forwarded-for", "10.0.0.1")]
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_config(), metadata=metadata))
    assert error.code().name == "PERMISSION_DENIED"
    assert server.manager.asked == []
