"""The control plane over gRPC: models, health, reflection, operators' actions, new versions, shared memory."""

from __future__ import annotations

from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
from differential import models
from differential.requests import (
    INFER,
    MODELS,
    OIP,
    PREDICT,
    TFS_MODELS,
    native,
    oip,
    rows,
    tfs_spec,
)
from differential.scene import Notes
from differential.side import Side
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inferd.oip.v1 import control_pb2 as oip_control
from inferd.oip.v1 import infer_pb2 as oip_infer
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.v1 import model_service_pb2 as native_models
from inferd.v1 import predict_service_pb2 as native_predict

HEALTH = "/grpc.health.v1.Health/"
NAMES = (
    "rows", "several", "failing", "misread", "optioned", "nothing", "headless", "chain", "free", "scalar", "counting",
    "mixing", "proven", "optional", "onnx", "digits_onnx", "kind_fp32", "nobody", "",
)  # fmt: skip


def play_described(notes: Notes) -> None:
    """The models and the server as each protocol describes them."""
    side = notes.side

    def ask(case: str, method: str, request: Any, answer: Any) -> None:
        notes.see(case, side.ask(method, request, answer))

    ask("list", f"{MODELS}ListModels", native_models.ListModelsRequest(), native_models.ListModelsResponse)
    for name in NAMES:
        status = native_models.GetModelStatusRequest(name=name)
        ask(f"status {name}", f"{MODELS}GetModelStatus", status, native_models.GetModelStatusResponse)
        for choice in ({}, {"version": 1}, {"version": 9}, {"label": "stable"}, {"label": "none"}):
            metadata = native_models.GetModelMetadataRequest(name=name, **choice)
            case = f"metadata {name} {choice}"
            ask(case, f"{MODELS}GetModelMetadata", metadata, native_models.GetModelMetadataResponse)
        for version in ("", "1", "9", "stable", "none"):
            of = {"name": name, "version": version}
            case = f"oip {name} {version!r}"
            ask(
                f"{case} ready", f"{OIP}ModelReady", oip_control.ModelReadyRequest(**of), oip_control.ModelReadyResponse
            )
            metadata = oip_control.ModelMetadataRequest(**of)
            ask(f"{case} metadata", f"{OIP}ModelMetadata", metadata, oip_control.ModelMetadataResponse)
            config = oip_control.ModelConfigRequest(**of)
            ask(f"{case} config", f"{OIP}ModelConfig", config, oip_control.ModelConfigResponse)
            statistics = oip_control.ModelStatisticsRequest(**of)
            ask(f"{case} statistics", f"{OIP}ModelStatistics", statistics, oip_control.ModelStatisticsResponse)
        ask(f"health {name}", f"{HEALTH}Check", _health(name), health_pb2.HealthCheckResponse)
    for service in ("inferd.v1.PredictService", "inference.GRPCInferenceService", "grpc.health.v1.Health"):
        ask(f"health {service}", f"{HEALTH}Check", _health(service), health_pb2.HealthCheckResponse)
    ask("health list", f"{HEALTH}List", b"", health_pb2.HealthCheckResponse)
    for name in ("", "rows", "nobody"):
        watched = side.stream(
            f"{HEALTH}Watch", [_health(name)], health_pb2.HealthCheckResponse, server_only=True, take=1
        )
        notes.see(f"health watch {name!r}", watched)
    for kind in ("ServerLive", "ServerReady", "ServerMetadata"):
        ask(kind, f"{OIP}{kind}", b"", getattr(oip_control, f"{kind}Response"))
    for ready in (False, True):
        index = oip_control.RepositoryIndexRequest(ready=ready)
        ask(f"index {ready}", f"{OIP}RepositoryIndex", index, oip_control.RepositoryIndexResponse)
    other = oip_control.RepositoryIndexRequest(repository_name="other")
    ask("index of another repository", f"{OIP}RepositoryIndex", other, oip_control.RepositoryIndexResponse)
    for method in (
        *(f"{MODELS}{name}" for name in ("GetModelStatus", "GetModelMetadata", "LoadModel", "SetLabel", "Rollback")),
        *(f"{OIP}{name}" for name in ("ModelReady", "ModelConfig", "RepositoryModelLoad", "LogSettings")),
        f"{HEALTH}Check",
    ):
        ask(f"garbage {method}", method, b"\xff\xff\xff", native_models.ListModelsResponse)
    _reflection(notes)
    _settings(notes)


