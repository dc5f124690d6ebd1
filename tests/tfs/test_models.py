"""TensorFlow Serving's metadata, status, labels, Classify, Regress and MultiInference with the real stubs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.foreign_models import add
from support.rpc import Served, refused

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import Conflict, ExecutionFailed
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
tf = pytest.importorskip("tensorflow")
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)

EXAMPLES = (TensorSpec("inputs", DType.STRING, (-1,)),)
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def predictions(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def models(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def test_metadata_is_a_signature_map_of_their_class(channel: Any) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest()
    asked.model_spec.name = "digits"
    asked.metadata_field.append("signature_def")
    answer = predictions(channel).GetModelMetadata(asked)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(signature.outputs) == {"y", "z"}
    info = signature.inputs["x"]
    assert info.dtype == tf.float32.as_datatype_enum
    assert tf.TensorShape(info.tensor_shape).as_list() == [None, None]


def test_metadata_of_every_element_type_and_of_open_ranks(channel: Any, server: Served) -> None:
    signature = Signature("s", (TensorSpec("x", DType.STRING, None),), (TensorSpec("y", DType.BF16, ()),))
    add(server.manager, "odd", (signature,), dict)
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "odd"
    found = get_model_metadata_pb2.SignatureDefMap()
    predictions(channel).GetModelMetadata(asked).metadata["signature_def"].Unpack(found)
    info = found.signature_def["s"]
    assert info.inputs["x"].tensor_shape.unknown_rank
    assert info.inputs["x"].dtype == tf.string.as_datatype_enum
    assert tf.TensorShape(info.outputs["y"].tensor_shape).as_list() == []
    assert info.outputs["y"].dtype == tf.bfloat16.as_datatype_enum
    asked.model_spec.name = "echo"
    predictions(channel).GetModelMetadata(asked)


@pytest.mark.parametrize(
    ("name", "fields", "code", "text"),
    [
        ("nope", ["signature_def"], "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("digits", [], "INVALID_ARGUMENT", "must specify at least one metadata_field"),
        ("digits", ["other"], "INVALID_ARGUMENT", "Metadata field other is not supported"),
        ("", ["signature_def"], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_metadata_refusals(channel: Any, name: str | None, fields: list[str], code: str, text: str) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        asked.model_spec.name = name
        asked.model_spec.SetInParent()
    error = refused(lambda: predictions(channel).GetModelMetadata(asked))
    assert error.code().name == code
    assert text in error.details()


def _status(channel: Any, name: str, version: int | None = None, label: str = "") -> Any:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = name
    if version is not None:
        asked.model_spec.version.value = version
    if label:
        asked.model_spec.version_label = label
    return models(channel).GetModelStatus(asked).model_version_status


def test_status_of_all_versions_and_of_one(channel: Any, server: Served) -> None:
    change = server.manager.change
    change(VersionStatus(ServableId("digits", 2), State.LOADING))
    change(VersionStatus(ServableId("digits", 3), State.START, error="no graph"))
    change(VersionStatus(ServableId("digits", 4), State.END))
    change(VersionStatus(ServableId("digits", 5), State.UNLOADING))
    change(VersionStatus(ServableId("digits", 6), State.END, notes=("on disk, not served: version policy latest(1)",)))
    # It was served, and what is served is gone for another reason than its files.
    gone = ("on disk, not served: version policy latest(1)",)
    change(VersionStatus(ServableId("digits", 7), State.END, generation=3, notes=gone))
    found = [(s.version, s.state, s.status.error_code, s.status.error_message) for s in _status(channel, "digits")]
    assert found == [
        (7, 50, 0, ""),
        (5, 40, 0, ""),
        (4, 50, 0, ""),
        (3, 50, 9, "no graph"),
        (2, 20, 0, ""),
        (1, 30, 0, ""),
    ]
    assert [s.version for s in _status(channel, "digits", 2)] == [2]
    assert len(_status(channel, "digits", label="canary")) == 6


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("nope", None, "Could not find any versions of model nope"),
        ("digits", 9, "Could not find version 9 of model digits"),
    ],
)
def test_status_of_what_is_not_there(channel: Any, name: str, version: int | None, text: str) -> None:
    error = refused(lambda: _status(channel, name, version))
    assert error.code().name == "NOT_FOUND"
    assert error.details().startswith(text)


def _config(name: str = "digits", **fields: Any) -> Any:
    asked = model_management_pb2.ReloadConfigRequest()
    config = asked.config.model_config_list.config.add(name=name, model_platform="tensorflow", **fields)
    config.version_labels.update({})
    return asked


def test_reload_moves_labels(channel: Any, server: Served) -> None:
    server.manager.labels["digits"] = {"old": 1, "stable": 1}
    asked = _config(base_path="/models/digits")
    asked.config.model_config_list.config[0].version_labels.update({"stable": 1, "canary": 2})
    asked.config.model_config_list.config[0].model_version_policy.latest.num_versions = 1
    answer = models(channel).HandleReloadConfigRequest(asked)
    assert answer.status.error_code == 0
    assert server.manager.asked == [("label", "digits", "canary", 2), ("label", "digits", "old", None)]


def test_an_empty_reload_changes_nothing(channel: Any, server: Served) -> None:
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
def test_reload_refuses_what_a_repository_decides(
    channel: Any, server: Served, asked: Any, code: str, text: str
) -> None:
    error = refused(lambda: models(channel).HandleReloadConfigRequest(asked))
    assert error.code().name == code
    assert text in error.details()
    assert server.manager.asked == []


def test_a_label_to_what_is_not_available_fails(channel: Any, server: Served) -> None:
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


def test_a_reload_replaces_the_named_models(channel: Any, server: Served, base: Path) -> None:
    asked = _named("new", base, stable=1)
    asked.config.model_config_list.config[0].model_version_policy.specific.versions.extend([1, 2])
    asked.config.model_config_list.config.add(name="digits")  # in a root: its labels only
    models(channel).HandleReloadConfigRequest(asked)
    found = server.manager.named["new"]
    assert (found.base_path, found.platform) == (base, "tensorflow")
    assert found.settings == {
        "backend": "tensorflow",
        "version_policy": {"specific": [1, 2]},
        "labels": {"stable": 1},
    }
    assert list(server.manager.named) == ["new"]
    none = model_management_pb2.ReloadConfigRequest()
    none.config.model_config_list.SetInParent()
    models(channel).HandleReloadConfigRequest(none)
    assert server.manager.named == {}
    assert _status(channel, "digits")[0].state == 30


def test_an_empty_reload_does_not_mean_no_models(channel: Any, server: Served, base: Path) -> None:
    models(channel).HandleReloadConfigRequest(_named("new", base))
    models(channel).HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
    assert list(server.manager.named) == ["new"]


def test_a_reload_of_labels_for_what_is_not_there(channel: Any, server: Served, base: Path) -> None:
    models(channel).HandleReloadConfigRequest(_named("new", base))
    before = dict(server.manager.named)
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_named("new", base, canary=7)))
    assert error.code().name == "FAILED_PRECONDITION"
    assert error.details().startswith("Request to assign label to version 7 of model new, which is not currently")
    server.manager.change(VersionStatus(ServableId("new", 7), State.END, notes=("removed from disk",)))
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_named("new", base, canary=7)))
    assert error.code().name == "FAILED_PRECONDITION"
    assert server.manager.named == before
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


def test_a_reload_of_a_custom_kind_is_refused(channel: Any, server: Served, base: Path) -> None:
    asked = model_management_pb2.ReloadConfigRequest()
    asked.config.custom_model_config.SetInParent()
    assert refused(lambda: models(channel).HandleReloadConfigRequest(asked)).code().name == "UNIMPLEMENTED"


def test_strangers_may_not_reload(channel: Any, server: Served) -> None:
    metadata = [("x-forwarded-for", "10.0.0.1")]
    error = refused(lambda: models(channel).HandleReloadConfigRequest(_config(), metadata=metadata))
    assert error.code().name == "PERMISSION_DENIED"
    assert server.manager.asked == []


# ---- Classify, Regress, MultiInference ----


def _age(row: bytes) -> float:
    """What a graph's parse_example would take out of a row."""
    found: float = tf.train.Example.FromString(row).features.feature["age"].float_list.value[0]
    return found


