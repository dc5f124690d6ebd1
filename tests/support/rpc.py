"""Fakes for tests of the gRPC protocols: a manager with models that can be stepped, metrics that remember, and a server
with a real transport on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
import pytest

from inferd.backends.api import Signature, TensorSpec
from inferd.server.access.method_rules import SERVICES
from inferd.server.access.tls import TlsFiles
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import InvalidRequest, NotFound, ServingError, Unavailable
from inferd.server.inference.inflight import InflightBounds
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.state import ModelStatus, PublishedOverride, ServableId, State, StateChange, VersionStatus
from inferd.server.protocols.common.health import Health
from inferd.server.repository.configured_models import ConfiguredModel
from inferd.server.scheduling.rejection import Rejection, invalid
from inferd.server.scheduling.request import InferenceRequest
from inferd.server.transport.calls import MethodTable, Transport
from inferd.server.transport.completion_queue import transport as cq
from inferd.server.transport.completion_queue.transport import CompletionQueueTransport
from inferd.server.transport.grpc_aio import transport as public
from inferd.server.transport.grpc_aio.transport import PublicTransport
from inferd.server.transport.listen import Address
from inferd.wire.dtypes import DType
from inferd.wire.native import DecodedResponse, decode_response, encode_request

ANY = TensorSpec("x", DType.FP32, (-1, -1))
DOUBLE = Signature("serving_default", (ANY,), (replace(ANY, name="y"), replace(ANY, name="z")))


def double(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """y = 2x, z = x."""
    return {"y": inputs["x"] * 2, "z": inputs["x"].copy()}


class FakeScheduler:
    """Runs requests at once on the caller's thread, or holds them until `step`."""

    def __init__(self, run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] = double) -> None:
        self.run = run
        self.holding = False
        self.held: list[InferenceRequest] = []
        self.arrived = threading.Semaphore(0)
        self.refusal: Exception | None = None
        self.cancelled = threading.Event()
        self._lock = threading.Lock()

    def submit(self, requests: Sequence[InferenceRequest], *, alike: bool = False) -> list[Rejection]:
        if isinstance(self.refusal, ServingError):
            return [invalid(request, self.refusal) for request in requests]
        if self.refusal is not None:
            raise self.refusal
        for request in requests:
            self._take(request)
        return []

    def route(self, signature: str, wanted: tuple[str, ...] | None, inputs: Mapping[str, np.ndarray]) -> None:
        return None

    def _take(self, request: InferenceRequest) -> None:
        request.enqueued_at = time.monotonic()
        with self._lock:
            if self.holding:
                request.place = self
                self.held.append(request)
                self.arrived.release()
                return
        self._execute(request)

    def discard(self, request: InferenceRequest) -> None:
        self.held.remove(request)
        self.cancelled.set()

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Waits until `count` more requests are held."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=timeout), "the request did not reach the scheduler"

    def release(self) -> None:
        """Executes the held requests, and holds no further ones."""
        with self._lock:
            self.holding = False
        self.step()

    def step(self, count: int | None = None) -> None:
        """Executes held requests, oldest first, on this thread."""
        for _ in range(len(self.held) if count is None else count):
            request = self.held.pop(0)
            request.place = None
            self._execute(request)

    def _execute(self, request: InferenceRequest) -> None:
        started = request.started_at = time.monotonic()
        try:
            outputs = self.run(request.inputs)
        except ServingError as error:
            request.fail(error)
            return
        request.succeed({k: v for k, v in outputs.items() if request.wanted is None or k in request.wanted}, started)


@dataclass
class FakeServable:
    id: ServableId
    signatures: dict[str, Signature] = field(default_factory=lambda: {DOUBLE.name: DOUBLE})
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)
    backend: str = "fake"
    max_batch_size: int = 32
    stateful: bool = False
    default_priority: int = 1
    default_signature: str = "serving_default"
    handles: int = 0
    plans: dict[object, Any] = field(default_factory=dict)
    serves: bool = True
    ensemble: tuple[Any, ...] = ()
    class_labels: Mapping[str, Sequence[str]] | None = None
    settings: Any = None


class FakeHandle:
    def __init__(self, servable: FakeServable) -> None:
        self.servable = servable
        self.released = False
        servable.handles += 1

    def another(self) -> FakeHandle:
        return FakeHandle(self.servable)

    def release(self) -> None:
        assert not self.released, "released twice"
        self.released = True
        self.servable.handles -= 1


