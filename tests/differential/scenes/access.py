"""Access: every kind of caller at every method and route, and the limits of clients."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
from differential.requests import (
    INFER,
    INFER_STREAM,
    MODELS,
    OIP,
    PREDICT,
    STREAM,
    TFS,
    TFS_MODELS,
    native,
    oip,
    oip_json,
    rows,
    tfs,
    tfs_spec,
)
from differential.scene import Notes
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.security import AUDIENCE, ISSUER, OTHER_SECRET, SECRET

from inferd.oip.v1 import control_pb2 as oip_control
from inferd.oip.v1 import infer_pb2 as oip_infer
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.tfs.v1 import prediction_service_pb2 as tfs_predict
from inferd.v1 import model_service_pb2 as native_models
from inferd.v1 import predict_service_pb2 as native_predict

_ALL = ["predict", "metadata", "admin"]
_TOKENS: dict[str, dict[str, Any]] = {
    "all": {"scopes": _ALL},
    "predict": {"scopes": ["predict"]},
    "metadata": {"scopes": ["metadata"]},
    "admin": {"scopes": ["admin"]},
    "rows": {"scopes": _ALL, "models": ["rows"]},
    "pattern": {"scopes": ["predict", "metadata"], "models": ["sec*"]},
    "nothing": {"scopes": []},
    "expired": {"scopes": _ALL, "expires": "2020-01-01T00:00:00Z"},
}


def write_tokens(place: Path) -> None:
    """Writes the tokens file and the keys for JSON web tokens."""
    found = {
        name: {"models": ["*"], **entry, "sha256": hashlib.sha256(token(name).encode()).hexdigest()}
        for name, entry in _TOKENS.items()
    }
    (place / "tokens.yaml").write_text(json.dumps(found))
    key = {"kty": "oct", "kid": "hs", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}
    (place / "jwks.json").write_text(json.dumps({"keys": [key]}))


def _signed(secret: bytes = SECRET, kid: str = "hs", **claims: Any) -> list[tuple[str, str]]:
    """A JSON web token that counts, but for what is said otherwise."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user", "exp": now + 600, "scope": "predict metadata", **claims}
    kept = {name: value for name, value in whole.items() if value is not None}
    return [("authorization", f"Bearer {jwt.encode(kept, secret, 'HS256', headers={'kid': kid})}")]


def token(name: str) -> str:
    """The token of a caller."""
    return f"differential-token-of-{name}-{'0' * 24}"


def callers() -> dict[str, list[tuple[str, str]]]:
    """The metadata of every kind of caller."""
    right = ("authorization", f"Bearer {token('all')}")
    return {
        **{name: [("authorization", f"Bearer {token(name)}")] for name in _TOKENS},
        "nobody": [],
        "unknown token": [("authorization", f"Bearer {token('stranger')}")],
        "other scheme": [("authorization", "Basic YTpi")],
        "no scheme": [("authorization", token("all"))],
        "small letters": [("authorization", f"bearer {token('all')}")],
        "empty": [("authorization", "")],
        "two": [right, ("authorization", f"Bearer {token('predict')}")],
        "no jwt": [("authorization", "Bearer aaaa.bbbb.cccc")],
        "forwarded": [right, ("x-forwarded-for", "10.0.0.1")],
        "jwt": _signed(),
        "jwt for rows": _signed(models=["rows"]),
        "jwt without scope": _signed(scope=None),
    }


def _doubtful() -> dict[str, list[tuple[str, str]]]:
    """Callers with invalid JSON web tokens. They make few calls, because the server bounds the failed attempts of one
    address per second."""
    return {
        "jwt expired": _signed(exp=1_000_000_000),
        "jwt of another issuer": _signed(iss="elsewhere"),
        "jwt for others": _signed(aud="others"),
        "jwt of another key": _signed(kid="rs"),
        "jwt signed by another": _signed(OTHER_SECRET),
    }