def _health(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def _reflection(notes: Notes) -> None:
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inferd.v1.PredictService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tensorflow.serving.PredictionService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.Knows"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="inferd/v1/tensor.proto"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="nowhere.proto"),
        reflection_pb2.ServerReflectionRequest(),
    ]
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        answer = notes.side.stream(method, asked, reflection_pb2.ServerReflectionResponse)
        notes.see(f"reflection {version}", answer)


def _settings(notes: Notes) -> None:
    side = notes.side
    for name, value in {
        "all": {},
        "level": {"trace_level": ["OFF"]},
        "level that there is not": {"trace_level": ["TIMESTAMPS"]},
        "unknown": {"trace_nothing": ["1"]},
        "cleared": {"trace_rate": []},
    }.items():
        for model in ("", "rows", "nobody"):
            request = oip_control.TraceSettingRequest(model_name=model)
            for key, texts in value.items():
                request.settings[key].value.extend(texts)
            answer = side.ask(f"{OIP}TraceSetting", request, oip_control.TraceSettingResponse)
            notes.see(f"trace {name} {model!r}", answer)
    for name, settings in {
        "all": {},
        "verbose": {"log_verbose_level": {"uint32_param": 1}},
        "wrong kind": {"log_verbose_level": {"string_param": "1"}},
        "unknown": {"log_nothing": {"bool_param": True}},
        "file": {"log_file": {"string_param": "elsewhere"}},
    }.items():
        asked = oip_control.LogSettingsRequest()
        for key, given in settings.items():
            asked.settings[key].CopyFrom(oip_control.LogSettingsRequest.SettingValue(**given))
        notes.see(f"log {name}", side.ask(f"{OIP}LogSettings", asked, oip_control.LogSettingsResponse))


def play_wishes(notes: Notes) -> None:
    """Load, unload, label and roll back, valid and invalid, each followed by predictions."""
    side = notes.side
    step = 0

    def wish(case: str, kind: str, /, **fields: Any) -> None:
        nonlocal step
        step += 1
        request = getattr(native_models, f"{kind}Request")(**fields)
        case = f"{step}: {case}"
        notes.see(case, side.ask(f"{MODELS}{kind}", request, getattr(native_models, f"{kind}Response")))
        settled(side)
        for choice in ({}, {"label": "stable"}, {"label": "new"}):
            asked = native(fields.get("name", "") or "rows", {"x": rows(1)}, **choice)
            notes.see(f"{case}: predict {choice}", side.ask(PREDICT, asked, native_predict.PredictResponse))

    wish("unload a version", "UnloadModel", name="rows", version=2)
    wish("unload it again", "UnloadModel", name="rows", version=2)
    wish("unload all", "UnloadModel", name="rows")
    wish("load a version", "LoadModel", name="rows", version=1)
    wish("load all", "LoadModel", name="rows")
    wish("load what is loaded", "LoadModel", name="rows")
    wish("roll back", "Rollback", name="rows")
    wish("roll back to", "Rollback", name="rows", to_version=1)
    wish("roll back too far", "Rollback", name="rows")
    wish("roll back to nothing", "Rollback", name="rows", to_version=9)
    wish("lift the pin", "LoadModel", name="rows")
    wish("label", "SetLabel", name="rows", label="new", version=2)
    wish("move a label", "SetLabel", name="rows", label="new", version=1)
    wish("label nothing", "SetLabel", name="rows", label="new", version=9)
    wish("label of digits", "SetLabel", name="rows", label="12", version=1)
    wish("empty label", "SetLabel", name="rows", label="", version=1)
    wish("remove a label", "SetLabel", name="rows", label="new")
    wish("remove it again", "SetLabel", name="rows", label="new")
    wish("remove a label of the files", "SetLabel", name="rows", label="stable")
    wish("unload a step", "UnloadModel", name="proven")
    wish("predict without its step", "UnloadModel", name="chain")
    wish("load the step", "LoadModel", name="proven")
    wish("load the ensemble", "LoadModel", name="chain")
    for name in ("nobody", "", "failing", "misread", "nothing"):
        wish(f"load {name!r}", "LoadModel", name=name)
        wish(f"unload {name!r}", "UnloadModel", name=name)
        wish(f"roll back {name!r}", "Rollback", name=name)
        wish(f"label {name!r}", "SetLabel", name=name, label="l", version=1)
    wish("load a version that is not", "LoadModel", name="several", version=9)
    wish("unload a version that is not", "UnloadModel", name="several", version=9)
    for model, parameters in (
        ("counting", {}),
        ("counting", {"unload_dependents": True}),
        ("nobody", {}),
        ("counting", {"other": "x"}),
    ):
        for kind in ("Unload", "Load"):
            request = getattr(oip_control, f"RepositoryModel{kind}Request")(model_name=model)
            for key, value in parameters.items():
                field = "bool_param" if isinstance(value, bool) else "string_param"
                setattr(request.parameters[key], field, value)
            kinds = getattr(oip_control, f"RepositoryModel{kind}Response")
            notes.see(f"oip {kind} {model} {parameters}", side.ask(f"{OIP}RepositoryModel{kind}", request, kinds))
    _reload(notes)
    notes.see(
        "list after all",
        side.ask(f"{MODELS}ListModels", native_models.ListModelsRequest(), native_models.ListModelsResponse),
    )


