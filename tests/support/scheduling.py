"""Fakes that the test steps: a model whose runs wait at a gate, and requests that remember their outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array, Independence, LoadError, Placement, Signature, TensorSpec, Traits
from inferd.server.config.schema import Batching, Queue
from inferd.server.scheduling.policies.cost_model import CostCurve
from inferd.server.scheduling.queue import Bucket
from inferd.server.scheduling.request import Callback, InferenceRequest, Route
from inferd.server.scheduling.scheduler import Scheduler
from inferd.wire.dtypes import DType

PATIENCE = 20.0  # seconds that a test waits for an event at most
F32 = DType.FP32


def signature(
    inputs: Mapping[str, tuple[DType, tuple[int, ...] | None]],
    outputs: Mapping[str, tuple[DType, tuple[int, ...] | None]],
    name: str = "f",
) -> Signature:
    return Signature(
        name,
        tuple(TensorSpec(key, *value) for key, value in inputs.items()),
        tuple(TensorSpec(key, *value) for key, value in outputs.items()),
    )


VECTOR = signature({"x": (F32, (-1, -1))}, {"y": (F32, (-1, -1))})
Function = Callable[[str, Mapping[str, Array]], dict[str, Array]]


def double(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2}


class Gate:
    """Makes runs wait. While it is closed, a run waits until `step` lets it go on, or until `open` lets all go on."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open = True
        self._passes = 0
        self._waiting = 0

    def close(self) -> None:
        with self._condition:
            self._open = False

    def open(self) -> None:
        with self._condition:
            self._open = True
            self._condition.notify_all()

    def step(self, runs: int = 1) -> None:
        with self._condition:
            self._passes += runs
            self._condition.notify_all()

    def arrive(self) -> None:
        with self._condition:
            self._waiting += 1
            self._condition.notify_all()
            passed = self._condition.wait_for(lambda: self._open or self._passes > 0, PATIENCE)
            self._waiting -= 1
            if not self._open:
                self._passes -= 1
            assert passed, "no step let a run go on"

    def wait_for_arrivals(self, runs: int = 1) -> None:
        """Waits until so many runs wait at the gate."""
        with self._condition:
            assert self._condition.wait_for(lambda: self._waiting >= runs, PATIENCE), "no run arrived"


class FakeModel:
    """A model that computes with `function` and records its runs. All its instances share one gate. It is proven to be
    batchable, unless the test changes `finding`."""

    finding: Independence | None = Independence(True)

    def __init__(
        self,
        function: Function = double,
        signatures: Sequence[Signature] = (VECTOR,),
        traits: Traits | None = None,
        *,
        unplaceable: str | None = None,
    ) -> None:
        self.function = function
        self.signatures = tuple(signatures)
        self.traits = traits or Traits()
        self.gate = Gate()
        self.unplaceable = unplaceable
        self.lock = threading.Lock()
        self.runs: list[tuple[str, dict[str, Array], tuple[str, ...] | None]] = []
        self.events: list[tuple[str, str]] = []  # (what, thread name)
        self.instances = 0

    def instance(self, placement: Placement) -> FakeInstance:
        if placement.device == self.unplaceable:
            raise LoadError(f"no device {placement.device}")
        with self.lock:
            self.instances += 1
        self.note("make")
        return FakeInstance(self)

    def independence(self, _signature: Signature) -> Independence | None:
        return self.finding

    def close(self) -> None:
        self.note("close model")

    def note(self, what: str) -> None:
        with self.lock:
            self.events.append((what, threading.current_thread().name))

    def forget(self) -> None:
        """Forgets the runs so far, for example those of the qualification."""
        with self.lock:
            self.runs.clear()

    @property
    def batches(self) -> list[int]:
        """The number of rows of the first input, for each run."""
        return [next(iter(inputs.values())).shape[0] for _, inputs, _ in self.runs]