def _calls() -> dict[str, tuple[str, Message, type[Message]]]:
    """By name: a method, its request and its answer."""
    x = {"x": rows(1)}
    found: dict[str, tuple[str, Message, type[Message]]] = {}
    for model in ("rows", "secret", "nobody"):
        found |= {
            f"predict {model}": (PREDICT, native(model, x), native_predict.PredictResponse),
            f"infer {model}": (INFER, oip(model, x), oip_infer.ModelInferResponse),
            f"tfs predict {model}": (f"{TFS}Predict", tfs(model, x), tfs_predict.PredictResponse),
        }
    rows_only = {"name": "rows"}
    for name, fields in {
        "ListModels": {},
        "GetModelStatus": rows_only,
        "GetModelMetadata": rows_only,
        "SetLabel": {"name": "rows", "label": "l", "version": 1},
        "Rollback": rows_only,
        "LoadModel": rows_only,
    }.items():
        request = getattr(native_models, f"{name}Request")(**fields)
        found[name] = (f"{MODELS}{name}", request, getattr(native_models, f"{name}Response"))
    for name, fields in {
        "ServerLive": {}, "ServerReady": {}, "ServerMetadata": {}, "ModelReady": rows_only, "ModelMetadata": rows_only,
        "ModelConfig": rows_only, "ModelStatistics": rows_only, "RepositoryIndex": {},
        "RepositoryModelLoad": {"model_name": "rows"}, "SystemSharedMemoryStatus": {},
        "SystemSharedMemoryRegister": {"name": "r", "key": "/k", "byte_size": 1}, "SystemSharedMemoryUnregister": {},
        "CudaSharedMemoryStatus": {}, "TraceSetting": {}, "LogSettings": {},
    }.items():  # fmt: skip
        request = getattr(oip_control, f"{name}Request")(**fields)
        found[name] = (f"{OIP}{name}", request, getattr(oip_control, f"{name}Response"))
    spec = tfs_spec("rows")
    found |= {
        "tfs status": (
            f"{TFS_MODELS}GetModelStatus",
            tfs_models.GetModelStatusRequest(model_spec=spec),
            tfs_models.GetModelStatusResponse,
        ),
        "tfs metadata": (
            f"{TFS}GetModelMetadata",
            tfs_predict.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"]),
            tfs_predict.GetModelMetadataResponse,
        ),
        "tfs reload": (
            f"{TFS_MODELS}HandleReloadConfigRequest",
            tfs_models.ReloadConfigRequest(),
            tfs_models.ReloadConfigResponse,
        ),
        "tfs classify": (
            f"{TFS}Classify",
            tfs_predict.ClassificationRequest(model_spec=spec),
            tfs_predict.ClassificationResponse,
        ),
        "health": (_HEALTH, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse),
        "health of a model": (_HEALTH, health_pb2.HealthCheckRequest(service="rows"), health_pb2.HealthCheckResponse),
        "health of a secret": (
            _HEALTH,
            health_pb2.HealthCheckRequest(service="secret"),
            health_pb2.HealthCheckResponse,
        ),
        "no method": ("/inferd.v1.PredictService/Predikt", native("rows", x), native_predict.PredictResponse),
    }
    return found


