"""TensorFlow Serving's Classify, Regress and MultiInference with the real stubs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.foreign_models import add
from support.rpc import Served, eventually, refused

from inferd.backends.api import Signature, TensorSpec
from inferd.server.errors import ExecutionFailed
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
tf = pytest.importorskip("tensorflow")
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)

EXAMPLES = (TensorSpec("inputs", DType.STRING, (-1,)),)
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def predictions(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _age(row: bytes) -> float:
    """The feature "age" of a serialized Example, as a graph's parse_example would read it."""
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
def test_classify_returns_labels_and_scores(channel: Any) -> None:
    answer = _classify(channel, _input(25, 50))
    rows = [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications]
    assert rows == [[("young", 0.75), ("old", 0.25)], [("young", 0.5), ("old", 0.5)]]
    assert answer.model_spec.signature_name == "serving_default"
    assert answer.model_spec.version.value == 1
    unnamed = _classify(channel, _input(25), "scores")
    assert [(c.label, c.score) for c in unnamed.result.classifications[0].classes] == [("", 0.75), ("", 0.25)]


@pytest.mark.usefixtures("estimator")
def test_features_of_the_context_are_added_to_each_example(channel: Any) -> None:
    answer = _classify(channel, _input(None, 50, context=100))
    assert [row.classes[1].score for row in answer.result.classifications] == [1.0, 0.5]


def _regress(channel: Any, given: Any, signature: str = "regression") -> Any:
    asked = regression_pb2.RegressionRequest(input=given)
    asked.model_spec.name = "people"
    asked.model_spec.signature_name = signature
    return predictions(channel).Regress(asked)


@pytest.mark.usefixtures("estimator")
def test_regress_returns_values(channel: Any) -> None:
    answer = _regress(channel, _input(25, 50))
    assert [item.value for item in answer.result.regressions] == [25, 50]


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
def test_wrong_example_requests_are_refused(channel: Any, call: Any, code: str, text: str) -> None:
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
def test_multi_inference_runs_every_task(channel: Any) -> None:
    asked = _multi(("people", "regression", REGRESS), ("people", "scores", CLASSIFY))
    first, second = predictions(channel).MultiInference(asked).results
    assert [item.value for item in first.regression_result.regressions] == [25, 50]
    assert first.model_spec.signature_name == "regression"
    assert second.classification_result.classifications[1].classes[0].score == 0.5


def test_all_tasks_of_a_request_run_on_one_version(server: Served, channel: Any, estimator: Any) -> None:
    """Even if a new version comes into service between the tasks."""

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        newer = server.manager.available("people", 2)
        newer.signatures, newer.scheduler.run = estimator.signatures, _run
        return _run(inputs)

    estimator.scheduler.run = run
    asked = _multi(("people", "regression", REGRESS), ("people", "scores", CLASSIFY))
    answers = [predictions(channel).MultiInference(asked).results for _ in range(2)]
    assert [[result.model_spec.version.value for result in results] for results in answers] == [[1, 1], [2, 2]]
    eventually(lambda: all(servable.handles == 0 for servable in server.manager.servables.values()))


def test_a_second_failing_task_after_the_call_has_ended(channel: Any, estimator: Any) -> None:
    """The call has ended when the second task fails: the failure is logged, and the ended call is not touched."""

    def fail(_inputs: Any) -> Any:
        raise ExecutionFailed("it broke")

    scheduler = estimator.scheduler
    scheduler.run, scheduler.holding = fail, True
    asked = _multi(("people", "regression", REGRESS), ("people", "scores", CLASSIFY))
    call = predictions(channel).MultiInference.future(asked)
    scheduler.wait_for(2)
    scheduler.step(1)
    assert call.exception(timeout=10).code().name == "INTERNAL"
    status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "people"})
    model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        status
    )  # a round trip: the call has ended on the server, too
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
def test_wrong_multi_inference_requests_are_refused(channel: Any, tasks: Any, code: str, text: str) -> None:
    error = refused(lambda: predictions(channel).MultiInference(_multi(*tasks)))
    assert error.code().name == code
    assert text in error.details()