class FakeInstance:
    def __init__(self, model: FakeModel) -> None:
        self.model = model

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        model = self.model
        with model.lock:
            model.runs.append((signature, dict(inputs), None if outputs is None else tuple(outputs)))
        model.gate.arrive()
        computed = model.function(signature, inputs)
        return computed if outputs is None else {name: computed[name] for name in outputs}

    def close(self) -> None:
        self.model.note("close instance")


class Call(InferenceRequest):
    """A request that remembers its outcome, and how often it was answered."""

    __slots__ = ("_ended", "expected", "outcomes")

    def __init__(
        self,
        inputs: dict[str, Array],
        signature: str = "f",
        wanted: tuple[str, ...] | None = None,
        rows: int = 0,
        queue_deadline: float | None = None,
        owned: bool = False,
        **options: Any,
    ) -> None:
        self.queue_deadline = queue_deadline
        self.owned = owned
        self._ended = threading.Event()
        self.outcomes = 0
        options.setdefault("nbytes", sum(array.nbytes for array in inputs.values()))
        super().__init__(Callback(self._done), Route(signature, wanted, rows=rows), inputs, **options)

    def _done(self, _request: InferenceRequest) -> None:
        self.outcomes += 1
        self._ended.set()

    def wait(self) -> Call:
        assert self._ended.wait(PATIENCE), "the request got no answer"
        return self

    def result(self) -> dict[str, Array]:
        self.wait()
        if self.error is not None:
            raise self.error
        assert self.outputs is not None
        return self.outputs


def vector(*values: float, width: int = 2, **options: Any) -> Call:
    """A request with one row for each value; the row is filled with the value."""
    return Call({"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}, **options)


def submit(scheduler: Any, request: InferenceRequest) -> None:
    """Hands a request to a scheduler. Raises what it is refused with."""
    for rejection in scheduler.submit((request,)):
        raise rejection.error()


def hold(model: FakeModel, scheduler: Scheduler) -> Call:
    """Occupies an instance, so that the requests that are submitted next wait."""
    model.gate.close()
    blocker = vector(0)
    submit(scheduler, blocker)
    model.gate.wait_for_arrivals()
    return blocker


class Recorder:
    """An observer that records batches and dropped requests."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: list[tuple[str, int, int]] = []
        self.drops: list[str] = []
        self.verifications: list[tuple[int, int]] = []

    def batch(self, signature: str, requests: Sequence[InferenceRequest], rows: int, compute_seconds: float) -> None:
        assert compute_seconds >= 0
        with self.lock:
            self.batches.append((signature, len(requests), rows))

    def dropped(self, reason: str) -> None:
        with self.lock:
            self.drops.append(reason)

    def verified(self, rows: int, different: int) -> None:
        with self.lock:
            self.verifications.append((rows, different))


def scheduler(
    model: Any,
    *,
    instances: int = 1,
    batching: Mapping[str, Any] | None = None,
    queue: Mapping[str, Any] | None = None,
    proven: bool = True,
    device: str = "cpu",
    **options: Any,
) -> Scheduler:
    """A started scheduler. `batching` and `queue`: settings, with times in seconds and sizes in bytes."""
    made = Scheduler(
        "m:1",
        model,
        [Placement(device) for _ in range(instances)],
        batching=Batching.model_construct(**{**Batching().model_dump(), **(batching or {})}),
        queue=Queue.model_construct(**{**Queue().model_dump(), **(queue or {})}),
        **options,
    )
    made.start()
    if proven:
        made.prove()
    if isinstance(model, FakeModel):
        model.forget()
    return made


def learn(bucket: Bucket, per_row: float, fixed: float = 0.0) -> None:
    """Replaces the measured costs of a bucket, so that the test knows the predictions."""
    bucket.cost = CostCurve()
    for _ in range(10):
        for rows in (1, 4, 8):
            bucket.cost.ran(rows, per_row * rows + fixed)