_HEALTH = "/grpc.health.v1.Health/Check"
_ROUTES = (
    ("POST", "/v2/models/{model}/infer"), ("POST", "/v1/models/{model}:predict"), ("GET", "/v2/models/{model}"),
    ("GET", "/v2/models/{model}/ready"), ("GET", "/v2/models/{model}/config"), ("GET", "/v2/models/{model}/stats"),
    ("GET", "/v1/models/{model}"), ("GET", "/v1/models/{model}/metadata"), ("POST", "/v1/models/{model}:classify"),
    ("POST", "/v2/repository/models/{model}/load"), ("GET", "/v2/models/{model}/trace/setting"),
)  # fmt: skip
_PLAIN_ROUTES = (
    ("GET", "/v2"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"), ("GET", "/v2/models/stats"),
    ("POST", "/v2/repository/index"), ("GET", "/v2/systemsharedmemory/status"), ("GET", "/v2/logging"),
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/nowhere"),
)  # fmt: skip


def play_methods(notes: Notes) -> None:
    """Every caller calls every method."""
    side = notes.side
    for turn in ("first", "again"):
        for caller, metadata in callers().items():
            for name, (method, request, answer) in _calls().items():
                notes.see(f"{caller}: {name} ({turn})", side.ask(method, request, answer, metadata))
    for caller, metadata in _doubtful().items():
        for name in ("predict rows", "infer rows", "ListModels"):
            method, request, answer = _calls()[name]
            notes.see(f"{caller}: {name}", side.ask(method, request, answer, metadata))
        notes.see(f"{caller}: rest", side.rest("GET", "/v2/models/rows", None, dict(metadata)))
    x = {"x": rows(1)}
    for caller, metadata in callers().items():
        both = [native("rows", x, request_id="1")]
        notes.see(f"{caller}: stream", side.stream(STREAM, both, native_predict.PredictStreamResponse, metadata))
        secret = [native("secret", x, request_id="1")]
        notes.see(
            f"{caller}: secret stream", side.stream(STREAM, secret, native_predict.PredictStreamResponse, metadata)
        )
        infer = [oip("rows", x, id="1")]
        notes.see(
            f"{caller}: oip stream", side.stream(INFER_STREAM, infer, oip_infer.ModelStreamInferResponse, metadata)
        )
        watched = side.stream(
            f"{MODELS}WatchModels",
            [native_models.WatchModelsRequest()],
            native_models.WatchModelsResponse,
            metadata,
            server_only=True,
            take=1,
        )
        notes.see(f"{caller}: watch", watched)
        listed = [reflection_pb2.ServerReflectionRequest(list_services="")]
        reflected = side.stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            listed,
            reflection_pb2.ServerReflectionResponse,
            metadata,
        )
        notes.see(f"{caller}: reflection", reflected)


def play_routes(notes: Notes) -> None:
    """Every caller requests every route."""
    side = notes.side
    bodies = {"infer": oip_json({"x": rows(1)}), ":predict": '{"instances": [[1.0, 2.0, 3.0, 4.0]]}'}
    for caller, metadata in callers().items():
        headers = dict(metadata)
        for method, route in _ROUTES:
            for model in ("rows", "secret", "nobody"):
                path = route.replace("{model}", model)
                body = next((body for ending, body in bodies.items() if path.endswith(ending)), "")
                answer = side.rest(method, path, body if method == "POST" else None, headers)
                notes.see(f"{caller}: {method} {path}", answer)
        for method, path in _PLAIN_ROUTES:
            notes.see(f"{caller}: {method} {path}", side.rest(method, path, None, headers))
        if caller in ("all", "nobody"):
            for path in ("/docs", "/openapi.json"):
                notes.see(f"{caller}: GET {path}", side.rest("GET", path, None, headers))
        status = side.rest("GET", "/metrics", None, headers)
        notes.see(f"{caller}: metrics", {key: value for key, value in status.items() if key != "body"})


def play_rate(notes: Notes) -> None:
    """limits.clients.rate: requests beyond it are refused in every protocol."""
    side = notes.side
    x = {"x": rows(1)}
    for i in range(6):
        notes.see(f"predict {i}", side.ask(PREDICT, native("rows", x), native_predict.PredictResponse))
    notes.see("infer", side.ask(INFER, oip("rows", x), oip_infer.ModelInferResponse))
    notes.see("tfs", side.ask(f"{TFS}Predict", tfs("rows", x), tfs_predict.PredictResponse))
    notes.see("list", side.ask(f"{MODELS}ListModels", b"", native_models.ListModelsResponse))
    notes.see("live", side.ask(f"{OIP}ServerLive", b"", oip_control.ServerLiveResponse))
    notes.see("health", side.ask(_HEALTH, b"", health_pb2.HealthCheckResponse))
    notes.see("rest", side.rest("POST", "/v2/models/rows/infer", oip_json(x)))
    notes.see("rest page", side.rest("GET", "/healthz"))
    requests = [native("rows", x, request_id=str(i)) for i in range(3)]
    notes.see("stream", side.stream(STREAM, requests, native_predict.PredictStreamResponse))
    infer = [oip("rows", x, id=str(i)) for i in range(3)]
    notes.see("oip stream", side.stream(INFER_STREAM, infer, oip_infer.ModelStreamInferResponse))
    for caller in ("all", "predict"):
        # Clients with different tokens have separate limits.
        metadata = [("authorization", f"Bearer {token(caller)}")]
        for i in range(7):
            answer = side.ask(PREDICT, native("rows", x), native_predict.PredictResponse, metadata)
            notes.see(f"as {caller}, {i}", answer)


