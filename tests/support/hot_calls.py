"""Calls of prediction methods as a transport passes them on, and a server with one model whose event loop is the test's
thread."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
from support import rpc
from support.scheduling import PATIENCE, FakeModel, Recorder, scheduler

from inferd.backends.api import Array, Signature, TensorSpec, Traits
from inferd.oip.v1 import infer_pb2
from inferd.server.access.rules import make_access_rules
from inferd.server.composition.grpc_methods import PREDICT, build_method_table
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.inflight import InflightBounds
from inferd.server.observability.model_metrics import ModelMetrics
from inferd.server.scheduling.inline import InlineLoop
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.wire.dtypes import DType
from inferd.wire.native import decode_response, encode_request

INFER = "/inference.GRPCInferenceService/ModelInfer"
TFS_PREDICT = "/tensorflow.serving.PredictionService/Predict"
X = TensorSpec("x", DType.FP32, (-1, 2))
DOUBLE = Signature("serving_default", (X,), (replace(X, name="y"),))
LIMIT = 8
DEMANDING: dict[str, dict[str, Any]] = {
    "writes": {"traits": Traits(bounded=True, concurrent=True, may_write_inputs=True)},
    "aligned": {"traits": Traits(bounded=True, concurrent=True, alignment=64)},
    "delay": {"batching": {"max_queue_delay": 0.001}},
    "unbatched": {"batching": {"mode": "off"}},
    "padded": {
        "batching": {"padding": {"x": [4]}},
        "signature": replace(DOUBLE, inputs=(replace(X, shape=(-1, -1)),)),
    },
    "not bounded": {"traits": Traits()},
}
"""Models whose inputs cannot be joined by concatenation alone: their requests take no fast path."""


class FakeCall:
    """A call that has been received, and its answer."""

    peer = "ipv4:127.0.0.1:5000"
    cancelled = False
    names: tuple[str, ...] = ()
    """The names in the client's certificate."""

    def __init__(self, request: bytes, method: str = PREDICT, **metadata: str) -> None:
        self.method = method
        self.request = request
        self.deadline: float | None = None
        self._metadata = metadata
        self._told = threading.Event()
        self.message: bytes | None = None
        self.failed: tuple[Code, str] | None = None

    def metadata(self, key: str) -> str | None:
        return self._metadata.get(key.replace("-", "_"))

    def certificate(self) -> tuple[str, ...]:
        return self.names

    def on_cancel(self, fn: Callable[[], None]) -> None:
        self.cancel = fn

    def reply(self, message: bytes) -> None:
        assert not self._told.is_set()
        self.message = message
        self._told.set()

    def fail(self, code: Code, text: str, trailing: object = ()) -> None:
        assert not self._told.is_set()
        self.failed = (code, text)
        self.trailing = trailing
        self._told.set()

    @property
    def told(self) -> bool:
        return self._told.is_set()

    def wait(self) -> FakeCall:
        assert self._told.wait(PATIENCE), "the call got no answer"
        return self

    @property
    def y(self) -> list[float]:
        """The first column of the answer."""
        self.wait()
        assert self.message is not None, self.failed
        return list(decode_response(self.message).outputs["y"][:, 0])


class Metrics(rpc.FakeMetrics):
    """Metrics with real counters for each model."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, ModelMetrics] = {}

    def model(self, name: str, version: int) -> Any:
        return self.models.setdefault(name, ModelMetrics(name, str(version)))


class Server:
    """One model behind the real method table. The calling thread is the event loop."""

    def __init__(self, model: FakeModel, **options: Any) -> None:
        self.model = model
        self.recorder = Recorder()
        self.loop = InlineLoop(options.pop("clock", monotonic))
        self.loop.enter()
        config = options.pop("config", None) or ServerConfig()
        self.rules = make_access_rules(config)
        batching = {"max_batch_size": LIMIT, **options.pop("batching", {})}
        self.scheduler = scheduler(model, batching=batching, observer=self.recorder, loop=self.loop, **options)
        self.scheduler._budget.clock = lambda: 0.0  # a busy machine must not take the model off the loop
        self.manager = rpc.FakeManager()
        self.servable = self.manager.available("digits", 1)
        self.servable.signatures = {DOUBLE.name: model.signatures[0]}
        self.servable.scheduler = self.scheduler  # type: ignore[assignment]
        self.metrics = Metrics()
        self.inflight = InflightBounds(config.inflight)
        self.table = build_method_table(
            self.manager,  # type: ignore[arg-type]
            self.metrics,
            config,
            inflight=self.inflight,
            check=rpc.check,
            rules=self.rules,
        )

    def trust(self, method: str = PREDICT, request: bytes | None = None, **metadata: str) -> None:
        """Runs as many batches as are needed until the model may run on the event loop."""
        request = encode_request("digits", {"x": rows(0)}) if request is None else request
        for _ in range(17):
            call = FakeCall(request, method, **metadata)
            self.table.unary[method]((call,), monotonic())
            self.loop.turn()
            call.wait()
        self.model.forget()
        self.recorder.batches.clear()

    def hand_over(self, *calls: FakeCall, only: bool = False) -> list[FakeCall]:
        """Hands the calls over as the transport does, and takes the turn. Gives those not answered by then. `only`: it
        is the only call in flight."""
        self.loop.only = only
        for handler, group in itertools.groupby(calls, key=lambda call: self.table.unary[call.method]):
            handler(list(group), monotonic())
        self.loop.turn()
        self.loop.only = False
        return [call for call in calls if not call.told]

    def alone(self, call: FakeCall) -> bool:
        """Hands over the only call in flight. Gives whether it was answered within the turn."""
        return not self.hand_over(call, only=True)

    def count(self, protocol: str = "grpc", code: str = "OK") -> int:
        return self.metrics.models["digits"].snapshot().requests.get((protocol, code), 0)


def double(_signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2}


def rows(*values: float) -> Array:
    return np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)


def ask(*values: float, **options: Any) -> FakeCall:
    return FakeCall(encode_request("digits", {"x": rows(*values)}, **options))


def infer(*values: float, request_id: str = "", **fields: Any) -> FakeCall:
    x = rows(*values)
    request = infer_pb2.ModelInferRequest(model_name="digits", id=request_id, **fields)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return FakeCall(request.SerializeToString(), INFER)


def classic(*values: float, **metadata: str) -> FakeCall:
    x = rows(*values)
    request = tfs_pb.PredictRequest(model_spec={"name": "digits", "signature_name": DOUBLE.name})
    tensor = request.inputs["x"]
    tensor.dtype = 1
    for size in x.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = x.tobytes()
    return FakeCall(request.SerializeToString(), TFS_PREDICT, **metadata)


@contextlib.contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """Yields a function that starts a server. All servers are closed at the end of the `with` block."""
    made: list[Server] = []

    def start(function: Callable[..., dict[str, Array]] | None = None, **options: Any) -> Server:
        signature = options.pop("signature", DOUBLE)
        traits = options.pop("traits", Traits(bounded=True, concurrent=True))
        model = FakeModel(function or double, (signature,), traits)
        model.finding = options.pop("finding", model.finding)
        made.append(Server(model, **options))
        return made[-1]

    yield start
    for server in made:
        server.loop.leave()
        server.scheduler.close()
