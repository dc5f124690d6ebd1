"""Classify, Regress and MultiInference: the requests have Examples (named features), the responses classes or values.

The methods run signatures whose input "inputs" takes serialized Examples, like those of an exported estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import ExecutionFailed, InvalidRequest, ServingError
from inferd.server.inference.service import Answer, Query
from inferd.server.protocols.common.error_boundary import parse
from inferd.server.protocols.tfs.calls import PROTOCOL, Calls, checked_name
from inferd.server.transport.calls import UnaryCall
from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.wire.tensors import WireError
from inferd.wire.tfs.fallback import spec_of

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_MAX_TASKS = 256  # in one MultiInference; every task needs its own signature, and no model has that many


class Examples:
    """The three methods. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def classify(self, call: UnaryCall) -> None:
        """Classify: the classes of every example."""

        def reply(answer: Answer, count: int) -> bytes:
            result = classifications(answer.outputs, count)
            return pb.ClassificationResponse(result=result, model_spec=spec(answer)).SerializeToString()

        self._run(call, pb.ClassificationRequest, reply)

    def regress(self, call: UnaryCall) -> None:
        """Regress: a value for every example."""

        def reply(answer: Answer, count: int) -> bytes:
            result = regressions(answer.outputs, count)
            return pb.RegressionResponse(result=result, model_spec=spec(answer)).SerializeToString()

        self._run(call, pb.RegressionRequest, reply)

    def multi_inference(self, call: UnaryCall) -> None:
        """MultiInference: runs several signatures of one model on the same examples. All tasks run on the version of
        the first task, which is looked up once."""
        started = monotonic()
        try:
            request = parse(pb.MultiInferenceRequest, call.request)
            tasks = _tasks(request)
            rows = serialized(request.input)
            first = spec_of(request.tasks[0].model_spec)
            queries = [
                _query(call, (first[0], first[1], first[2], spec_of(task.model_spec)[3]), rows, started)
                for task in tasks
            ]
        except (WireError, ServingError) as error:
            self._calls.refuse(call, error, monotonic() - started)
            return
        results = _TaskResults(len(tasks))

        def done(place: int, answer: Answer) -> None:
            result = pb.InferenceResult(model_spec=spec(answer))
            if tasks[place].method_name == CLASSIFY:
                result.classification_result.CopyFrom(classifications(answer.outputs, len(rows)))
            else:
                result.regression_result.CopyFrom(regressions(answer.outputs, len(rows)))
            complete = results.put(place, result)
            if complete is not None:
                call.reply(pb.MultiInferenceResponse(results=complete).SerializeToString())

        try:
            self._calls.start_together(call, queries, done)
        except ServingError as error:
            self._calls.refuse(call, error, monotonic() - started)

    def _run(self, call: UnaryCall, kind: Any, reply: Callable[[Answer, int], bytes]) -> None:
        started = monotonic()
        try:
            request = parse(kind, call.request)
            rows = serialized(request.input)
            query = _query(call, spec_of(request.model_spec), rows, started)
        except (WireError, ServingError) as error:
            self._calls.refuse(call, error, monotonic() - started)
            return
        self._calls.run(call, query, lambda answer: reply(answer, len(rows)))


