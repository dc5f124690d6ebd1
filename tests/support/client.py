"""A fake inferd.v1 server for the tests of the client: a real gRPC server on a real port, whose answers are scripted.

FakeServer      the server, a context manager; its Script says what it answers and records what it receives
make_chain      certificates, made with the openssl command
"""

from __future__ import annotations

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inferd.v1 import model_service_pb2 as ms
from inferd.v1 import model_service_pb2_grpc, predict_service_pb2_grpc, tensor_pb2
from inferd.v1 import predict_service_pb2 as ps

LONG = 30.0  # seconds; a test reaches this limit only if something hangs


@dataclass
class Failure:
    """The failure of one call."""

    code: grpc.StatusCode
    text: str = "scripted"
    trailing: tuple[tuple[str, str], ...] = ()
    drop: bool = False  # end the connection in the middle of the call instead of answering
    nameless: bool = False  # in a stream: without the id of the request


def f32_signature(name: str = "serving_default", dtype: int = tensor_pb2.DATA_TYPE_FP32) -> tensor_pb2.Signature:
    return tensor_pb2.Signature(
        name=name,
        inputs=[tensor_pb2.TensorSpec(name="x", dtype=dtype, shape=[-1, 2])],
        outputs=[tensor_pb2.TensorSpec(name="y", dtype=dtype, shape=[-1, 2])],
    )