def _reload(notes: Notes) -> None:
    """HandleReloadConfigRequest of TensorFlow Serving."""
    side = notes.side
    config = tfs_models.ModelServerConfig()
    for name, change in {
        "nothing": lambda c: None,
        "empty list": lambda c: c.model_config_list.SetInParent(),
        "no path": lambda c: c.model_config_list.config.add(name="more"),
        "no name": lambda c: c.model_config_list.config.add(base_path="/nowhere"),
        "relative path": lambda c: c.model_config_list.config.add(name="more", base_path="models/rows"),
        "twice": lambda c: [c.model_config_list.config.add(name="more", base_path="/nowhere") for _ in range(2)],
        "nowhere": lambda c: c.model_config_list.config.add(name="more", base_path="/nowhere"),
    }.items():
        config = tfs_models.ModelServerConfig()
        change(config)
        request = tfs_models.ReloadConfigRequest(config=config)
        answer = side.ask(f"{TFS_MODELS}HandleReloadConfigRequest", request, tfs_models.ReloadConfigResponse)
        notes.see(f"reload {name}", answer)
        settled(side)
    asked = tfs_models.GetModelStatusRequest(model_spec=tfs_spec("rows"))
    notes.see("reload, status", side.ask(f"{TFS_MODELS}GetModelStatus", asked, tfs_models.GetModelStatusResponse))


def play_published(notes: Notes) -> None:
    """Versions appear and disappear on disk, one change at a time."""
    side = notes.side
    root = side.repository
    asked = native_models.WatchModelsRequest()
    watch = side.watch(f"{MODELS}WatchModels", asked, native_models.WatchModelsResponse)
    seen: dict[tuple[str, int], list[str]] = {}

    def until(model: str, version: int, state: str, case: str) -> None:
        """Reads WatchModels until the version is in a state, then asks for its status and a prediction."""
        while True:
            event = watch.read()
            if event is None:
                raise AssertionError(f"the watch ended: {watch.end()}")
            key = event["name"], event["version"]["version"]
            now = native_models.VersionState.Name(event["version"]["state"])
            seen.setdefault(key, []).append(now)
            if key != (model, version) or event.get("initial"):
                continue
            if now == f"VERSION_STATE_{state}" or (state == "FAILED" and event["version"].get("error")):
                break
        status = native_models.GetModelStatusRequest(name=model)
        notes.see(case, side.ask(f"{MODELS}GetModelStatus", status, native_models.GetModelStatusResponse))
        request = native(model, {"x": rows(1)})
        notes.see(f"{case}: predict", side.ask(PREDICT, request, native_predict.PredictResponse))

    signature = models.signature([models.X], [models.Z, models.Y])
    models.steps(root / "rows", 2, signature, marker=2)
    until("rows", 1, "END", "a newer version")
    models.steps(root / "rows", 3, signature, fail="this one is broken")
    until("rows", 3, "FAILED", "a broken version")
    models.steps(root / "fresh", 7, signature, marker=7)
    until("fresh", 7, "AVAILABLE", "a new model")
    _removed(root / "rows" / "2")
    until("rows", 2, "END", "the version is removed")
    _removed(root / "fresh" / "7")
    (root / "fresh").rmdir()
    until("fresh", 7, "END", "the model is removed")
    watch.cancel()
    notes.see("states", {f"{model}:{version}": states for (model, version), states in seen.items()})


def settled(side: Side) -> None:
    """Waits until no version is loading or unloading, and no replaced generation has requests left."""
    passing = (native_models.VERSION_STATE_LOADING, native_models.VERSION_STATE_UNLOADING)

    def at_rest() -> bool:
        asked = native_models.ListModelsRequest()
        found = side.ask(f"{MODELS}ListModels", asked, native_models.ListModelsResponse)["answer"]["models"]
        versions = [version for model in found for version in model.get("versions", ())]
        notes = [note for version in versions for note in version.get("notes", ())]
        return not any(version["state"] in passing for version in versions) and not any("finishes" in n for n in notes)

    side.until(at_rest, "every version is at rest")