def _run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    ages = np.array([_age(row) for row in inputs["inputs"]], np.float32)
    classes = np.empty((len(ages), 2), object)
    classes[:] = [[b"young", b"old"]] * len(ages)
    return {"classes": classes, "scores": np.stack([1 - ages / 100, ages / 100], 1), "outputs": ages[:, np.newaxis]}


@pytest.fixture
def estimator(server: Served) -> Any:
    classes = TensorSpec("classes", DType.STRING, (-1, 2))
    scores = TensorSpec("scores", DType.FP32, (-1, 2))
    value = TensorSpec("outputs", DType.FP32, (-1, 1))
    signatures = (
        Signature("serving_default", EXAMPLES, (classes, scores), CLASSIFY),
        Signature("scores", EXAMPLES, (scores,), CLASSIFY),
        Signature("regression", EXAMPLES, (value,), REGRESS),
    )
    return add(server.manager, "people", signatures, _run)


def _example(age: float | None) -> Any:
    example = tf.train.Example()
    example.features.feature["name"].bytes_list.value.append(b"n")
    if age is not None:
        example.features.feature["age"].float_list.value.append(age)
    return example


def _input(*ages: float | None, context: float | None = None) -> Any:
    if context is None:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[_example(age) for age in ages]))
    both = input_pb2.ExampleListWithContext(examples=[_example(age) for age in ages], context=_example(context))
    return input_pb2.Input(example_list_with_context=both)


def _classify(channel: Any, given: Any, signature: str = "", name: str = "people") -> Any:
    asked = classification_pb2.ClassificationRequest(input=given)
    asked.model_spec.name = name
    asked.model_spec.signature_name = signature
    return predictions(channel).Classify(asked)