@dataclass
class Script:
    """What the server answers, and what it has received. Change it only before the call that it is meant for.

    failures         of the next calls, one for each
    hold             called while a request is in flight
    refuse           decides whether a request fails, if `failures` is empty
    peers            addresses of the callers of predictions
    metadata_code    status with which GetModelMetadata fails; None: it answers
    """

    failures: deque[Failure] = field(default_factory=deque)
    version: int = 3
    signatures: list[tensor_pb2.Signature] = field(default_factory=lambda: [f32_signature()])
    stateful: bool = False
    hold: Callable[[ps.PredictRequest], None] = lambda request: None
    refuse: Callable[[ps.PredictRequest], Failure | None] = lambda request: None
    requests: list[ps.PredictRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    admin: list[Any] = field(default_factory=list)
    admin_failures: deque[Failure] = field(default_factory=deque)
    cancelled: threading.Event = field(default_factory=threading.Event)
    metadata_code: grpc.StatusCode | None = None
    persistent: bool = False


class _Predict(predict_service_pb2_grpc.PredictServiceServicer):
    def __init__(self, script: Script, server: FakeServer) -> None:
        self.script = script
        self.server = server

    def Predict(self, request: ps.PredictRequest, context: grpc.ServicerContext) -> ps.PredictResponse:
        script = self.script
        script.requests.append(request)
        script.metadata.append(dict(context.invocation_metadata()))
        script.calls.append("Predict")
        script.peers.append(context.peer())
        failure = script.failures.popleft() if script.failures else script.refuse(request)
        if failure is not None:
            if failure.drop:
                self.server.drop()
            context.set_trailing_metadata(failure.trailing)
            context.abort(failure.code, failure.text)
        context.add_callback(script.cancelled.set)
        script.hold(request)
        return self.answer(request)

    def PredictStream(
        self, request_iterator: Iterator[ps.PredictRequest], context: grpc.ServicerContext
    ) -> Iterator[ps.PredictStreamResponse]:
        script = self.script
        script.calls.append("PredictStream")
        script.metadata.append(dict(context.invocation_metadata()))
        for request in request_iterator:
            script.requests.append(request)
            if script.failures and script.failures[0].drop:
                failure = script.failures.popleft()
                context.abort(failure.code, failure.text)
            failure = script.failures.popleft() if script.failures else script.refuse(request)
            if failure is not None:
                yield ps.PredictStreamResponse(
                    request_id="" if failure.nameless else request.request_id,
                    error=ps.StreamError(code=failure.code.value[0], message=failure.text),
                )
                continue
            script.hold(request)
            yield ps.PredictStreamResponse(request_id=request.request_id, response=self.answer(request))

    def answer(self, request: ps.PredictRequest) -> ps.PredictResponse:
        """A response whose outputs are the inputs; the output of "x" is called "y"."""
        outputs = []
        for tensor in request.inputs:
            out = tensor_pb2.Tensor()
            out.CopyFrom(tensor)
            out.name = "y" if tensor.name == "x" else tensor.name
            if not request.outputs or out.name in request.outputs:
                outputs.append(out)
        version = request.model.version if request.model.WhichOneof("choice") == "version" else self.script.version
        return ps.PredictResponse(
            model_name=request.model.name,
            version=version,
            signature=request.model.signature or "serving_default",
            outputs=outputs,
            request_id=request.request_id,
        )


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def _status(self, name: str) -> ms.ModelStatus:
        return ms.ModelStatus(
            name=name,
            versions=[
                ms.VersionStatus(
                    version=3,
                    state=ms.VERSION_STATE_AVAILABLE,
                    generation=2,
                    backend="onnx",
                    devices=["cpu"],
                    batching="up to 32 rows",
                    load_seconds=0.5,
                    changed_unix_ms=1_700_000_000_000,
                    labels=["stable"],
                    notes=["a note"],
                ),
                ms.VersionStatus(version=2, state=ms.VERSION_STATE_FAILED, error="truncated file"),
            ],
            labels={"stable": 3},
            overrides=[ms.Override(kind="pinned", value="3", by="op", since_unix_ms=1_700_000_000_000)],
            version_policy="latest(1)",
        )

    def _admin(self, request: Any, context: grpc.ServicerContext) -> None:
        self.script.calls.append(type(request).__name__)
        self.script.admin.append(request)
        if self.script.admin_failures:
            failure = self.script.admin_failures.popleft()
            context.set_trailing_metadata(failure.trailing)
            context.abort(failure.code, failure.text)

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> ms.ListModelsResponse:
        self._admin(request, context)
        return ms.ListModelsResponse(models=[self._status("a"), self._status("b")])

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> ms.GetModelStatusResponse:
        self._admin(request, context)
        if request.name == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no model 'missing'")
        return ms.GetModelStatusResponse(model=self._status(request.name))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> ms.GetModelMetadataResponse:
        self._admin(request, context)
        if self.script.metadata_code is not None:
            context.abort(self.script.metadata_code, "scripted")
        return ms.GetModelMetadataResponse(
            name=request.name,
            version=self.script.version,
            backend="onnx",
            signatures=self.script.signatures,
            max_batch_size=32,
            stateful=self.script.stateful,
        )

    def WatchModels(self, request: Any, context: grpc.ServicerContext) -> Iterator[ms.WatchModelsResponse]:
        self._admin(request, context)
        context.add_callback(self.script.cancelled.set)
        status = self._status(request.name or "a")
        for version in status.versions:
            yield ms.WatchModelsResponse(name=status.name, version=version, initial=True)
        yield ms.WatchModelsResponse(
            name=status.name, version=ms.VersionStatus(version=4, state=ms.VERSION_STATE_LOADING)
        )
        if request.name == "endless":
            self.script.cancelled.wait(LONG)

    def LoadModel(self, request: Any, context: grpc.ServicerContext) -> ms.LoadModelResponse:
        self._admin(request, context)
        return ms.LoadModelResponse(model=self._status(request.name), persistent=self.script.persistent)

    def UnloadModel(self, request: Any, context: grpc.ServicerContext) -> ms.UnloadModelResponse:
        self._admin(request, context)
        return ms.UnloadModelResponse(model=self._status(request.name), persistent=self.script.persistent)

    def SetLabel(self, request: Any, context: grpc.ServicerContext) -> ms.SetLabelResponse:
        self._admin(request, context)
        return ms.SetLabelResponse(model=self._status(request.name), persistent=self.script.persistent)

    def Rollback(self, request: Any, context: grpc.ServicerContext) -> ms.RollbackResponse:
        self._admin(request, context)
        return ms.RollbackResponse(model=self._status(request.name), persistent=self.script.persistent)


class FakeServer:
    """The server; it runs as soon as it is made. `drop` behaves like a crash with a restart."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        with_health: bool = True,
        threads: int = 16,
    ) -> None:
        self.script = script or Script()
        self._credentials = credentials
        self._with_health = with_health
        self._threads = threads
        self.health = health.HealthServicer()
        self._servers: list[grpc.Server] = []
        self._asked = address
        self.address = ""
        self.start()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def start(self) -> None:
        server = grpc.server(
            futures.ThreadPoolExecutor(self._threads),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        predict_service_pb2_grpc.add_PredictServiceServicer_to_server(_Predict(self.script, self), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self.script), server)
        if self._with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        asked = self.address or self._asked
        if self._credentials is None:
            port = server.add_insecure_port(asked)
        else:
            port = server.add_secure_port(asked, self._credentials)
        self.address = asked if asked.startswith("unix:") else f"{asked.rsplit(':', 1)[0]}:{port}"
        server.start()
        self._servers.append(server)

    def drop(self) -> None:
        """Ends all connections and calls at once, and starts another server on the same port."""
        self._servers[-1].stop(0)
        self._servers[-1].wait_for_termination(LONG)
        self.start()

    def set_health(self, service: str, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self.health.set(service, status)

    def stop(self) -> None:
        self.script.cancelled.set()
        for server in self._servers:
            server.stop(0).wait(LONG)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def rows(n: int = 1) -> np.ndarray[Any, Any]:
    return np.arange(2 * n, dtype=np.float32).reshape(n, 2)


def make_chain(directory: Path) -> dict[str, Path]:
    """Makes a certificate authority, a server certificate for "models.test" and 127.0.0.1, and a client certificate.
    Returns the paths by file name."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    (directory / "san.txt").write_text("subjectAltName=DNS:models.test,IP:127.0.0.1\n")
    for name, subject in (("server", "/CN=models.test"), ("client", "/CN=caller")):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "san.txt",
        )  # fmt: skip
    return {name: directory / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")}