def _removed(version: Path) -> None:
    hidden = version.with_name(f".gone-{version.name}")
    version.rename(hidden)
    for file in hidden.iterdir():
        file.unlink()
    hidden.rmdir()


def play_shared_memory(notes: Notes) -> None:
    """Tensors in system shared memory, valid and invalid, over gRPC and REST."""
    side = notes.side
    x = rows(1, 2)
    region = shared_memory.SharedMemory(f"{side.shared[1:]}-x", create=True, size=4096)
    try:
        region.buf[: x.nbytes] = x.tobytes()
        _registered(notes, f"{side.shared}-x")
        for turn in ("first", "again"):
            for name, (source, target) in _PLACES.items():
                request = _in_memory(source, target)
                notes.see(f"infer {name} ({turn})", side.ask(INFER, request, oip_infer.ModelInferResponse))
                written = np.frombuffer(bytes(region.buf[1024 : 1024 + x.nbytes]), np.float32)
                notes.see(f"written {name} ({turn})", [str(each) for each in written])
                region.buf[1024:2048] = bytes(1024)
        for kind in ("system", "cuda"):
            notes.see(f"rest {kind}", side.rest("GET", f"/v2/{kind}sharedmemory/status"))
        body = f'{{"key": "{side.shared}-x", "offset": 0, "byte_size": 64}}'
        for path in ("region/r/register", "region/r/register", "region/r/unregister", "unregister"):
            notes.see(f"rest {path} {len(notes.seen)}", side.rest("POST", f"/v2/systemsharedmemory/{path}", body))
        request = _in_memory((0, 32), None)
        notes.see("infer without region", side.ask(INFER, request, oip_infer.ModelInferResponse))
    finally:
        region.close()
        region.unlink()


_PLACES: dict[str, tuple[Any, Any]] = {
    "input": ((0, 32), None),
    "output": (None, (1024, 32)),
    "both": ((0, 32), (1024, 32)),
    "input too small": ((0, 16), None),
    "input past the end": ((4080, 32), None),
    "negative offset": ((-1, 32), None),
    "output too small": (None, (1024, 16)),
    "output past the end": (None, (4090, 32)),
}


def _in_memory(source: Any, target: Any) -> oip_infer.ModelInferRequest:
    request = oip("rows", {"x": rows(1, 2)})
    if source is not None:
        del request.raw_input_contents[:]
        _place(request.inputs[0].parameters, *source)
    if target is not None:
        _place(request.outputs.add(name="y").parameters, *target)
    return request


def _place(parameters: Any, offset: int, size: int) -> None:
    parameters["shared_memory_region"].string_param = "x"
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = size


def _registered(notes: Notes, key: str) -> None:
    side = notes.side
    for name, fields in {
        "unknown key": {"name": "a", "key": f"{key}-none", "byte_size": 64},
        "forbidden key": {"name": "a", "key": "/elsewhere", "byte_size": 64},
        "no key": {"name": "a", "byte_size": 64},
        "no name": {"key": key, "byte_size": 64},
        "too large": {"name": "a", "key": key, "byte_size": 2**40},
        "offset past the end": {"name": "a", "key": key, "offset": 2**20, "byte_size": 64},
        "right": {"name": "x", "key": key, "byte_size": 4096},
        "again": {"name": "x", "key": key, "byte_size": 4096},
    }.items():
        request = oip_control.SystemSharedMemoryRegisterRequest(**fields)
        answer = side.ask(f"{OIP}SystemSharedMemoryRegister", request, oip_control.SystemSharedMemoryRegisterResponse)
        notes.see(f"register {name}", answer)
    for name in ("", "x", "none"):
        status = oip_control.SystemSharedMemoryStatusRequest(name=name)
        answer = side.ask(f"{OIP}SystemSharedMemoryStatus", status, oip_control.SystemSharedMemoryStatusResponse)
        notes.see(f"region {name!r}", answer)
    cuda = oip_control.CudaSharedMemoryRegisterRequest(name="c", raw_handle=b"h", byte_size=64)
    answer = side.ask(f"{OIP}CudaSharedMemoryRegister", cuda, oip_control.CudaSharedMemoryRegisterResponse)
    notes.see("register cuda", answer)
    forget = oip_control.SystemSharedMemoryUnregisterRequest(name="none")
    answer = side.ask(f"{OIP}SystemSharedMemoryUnregister", forget, oip_control.SystemSharedMemoryUnregisterResponse)
    notes.see("unregister what is not", answer)
