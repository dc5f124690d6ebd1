"""Codecs of Classify, Regress and MultiInference: tf.Examples in, classes or values out.

The methods run signatures that take serialized Examples in the input "inputs", as exported estimators have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from inferd.backends.api import DEFAULT_SIGNATURE, Array
from inferd.server.errors import Code, ExecutionFailed, InvalidRequest
from inferd.server.inference.interfaces import Call, DecodedCall
from inferd.server.inference.plan import RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.protocols.common.answers import Answer, answer_of
from inferd.server.protocols.common.error_boundary import parse
from inferd.server.protocols.tfs.codec import TfsMethodCodec, priority_of
from inferd.server.protocols.tfs.error_messages import named
from inferd.server.scheduling.request import InferenceRequest
from inferd.tfs.v1 import prediction_service_pb2 as pb
from inferd.wire.tfs.fallback import spec_of

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_MAX_TASKS = 256  # each task names another signature, and no model has as many


class ExamplesCodec(TfsMethodCodec):
    """The base of the three codecs. Thread-safe. The `options` of its forms is the function that encodes an Answer."""

    def _asked(
        self,
        call: Call,
        model_spec: tuple[str, int | None, str | None, str],
        rows: Array,
        reply: Callable[[Answer], Any],
    ) -> DecodedCall:
        name, version, label, signature = model_spec
        priority = priority_of(call)
        form = self.forms.once(named(name), version, label, signature or DEFAULT_SIGNATURE, None, reply)
        inputs = {"inputs": rows}
        return DecodedCall(call, RequestTemplate(form), inputs, "", len(call.request), priority=priority)

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """See Codec."""
        return [group.template.form.options(answer_of(group, outputs))]


class ClassifyCodec(ExamplesCodec):
    """Reads and writes the messages of Classify: the classes of each example. Thread-safe."""

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        request = parse(pb.ClassificationRequest, call.request)
        rows = serialized(request.input)

        def reply(answer: Answer) -> bytes:
            result = classifications(answer.outputs, len(rows))
            return pb.ClassificationResponse(result=result, model_spec=spec(answer)).SerializeToString()

        return (self._asked(call, spec_of(request.model_spec), rows, reply),)


class RegressCodec(ExamplesCodec):
    """Reads and writes the messages of Regress: one value for each example. Thread-safe."""

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        request = parse(pb.RegressionRequest, call.request)
        rows = serialized(request.input)

        def reply(answer: Answer) -> bytes:
            result = regressions(answer.outputs, len(rows))
            return pb.RegressionResponse(result=result, model_spec=spec(answer)).SerializeToString()

        return (self._asked(call, spec_of(request.model_spec), rows, reply),)


class MultiInferenceCodec(ExamplesCodec):
    """Reads and writes the messages of MultiInference: several signatures of one model run on the same examples. All
    tasks use one servable, chosen by the version in the first task. Thread-safe."""

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        request = parse(pb.MultiInferenceRequest, call.request)
        tasks = _tasks(request)
        rows = serialized(request.input)
        first = spec_of(request.tasks[0].model_spec)
        gathered = _GatheredResults(call, len(tasks))
        return [
            self._asked(
                _TaskCall(gathered, place),
                (first[0], first[1], first[2], spec_of(task.model_spec)[3]),
                rows,
                partial(_result, task.method_name, len(rows)),
            )
            for place, task in enumerate(tasks)
        ]


def _result(method: str, count: int, answer: Answer) -> pb.InferenceResult:
    found = pb.InferenceResult(model_spec=spec(answer))
    if method == CLASSIFY:
        found.classification_result.CopyFrom(classifications(answer.outputs, count))
    else:
        found.regression_result.CopyFrom(regressions(answer.outputs, count))
    return found


class _GatheredResults:
    """Results of several tasks of one call, in the order of the tasks. Thread-safe."""

    def __init__(self, call: Call, count: int) -> None:
        self.call = call
        self._results = [pb.InferenceResult()] * count
        self._missing = count
        self._lock = Lock()

    def put(self, place: int, result: pb.InferenceResult) -> None:
        """Stores the result of task number `place`, and answers the call when all tasks have their result."""
        with self._lock:
            self._results[place] = result
            self._missing -= 1
            complete = self._missing == 0
        if complete:
            self.call.reply(pb.MultiInferenceResponse(results=self._results).SerializeToString())


class _TaskCall:
    """One task of a MultiInference call, as a call of its own. The first failing task fails the whole call."""

    def __init__(self, gathered: _GatheredResults, place: int) -> None:
        call = gathered.call
        self._gathered = gathered
        self._place = place
        self._call = call
        self.method = call.method
        self.request = call.request
        self.deadline = call.deadline
        self.peer = call.peer
        self.metadata = call.metadata
        self.certificate = call.certificate
        self.on_cancel = call.on_cancel

    def reply(self, result: pb.InferenceResult) -> None:
        self._gathered.put(self._place, result)

    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        self._call.fail(code, text, trailing)


def serialized(given: pb.Input) -> Array:
    """The serialized examples as an object array of bytes, shape [examples]. The features of a common context are added
    to each example, unless the example has a feature of that name. Raises InvalidRequest."""
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