def play_concurrency(notes: Notes) -> None:
    """limits.clients.concurrency: requests beyond it are refused in every protocol."""
    side = notes.side
    x = {"x": rows(1)}
    side.gates.close("single")
    first = side.begin(PREDICT, native("single", x))
    side.gates.held("single")
    second = side.begin(PREDICT, native("single", x))
    side.waiting("single", 1)
    for name, (method, request, answer) in {
        "predict": (PREDICT, native("rows", x), native_predict.PredictResponse),
        "infer": (INFER, oip("rows", x), oip_infer.ModelInferResponse),
        "tfs": (f"{TFS}Predict", tfs("rows", x), tfs_predict.PredictResponse),
        "list": (f"{MODELS}ListModels", native_models.ListModelsRequest(), native_models.ListModelsResponse),
        "health": (_HEALTH, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse),
    }.items():
        notes.see(name, side.ask(method, request, answer))
    notes.see("rest", side.rest("POST", "/v2/models/rows/infer", oip_json(x)))
    stream = [native("rows", x, request_id="1")]
    notes.see("stream", side.stream(STREAM, stream, native_predict.PredictStreamResponse))
    side.gates.open()
    notes.see("first", side.outcome(first, native_predict.PredictResponse))
    notes.see("second", side.outcome(second, native_predict.PredictResponse))
    side.until(lambda: side.answered("single", "OK") == 2, "both are done")
    notes.see("afterwards", side.ask(PREDICT, native("rows", x), native_predict.PredictResponse))


def play_inflight(notes: Notes) -> None:
    """inflight.calls and inflight.bytes: requests beyond them are refused in every protocol."""
    side = notes.side
    x = {"x": rows(1)}
    side.gates.close("single")
    calls = [side.begin(PREDICT, native("single", x))]
    side.gates.held("single")
    for i in range(1, 3):
        calls.append(side.begin(PREDICT, native("single", x)))
        side.waiting("single", i)
    for name, (method, request, answer) in {
        "predict": (PREDICT, native("rows", x), native_predict.PredictResponse),
        "infer": (INFER, oip("rows", x), oip_infer.ModelInferResponse),
        "tfs": (f"{TFS}Predict", tfs("rows", x), tfs_predict.PredictResponse),
        "list": (f"{MODELS}ListModels", native_models.ListModelsRequest(), native_models.ListModelsResponse),
        "health": (_HEALTH, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse),
    }.items():
        notes.see(name, side.ask(method, request, answer))
    notes.see("rest", side.rest("POST", "/v2/models/rows/infer", oip_json(x)))
    side.gates.open()
    for i, call in enumerate(calls):
        notes.see(f"held {i}", side.outcome(call, native_predict.PredictResponse))
    side.until(lambda: side.answered("single", "OK") == 3, "all are done")
    large = native("rows", {"x": rows(*range(3000))})
    notes.see("too many bytes", side.ask(PREDICT, large, native_predict.PredictResponse))
    notes.see("too many bytes, rest", side.rest("POST", "/v2/models/rows/infer", oip_json({"x": rows(*range(3000))})))
    notes.see("afterwards", side.ask(PREDICT, native("rows", x), native_predict.PredictResponse))