class FakeManager:
    """A manager without a lifecycle: tests make versions available (`available`) and change their state (`change`)."""

    def __init__(self) -> None:
        self.servables: dict[ServableId, FakeServable] = {}
        self.states: dict[ServableId, VersionStatus] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.configured_models: dict[str, ConfiguredModel] = {}
        self.overrides: list[PublishedOverride] = []
        self.subscribers: list[Callable[[StateChange], None]] = []
        self.persistent = False
        self.asked: list[tuple[Any, ...]] = []
        self.hold_admin: Future[ModelStatus] | None = None
        self.crash: Exception | None = None
        self.errors: tuple[str, ...] = ()
        self._ready = True
        self._ready_fns: list[Callable[[], None]] = []
        self.available("digits", 1)

    # methods for tests
    def available(self, name: str, version: int) -> FakeServable:
        key = ServableId(name, version)
        servable = self.servables[key] = FakeServable(key)
        self.change(VersionStatus(key, State.AVAILABLE, backend="fake", devices=("cpu",), changed_at=time.time()))
        return servable

    def change(self, status: VersionStatus) -> None:
        self.states[status.id] = status
        if status.state is not State.AVAILABLE:
            self.servables.pop(status.id, None)
        for fn in list(self.subscribers):
            fn(StateChange(status))

    def set_ready(self, ready: bool) -> None:
        self._ready = ready
        if ready:
            for fn in self._ready_fns:
                fn()

    # methods of the manager
    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> FakeHandle:
        if self.crash is not None:
            raise self.crash
        if label is not None:
            version = self.labels.get(name, {}).get(label)
            if version is None:
                raise NotFound(f"model {name!r} has no label {label!r}")
        known = sorted((key.version for key in self.servables if key.name == name), reverse=True)
        if version is None and known:
            version = known[0]
        found = self.servables.get(ServableId(name, version or 0))
        if found is not None:
            return FakeHandle(found)
        status = self.states.get(ServableId(name, version or 0))
        if status is not None and status.state is State.LOADING:
            raise Unavailable(f"{status.id} is loading")
        raise NotFound(f"model {name!r} version {version} is not served")

    def serving(self, name: str, version: int | None = None, label: str | None = None) -> FakeServable | None:
        try:
            handle = self.acquire(name, version, label)
        except NotFound:
            return None
        handle.release()
        return handle.servable

    def models(self) -> tuple[ModelStatus, ...]:
        return tuple(self.status(name) for name in sorted({key.name for key in self.states}))

    def status(self, name: str) -> ModelStatus:
        versions = sorted((s for s in self.states.values() if s.id.name == name), key=lambda s: -s.id.version)
        if not versions:
            raise NotFound(f"there is no model {name!r}")
        return ModelStatus(name, tuple(versions), self.labels.get(name, {}), tuple(self.overrides), "", "latest(1)")

    def subscribe(self, fn: Callable[[StateChange], None]) -> Callable[[], None]:
        self.subscribers.append(fn)
        return lambda: self.subscribers.remove(fn)

    def ready(self) -> bool:
        return self._ready

    def on_ready(self, fn: Callable[[], None]) -> None:
        self._ready_fns.append(fn)

    def _admin(self, name: str, *asked: Any) -> Future[ModelStatus]:
        self.asked.append(asked)
        if self.hold_admin is not None:
            return self.hold_admin
        future: Future[ModelStatus] = Future()
        try:
            future.set_result(self.status(name))
        except NotFound as error:
            future.set_exception(error)
        return future

    def load(
        self, name: str, version: int | None = None, *, by: str, replacement: Replacement | None = None
    ) -> Future[ModelStatus]:
        return self._admin(name, "load", name, version, *(() if replacement is None else (replacement,)))

    def unload(self, name: str, version: int | None = None, *, by: str) -> Future[ModelStatus]:
        return self._admin(name, "unload", name, version)

    def set_label(self, name: str, label: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        return self._admin(name, "label", name, label, version)

    def rollback(self, name: str, to: int | None = None, *, by: str) -> Future[ModelStatus]:
        return self._admin(name, "rollback", name, to)

    def repository_errors(self) -> tuple[str, ...]:
        return self.errors

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], *, by: str
    ) -> tuple[Future[ModelStatus], ...]:
        before, self.configured_models = self.configured_models, dict(models)
        changed = [name for name in models if before.get(name) != models[name]]
        for name in changed:
            if (models[name].base_path / "1").is_dir():
                self.available(name, 1)
        return tuple(self._admin(name, "named", name) for name in changed)