class _TaskResults:
    """The results of several tasks, in the order of the tasks. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._results = [pb.InferenceResult()] * count
        self._missing = count
        self._lock = Lock()

    def put(self, place: int, result: pb.InferenceResult) -> list[pb.InferenceResult] | None:
        """Stores a result. Returns all results if this was the last one missing, else None."""
        with self._lock:
            self._results[place] = result
            self._missing -= 1
            return self._results if self._missing == 0 else None


def serialized(given: pb.Input) -> Array:
    """The examples, serialized, as a string array of shape [examples]. The features of a common context are added to
    each example; the example's own features win. Raises InvalidRequest."""
    kind = given.WhichOneof("kind")
    if kind == "example_list":
        rows = [example.SerializeToString() for example in given.example_list.examples]
    elif kind == "example_list_with_context":
        context = given.example_list_with_context.context
        rows = []
        for example in given.example_list_with_context.examples:
            merged = type(example)()
            merged.CopyFrom(context)
            merged.MergeFrom(example)
            rows.append(merged.SerializeToString())
    else:
        raise InvalidRequest("Input is empty.")
    if not rows:
        raise InvalidRequest("Input is empty.")
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def classifications(outputs: dict[str, Array], count: int) -> pb.ClassificationResult:
    """The result for the outputs "classes" and "scores" of `count` examples; one of the two may be missing. Raises
    InvalidRequest, ExecutionFailed."""
    labels, scores = outputs.get("classes"), outputs.get("scores")
    if labels is None and scores is None:
        raise InvalidRequest(
            'Expected classification signature outputs to contain at least one of "classes" or "scores", '
            f"got {', '.join(map(repr, outputs))}"
        )
    names = None if labels is None else _rows("classes", labels, count)
    values = None if scores is None else _rows("scores", scores, count)
    if names is not None and values is not None and names.shape != values.shape:
        raise ExecutionFailed(f"classes have shape {list(names.shape)}, scores {list(values.shape)}")
    width = names.shape[1] if names is not None else values.shape[1] if values is not None else 0
    return pb.ClassificationResult(
        classifications=[
            pb.Classifications(
                classes=[
                    pb.Class(
                        label="" if names is None else _text(names[row, column]),
                        score=0.0 if values is None else float(values[row, column]),
                    )
                    for column in range(width)
                ]
            )
            for row in range(count)
        ]
    )


def regressions(outputs: dict[str, Array], count: int) -> pb.RegressionResult:
    """The result for the output "outputs" of `count` examples. Raises InvalidRequest, ExecutionFailed."""
    values = outputs.get("outputs")
    if values is None:
        raise InvalidRequest(
            f'Expected regression signature outputs to contain "outputs", got {", ".join(map(repr, outputs))}'
        )
    column = _rows("outputs", values, count)
    if column.shape[1] != 1:
        raise ExecutionFailed(f'Expected output "outputs" to hold one value per example, got {column.shape[1]}')
    return pb.RegressionResult(regressions=[pb.Regression(value=float(value)) for value in column[:, 0]])


def spec(answer: Answer) -> pb.ModelSpec:
    """The model, version and signature that answered."""
    model_spec = pb.ModelSpec(name=answer.id.name, signature_name=answer.signature)
    model_spec.version.value = answer.id.version
    return model_spec


def _rows(name: str, array: Array, count: int) -> Array:
    if array.ndim == 0 or len(array) != count:
        raise ExecutionFailed(f"expected output {name!r} to have {count} rows, got shape {list(array.shape)}")
    return array.reshape(count, -1)


def _text(item: Any) -> str:
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def _query(call: UnaryCall, model_spec: tuple[str, int | None, str | None, str], rows: Array, started: float) -> Query:
    name, version, label, signature = model_spec
    model, priority = checked_name(name, call)
    inputs = {"inputs": rows}
    nbytes = len(call.request)
    return Query(PROTOCOL, model, version, label, signature, inputs, (), priority, None, call.deadline, nbytes, started)


def _tasks(request: pb.MultiInferenceRequest) -> list[pb.InferenceTask]:
    tasks = list(request.tasks[:_MAX_TASKS])
    if not tasks:
        raise InvalidRequest("Inference request must have at least one task.")
    if len(request.tasks) > _MAX_TASKS:
        raise InvalidRequest(f"expected at most {_MAX_TASKS} tasks in a request, got {len(request.tasks)}")
    names = {task.model_spec.name for task in tasks}
    if len(names) > 1:
        raise InvalidRequest(f"All ModelSpecs in a MultiInferenceRequest must access the same model name, got {names}")
    signatures = [task.model_spec.signature_name for task in tasks]
    if len(set(signatures)) < len(signatures):
        raise InvalidRequest(f"Duplicate evaluation of signature: {max(signatures, key=signatures.count)}")
    for task in tasks:
        if task.method_name not in (CLASSIFY, REGRESS):
            raise InvalidRequest(f"Unsupported method: {task.method_name!r:.100}; expected {CLASSIFY!r} or {REGRESS!r}")
    return tasks
