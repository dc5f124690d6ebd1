"""A table of every RPC, REST route and page: the access that it needs, a good request, and how that request may end.

The table repeats the server's access rules on purpose: if a rule of the server changes, the tests with the table fail.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from support.rest import Rest, tensor
from support.rpc import Served, request

from inferd.oip.v1 import control_pb2 as oip
from inferd.oip.v1 import infer_pb2
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.tfs.v1 import prediction_service_pb2 as tfs
from inferd.v1 import model_service_pb2 as native

WAIT = 60
NATIVE, OIP = "/inferd.v1.ModelService/", "/inference.GRPCInferenceService/"
PREDICTION, MODELS = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


@dataclass(frozen=True)
class Entry:
    """One RPC, route or page.

    name      the full path of an RPC, "VERB template" of a route or page
    need      "predict", "metadata", "admin" (scopes), "health", "reflection", "metrics", "nothing"
    body      makes the request for a model: a message or its bytes for an RPC, a value that becomes JSON for a route
    model     the request names a model, and the caller needs the scope for that model
    good      the status codes with which a good request may end
    every     the caller needs the scope for every model
    in_band   the refusal for a model is in the stream's first answer, and the stream goes on
    """

    name: str
    need: str
    body: Callable[[str], Any] = lambda _model: b""
    model: bool = False
    good: frozenset[str] = frozenset({"OK"})
    in_band: bool = False
    every: bool = False


def _infer(model: str) -> infer_pb2.ModelInferRequest:
    made = infer_pb2.ModelInferRequest(model_name=model, raw_input_contents=[np.ones(1, np.float32).tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    return made


def _tfs_predict(model: str) -> tfs.PredictRequest:
    made = tfs.PredictRequest(model_spec={"name": model})
    x = made.inputs["x"]
    x.dtype = 1
    x.tensor_shape.dim.add(size=1)
    x.tensor_shape.dim.add(size=1)
    x.float_val.append(1.0)
    return made


def _examples(kind: type) -> Callable[[str], Any]:
    def made(model: str) -> Any:
        message = kind(model_spec={"name": model})
        message.input.example_list.examples.add()
        return message

    return made


def _multi(model: str) -> tfs.MultiInferenceRequest:
    made = tfs.MultiInferenceRequest()
    made.input.example_list.examples.add()
    made.tasks.add(model_spec={"name": model}, method_name="tensorflow/serving/classify")
    return made


def _reload(model: str) -> tfs_models.ReloadConfigRequest:
    made = tfs_models.ReloadConfigRequest()
    made.config.model_config_list.config.add(name=model, base_path=f"/nowhere/{model}")
    return made


def _named(kind: type, field: str = "name", **more: Any) -> Callable[[str], Any]:
    return lambda model: kind(**{field: model, **more})


def _spec(kind: type, **more: Any) -> Callable[[str], Any]:
    return lambda model: kind(model_spec={"name": model}, **more)


def _codes(*names: str) -> frozenset[str]:
    return frozenset(names)


# The model has a float input, so it cannot be called with Examples: a caller with access gets one of these errors.
_NO_EXAMPLES = _codes("INVALID_ARGUMENT", "FAILED_PRECONDITION")
_NOT_OFFERED = _codes("UNIMPLEMENTED")
UNARY = (
    Entry("/inferd.v1.PredictService/Predict", "predict", lambda model: request(name=model), model=True),
    Entry(f"{NATIVE}ListModels", "metadata"),
    Entry(f"{NATIVE}GetModelStatus", "metadata", _named(native.GetModelStatusRequest), model=True),
    Entry(f"{NATIVE}GetModelMetadata", "metadata", _named(native.GetModelMetadataRequest), model=True),
    Entry(f"{NATIVE}LoadModel", "admin", _named(native.LoadModelRequest), model=True),
    Entry(f"{NATIVE}UnloadModel", "admin", _named(native.UnloadModelRequest), model=True),
    Entry(f"{NATIVE}SetLabel", "admin", _named(native.SetLabelRequest, label="stable", version=1), model=True),
    Entry(f"{NATIVE}Rollback", "admin", _named(native.RollbackRequest), model=True),
    Entry(f"{HEALTH}Check", "health"),
    Entry(f"{OIP}ServerLive", "health"),
    Entry(f"{OIP}ServerReady", "health"),
    Entry(f"{OIP}ModelReady", "metadata", _named(oip.ModelReadyRequest), model=True),
    Entry(f"{OIP}ServerMetadata", "metadata"),
    Entry(f"{OIP}ModelMetadata", "metadata", _named(oip.ModelMetadataRequest), model=True),
    Entry(f"{OIP}ModelConfig", "metadata", _named(oip.ModelConfigRequest), model=True),
    Entry(f"{OIP}ModelInfer", "predict", _infer, model=True),
    Entry(f"{OIP}ModelStatistics", "metadata", _named(oip.ModelStatisticsRequest), model=True),
    Entry(f"{OIP}RepositoryIndex", "metadata"),
    Entry(f"{OIP}RepositoryModelLoad", "admin", _named(oip.RepositoryModelLoadRequest, "model_name"), model=True),
    Entry(f"{OIP}RepositoryModelUnload", "admin", _named(oip.RepositoryModelUnloadRequest, "model_name"), model=True),
    Entry(f"{OIP}SystemSharedMemoryStatus", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}SystemSharedMemoryRegister", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}SystemSharedMemoryUnregister", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}CudaSharedMemoryStatus", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}CudaSharedMemoryRegister", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}CudaSharedMemoryUnregister", "predict", good=_NOT_OFFERED),
    Entry(f"{OIP}TraceSetting", "metadata", _named(oip.TraceSettingRequest, "model_name"), model=True),
    Entry(f"{OIP}LogSettings", "metadata"),
    Entry(f"{PREDICTION}Predict", "predict", _tfs_predict, model=True),
    Entry(f"{PREDICTION}Classify", "predict", _examples(tfs.ClassificationRequest), model=True, good=_NO_EXAMPLES),
    Entry(f"{PREDICTION}Regress", "predict", _examples(tfs.RegressionRequest), model=True, good=_NO_EXAMPLES),
    Entry(f"{PREDICTION}MultiInference", "predict", _multi, model=True, good=_NO_EXAMPLES),
    Entry(
        f"{PREDICTION}GetModelMetadata",
        "metadata",
        _spec(tfs.GetModelMetadataRequest, metadata_field=["signature_def"]),
        model=True,
    ),
    Entry(f"{MODELS}GetModelStatus", "metadata", _spec(tfs_models.GetModelStatusRequest), model=True),
    Entry(
        f"{MODELS}HandleReloadConfigRequest",
        "admin",
        _reload,
        model=True,
        every=True,
        good=_codes("OK", "FAILED_PRECONDITION"),
    ),
)
STREAM = (
    Entry(
        "/inferd.v1.PredictService/PredictStream",
        "predict",
        lambda model: request(name=model),
        model=True,
        in_band=True,
    ),
    Entry(f"{OIP}ModelStreamInfer", "predict", _infer, model=True, in_band=True),
    Entry(f"{NATIVE}WatchModels", "metadata"),  # its name is a filter: a model that the caller may not see is left out
    Entry(f"{HEALTH}Watch", "health"),
    Entry(REFLECTION.format("v1"), "reflection", lambda _model: b"\x3a\x00"),
    Entry(REFLECTION.format("v1alpha"), "reflection", lambda _model: b"\x3a\x00"),
)

_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_TFS = ("/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}")
_SHARED = "/v2/{kind}sharedmemory"
_FOUND_OR_NOT = _codes("200", "400", "404")  # there is not a version of every number, nor a label
_REST_NOT_OFFERED = _codes("400", "501")
_200 = _codes("200")


def _json(body: Any) -> Callable[[str], Any]:
    return lambda _model: body


_INFER = _json({"inputs": [tensor("x", [[1.0]])]})
_INSTANCES, _EXAMPLES = _json({"instances": [[1.0]]}), _json({"examples": [{"x": 1.0}]})
_EMPTY, _NO_BODY = _json({}), _json(None)


def _route(name: str, need: str, body: Callable[[str], Any] = _NO_BODY, good: frozenset[str] = _200) -> Entry:
    return Entry(name, need, body, "{model}" in name, good)


ROUTES = (
    _route("GET /v2/health/live", "health"),
    _route("GET /v2/health/ready", "health"),
    _route("GET /v2", "metadata"),
    _route("GET /v2/models/stats", "metadata"),
    _route("POST /v2/repository/index", "metadata", _EMPTY),
    _route("POST /v2/repository/models/{model}/load", "admin", _EMPTY),
    _route("POST /v2/repository/models/{model}/unload", "admin", _EMPTY),
    _route(f"GET {_MODEL}/trace/setting", "metadata"),
    _route(f"POST {_MODEL}/trace/setting", "metadata", _EMPTY),
    _route("GET /v2/trace/setting", "metadata"),
    _route("POST /v2/trace/setting", "metadata", _EMPTY),
    _route("GET /v2/logging", "metadata"),
    _route("POST /v2/logging", "metadata", _EMPTY),
    _route(f"GET {_SHARED}/status", "predict", good=_REST_NOT_OFFERED),
    _route(f"POST {_SHARED}/unregister", "predict", good=_REST_NOT_OFFERED),
    _route(f"GET {_SHARED}/region/{{region}}/status", "predict", good=_REST_NOT_OFFERED),
    _route(f"POST {_SHARED}/region/{{region}}/unregister", "predict", good=_REST_NOT_OFFERED),
    _route(
        f"POST {_SHARED}/region/{{region}}/register", "predict", _json({"key": "/k", "byte_size": 1}), _REST_NOT_OFFERED
    ),
    *(
        entry
        for model in (_MODEL, _VERSION)
        for entry in (
            _route(f"POST {model}/infer", "predict", _INFER),
            _route(f"POST {model}/generate", "predict", _EMPTY, _REST_NOT_OFFERED),
            _route(f"POST {model}/generate_stream", "predict", _EMPTY, _REST_NOT_OFFERED),
            _route(f"GET {model}", "metadata"),
            _route(f"GET {model}/ready", "metadata"),
            _route(f"GET {model}/config", "metadata"),
            _route(f"GET {model}/stats", "metadata"),
        )
    ),
    *(
        entry
        for model in _TFS
        for entry in (
            _route(f"POST {model}:predict", "predict", _INSTANCES, _FOUND_OR_NOT),
            _route(f"POST {model}:classify", "predict", _EXAMPLES, _FOUND_OR_NOT),
            _route(f"POST {model}:regress", "predict", _EXAMPLES, _FOUND_OR_NOT),
            _route(f"GET {model}/metadata", "metadata", good=_FOUND_OR_NOT),
            _route(f"GET {model}", "metadata", good=_FOUND_OR_NOT),
        )
    ),
    _route("GET /v1/models", "nothing", good=_codes("400")),  # the same error for every caller
)
PAGES = (
    Entry("GET /healthz", "health", _NO_BODY, good=_200),
    Entry("GET /readyz", "health", _NO_BODY, good=_200),
    Entry("GET /metrics", "metrics", _NO_BODY, good=_200),
    Entry("GET /docs", "reflection", _NO_BODY, good=_200),
    Entry("GET /openapi.json", "reflection", _NO_BODY, good=_200),
)
RPCS = (*UNARY, *STREAM)
OVER_HTTP = (*ROUTES, *PAGES)


@dataclass(frozen=True)
class Outcome:
    """How a request ended. `code`: the name of a gRPC status, or an HTTP status. `access`: what the rules decided."""

    code: str
    text: str
    in_band: bool = False

    @property
    def access(self) -> str:
        if self.in_band or self.code in {"PERMISSION_DENIED", "403"}:
            return "denied"
        return "unauthenticated" if self.code in {"UNAUTHENTICATED", "401"} else "admitted"


class GrpcEdge:
    """Asks a server over gRPC."""

    entries = RPCS

    def __init__(self, served: Served, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.manager = served.manager
        self._channel = served.channel(credentials)

    def ask(self, entry: Entry, headers: Mapping[str, str], model: str = "digits", body: Any = None) -> Outcome:
        """One request. Of a stream the first answer is enough."""
        return self.begin(entry, headers, model, body)()

    def begin(
        self, entry: Entry, headers: Mapping[str, str], model: str = "digits", body: Any = None
    ) -> Callable[[], Outcome]:
        """Sends a request, and gives the function that waits for its end."""
        message = entry.body(model) if body is None else body
        data = message if isinstance(message, bytes) else message.SerializeToString()
        metadata = list(headers.items())
        if entry in UNARY:
            answer = self._channel.unary_unary(entry.name).future(data, metadata=metadata, timeout=WAIT)
            return lambda: self._outcome(entry, answer.result)
        answers = self._channel.stream_stream(entry.name)(iter([data]), metadata=metadata, timeout=WAIT)

        def first() -> bytes | None:
            found: bytes | None = next(answers, None)
            answers.cancel()
            return found

        return lambda: self._outcome(entry, first)

    def _outcome(self, entry: Entry, wait: Callable[[], bytes | None]) -> Outcome:
        try:
            answer = wait()
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details())
        text = (answer or b"").decode("latin-1")
        if entry.in_band and "expected credentials" in text:
            return Outcome("OK", "expected credentials" + text.partition("expected credentials")[2], in_band=True)
        return Outcome("OK", text)


class HttpEdge:
    """Asks a server over HTTP, on one connection for as long as it lasts."""

    entries = OVER_HTTP

    def __init__(self, rest: Rest, context: ssl.SSLContext | None = None) -> None:
        self.manager = rest.manager
        self.rest = rest
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, entry: Entry, headers: Mapping[str, str], model: str = "digits", body: Any = None) -> Outcome:
        """One request."""
        verb, template = entry.name.split(" ")
        path = template.format(model=model, version="1", label="stable", kind="system", region="r")
        content = entry.body(model) if body is None else body
        data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        connection = self._connected()
        connection.request(verb, path, data, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode("latin-1")
        if answer.will_close:
            self.close()
        assert answer.status != 401 or answer.headers["WWW-Authenticate"].startswith("Bearer")
        error = json.loads(text)["error"] if answer.status >= 400 and text else text
        return Outcome(str(answer.status), error)

    def begin(
        self, entry: Entry, headers: Mapping[str, str], model: str = "digits", body: Any = None
    ) -> Callable[[], Outcome]:
        """As `GrpcEdge.begin`; over HTTP a connection has one request at a time."""
        outcome = self.ask(entry, headers, model, body)
        return lambda: outcome

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self.rest.host, self.rest.port
            if self._context is None:
                self._connection = http.client.HTTPConnection(host, port, timeout=WAIT)
            else:
                self._connection = http.client.HTTPSConnection(host, port, timeout=WAIT, context=self._context)
        return self._connection


def by_name(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries by name; each name once."""
    found = {entry.name: entry for entry in entries}
    assert len(found) == len(entries)
    return found