class FakeMetrics:
    """Metrics that remember what was counted: (model, version or None, protocol, code)."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, int | None, str, str]] = []
        self._changed = threading.Condition()

    def model(self, name: str, version: int) -> _OneModel:
        return _OneModel(self, name, version)

    def unknown(self, protocol: str, code: str, seconds: float) -> None:
        self._add("", None, protocol, code)

    def _add(self, name: str, version: int | None, protocol: str, code: str) -> None:
        with self._changed:
            self.counted.append((name, version, protocol, code))
            self._changed.notify_all()

    def wait_for(self, entry: tuple[str, int | None, str, str], timeout: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: entry in self.counted, timeout), self.counted


class _OneModel:
    def __init__(self, metrics: FakeMetrics, name: str, version: int) -> None:
        self._args = (metrics, name, version)

    def request(
        self, protocol: str, code: str, seconds: float, queue_seconds: float = 0.0, compute_seconds: float = 0.0
    ) -> None:
        metrics, name, version = self._args
        assert min(seconds, queue_seconds, compute_seconds) >= 0
        metrics._add(name, version, protocol, code)

    def requests(self, protocol: str, count: int, seconds: float, queue_seconds: float, compute_seconds: float) -> None:
        for _ in range(count):
            self.request(protocol, "OK", seconds, queue_seconds, compute_seconds)

    def refused(self, protocol: str, code: str, count: int, seconds: float) -> None:
        for _ in range(count):
            self.request(protocol, code, seconds)


def check(_id: ServableId, signature: Signature, inputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> None:
    """A simple request check: the names of inputs and outputs only."""
    expected = {spec.name for spec in signature.inputs}
    if set(inputs) != expected:
        raise InvalidRequest(f"expected inputs {sorted(expected)}, got {sorted(inputs)}")
    for name in wanted:
        if name not in {spec.name for spec in signature.outputs}:
            raise InvalidRequest(f"there is no output {name!r}")


# ---- a server ----

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"
TRANSPORTS: dict[str, Callable[..., Transport]] = {"public": PublicTransport, "cq": CompletionQueueTransport}
"""The transports by name; they are made with (table, config, inflight, addresses). Every test of a protocol runs with
each of them."""


class Served:
    """A gRPC server on a free port of this machine, and channels to it. `kind`: the name of its transport."""

    def __init__(
        self,
        kind: str,
        *,
        manager: FakeManager | None = None,
        config: ServerConfig | None = None,
        addresses: Sequence[str] = ("127.0.0.1:0",),
        table: MethodTable | None = None,
        metrics: FakeMetrics | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.manager = manager or FakeManager()
        self.metrics = metrics or FakeMetrics()
        self.config = config or ServerConfig()
        self.inflight = InflightBounds(self.config.inflight)
        self.health = Health(self.manager, SERVICES)
        self.table = table or build_method_table(
            self.manager, self.metrics, self.config, inflight=self.inflight, health=self.health, check=check
        )
        wanted = [Address(text) for text in addresses]
        self.transport = TRANSPORTS[kind](self.table, self.config, self.inflight, wanted, tls=tls)
        self.addresses = self.transport.start()
        self.address = self.addresses[0]
        self._channels: list[grpc.Channel] = []

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def scheduler(self) -> FakeScheduler:
        return self.manager.servables[ServableId("digits", 1)].scheduler

    def channel(self, credentials: grpc.ChannelCredentials | None = None, **options: Any) -> grpc.Channel:
        # By default, gRPC shares connections between channels with equal arguments.
        arguments = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        arguments += [(f"grpc.{key}", value) for key, value in options.items()]
        if credentials is None:
            channel = grpc.insecure_channel(self.address, arguments)
        else:
            channel = grpc.secure_channel(self.address, credentials, arguments)
        self._channels.append(channel)
        return channel

    def predict(self, x: Any = ((1.0, 2.0),), **kwargs: Any) -> DecodedResponse:
        """Sends one request on a new channel."""
        call = self.channel().unary_unary(PREDICT)
        return decode_response(call(request(x, **kwargs), timeout=30))

    def stop(self, grace: float = 10.0) -> bool:
        drained = self.transport.stop(grace)
        for channel in self._channels:
            channel.close()
        return drained

    def end(self) -> None:
        """Stops the server at the end of a test. Nothing calls it any more, so it need not refuse late calls first."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (cq, public):
                patch.setattr(module, "REFUSING", 0.0)
            self.stop(0.5)


def request(x: Any = ((1.0, 2.0),), *, name: str = "digits", **kwargs: Any) -> bytes:
    """A PredictRequest for the fake model."""
    return encode_request(name, {"x": np.asarray(x, np.float32)}, **kwargs)


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    """The error with which a call fails. Fails the test if the call succeeds."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def trailing(error: grpc.RpcError) -> dict[str, str]:
    return {item.key: item.value for item in error.trailing_metadata()}


def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Waits for a condition that no event announces."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.005)