@pytest.mark.usefixtures("estimator")
def test_classify(channel: Any) -> None:
    answer = _classify(channel, _input(25, 50))
    rows = [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications]
    assert rows == [[("young", 0.75), ("old", 0.25)], [("young", 0.5), ("old", 0.5)]]
    assert answer.model_spec.signature_name == "serving_default"
    assert answer.model_spec.version.value == 1
    unnamed = _classify(channel, _input(25), "scores")
    assert [(c.label, c.score) for c in unnamed.result.classifications[0].classes] == [("", 0.75), ("", 0.25)]


@pytest.mark.usefixtures("estimator")
def test_features_of_the_context_are_laid_under_each_example(channel: Any) -> None:
    answer = _classify(channel, _input(None, 50, context=100))
    assert [row.classes[1].score for row in answer.result.classifications] == [1.0, 0.5]


def _regress(channel: Any, given: Any, signature: str = "regression") -> Any:
    asked = regression_pb2.RegressionRequest(input=given)
    asked.model_spec.name = "people"
    asked.model_spec.signature_name = signature
    return predictions(channel).Regress(asked)


@pytest.mark.usefixtures("estimator")
def test_regress(channel: Any) -> None:
    answer = _regress(channel, _input(25, 50))
    assert [one.value for one in answer.result.regressions] == [25, 50]


@pytest.mark.usefixtures("estimator")
@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda c: _classify(c, input_pb2.Input()), "INVALID_ARGUMENT", "Input is empty."),
        (lambda c: _classify(c, _input()), "INVALID_ARGUMENT", "Input is empty."),
        (
            lambda c: _classify(c, _input(1), "regression"),
            "INVALID_ARGUMENT",
            "Expected classification signature outputs",
        ),
        (lambda c: _regress(c, _input(1), "scores"), "INVALID_ARGUMENT", "Expected regression signature outputs"),
        (lambda c: _classify(c, _input(1), "no"), "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        (lambda c: _classify(c, _input(1), name="digits"), "INVALID_ARGUMENT", "input size does not match signature"),
        (lambda c: _classify(c, _input(1), name="nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
    ],
)
def test_example_refusals(channel: Any, call: Any, code: str, text: str) -> None:
    error = refused(lambda: call(channel))
    assert error.code().name == code
    assert text in error.details()


def _multi(*tasks: tuple[str, str, str]) -> Any:
    asked = inference_pb2.MultiInferenceRequest(input=_input(25, 50))
    for name, signature, method in tasks:
        task = asked.tasks.add(method_name=method)
        task.model_spec.name = name
        task.model_spec.signature_name = signature
    return asked


@pytest.mark.usefixtures("estimator")
def test_multi_inference(channel: Any) -> None:
    asked = _multi(("people", "regression", REGRESS), ("people", "scores", CLASSIFY))
    first, second = predictions(channel).MultiInference(asked).results
    assert [one.value for one in first.regression_result.regressions] == [25, 50]
    assert first.model_spec.signature_name == "regression"
    assert second.classification_result.classifications[1].classes[0].score == 0.5


def test_tasks_that_fail_one_after_the_other(channel: Any, estimator: Any) -> None:
    """The second failure is about a call that has ended: it is logged, and nothing of the call is touched."""

    def fail(_inputs: Any) -> Any:
        raise ExecutionFailed("it broke")

    scheduler = estimator.scheduler
    scheduler.run, scheduler.holding = fail, True
    asked = _multi(("people", "regression", REGRESS), ("people", "scores", CLASSIFY))
    call = predictions(channel).MultiInference.future(asked)
    scheduler.wait_for(2)
    scheduler.step(1)
    assert call.exception(timeout=10).code().name == "INTERNAL"
    assert _status(channel, "people")  # the call has ended on the server's side, too
    scheduler.step(1)
    scheduler.run, scheduler.holding = _run, False
    assert _regress(channel, _input(25)).result.regressions[0].value == 25


@pytest.mark.usefixtures("estimator")
@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([], "INVALID_ARGUMENT", "at least one task"),
        ([("people", "a", REGRESS), ("digits", "b", REGRESS)], "INVALID_ARGUMENT", "must access the same model name"),
        (
            [("people", "a", REGRESS), ("people", "a", REGRESS)],
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: a",
        ),
        ([("people", "regression", "x")], "INVALID_ARGUMENT", "Unsupported method: 'x'"),
        ([("people", f"s{n}", REGRESS) for n in range(257)], "INVALID_ARGUMENT", "expected at most 256 tasks"),
        ([("people", "regression", REGRESS), ("people", "no", REGRESS)], "FAILED_PRECONDITION", '"no" not found'),
    ],
)
def test_multi_inference_refusals(channel: Any, tasks: Any, code: str, text: str) -> None:
    error = refused(lambda: predictions(channel).MultiInference(_multi(*tasks)))
    assert error.code().name == code
    assert text in error.details()
