"""Every method of every service, over both transports, for every kind of caller: the right code, and nothing done for
whoever may not. A method that is not in this table fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from support.access import STATIC, WatchedManager, bad_credentials, guarded_config, header, with_scopes
from support.foreign_models import CountingMetrics
from support.rpc import TRANSPORTS, FakeManager, FakeMetrics, Served, request
from support.security import Keys

from inferd.oip.v1 import control_pb2 as oip
from inferd.oip.v1 import infer_pb2
from inferd.server.access.grants import Scope
from inferd.server.access.method_rules import RULES
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.tfs.v1 import model_service_pb2 as tfs_models
from inferd.tfs.v1 import prediction_service_pb2 as tfs
from inferd.v1 import model_service_pb2 as native

NATIVE, TRITON = "/inferd.v1.ModelService/", "/inference.GRPCInferenceService/"
PREDICTION, MODELS = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
OK, DENIED, NOBODY = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True)
class Asked:
    """A good request for a model (for none in particular where it names none), and how it ends for whoever may."""

    message: object
    names_model: bool = True
    good: frozenset[grpc.StatusCode] = frozenset({OK})

    def of(self, model: str) -> bytes:
        """The request, for a model."""
        made = self.message(model) if callable(self.message) else self.message
        return made if isinstance(made, bytes) else made.SerializeToString()


def infer(model: str) -> infer_pb2.ModelInferRequest:
    asked = infer_pb2.ModelInferRequest(model_name=model, raw_input_contents=[np.ones(1, np.float32).tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    return asked


def tfs_predict(model: str) -> tfs.PredictRequest:
    asked = tfs.PredictRequest(model_spec={"name": model})
    tensor = asked.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(1.0)
    return asked


def examples(kind: type) -> object:
    def asked(model: str) -> object:
        made = kind(model_spec={"name": model})
        made.input.example_list.examples.add()
        return made

    return asked


def multi(model: str) -> tfs.MultiInferenceRequest:
    made = tfs.MultiInferenceRequest()
    made.input.example_list.examples.add()
    made.tasks.add(model_spec={"name": model}, method_name="tensorflow/serving/classify")
    return made


def reload(model: str) -> tfs_models.ReloadConfigRequest:
    made = tfs_models.ReloadConfigRequest()
    made.config.model_config_list.config.add(name=model, base_path=f"/nowhere/{model}")
    return made


def metadata(model: str) -> tfs.GetModelMetadataRequest:
    return tfs.GetModelMetadataRequest(model_spec={"name": model}, metadata_field=["signature_def"])


# A model of floats is no model for Examples: whoever may ask is told so.
REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION})
NOT_OFFERED = frozenset({grpc.StatusCode.UNIMPLEMENTED})
UNARY = {
    "/inferd.v1.PredictService/Predict": Asked(lambda model: request(name=model)),
    f"{NATIVE}ListModels": Asked(b"", False),
    f"{NATIVE}GetModelStatus": Asked(lambda model: native.GetModelStatusRequest(name=model)),
    f"{NATIVE}GetModelMetadata": Asked(lambda model: native.GetModelMetadataRequest(name=model)),
    f"{NATIVE}LoadModel": Asked(lambda model: native.LoadModelRequest(name=model)),
    f"{NATIVE}UnloadModel": Asked(lambda model: native.UnloadModelRequest(name=model)),
    f"{NATIVE}SetLabel": Asked(lambda model: native.SetLabelRequest(name=model, label="stable", version=1)),
    f"{NATIVE}Rollback": Asked(lambda model: native.RollbackRequest(name=model)),
    "/grpc.health.v1.Health/Check": Asked(b"", False),
    f"{TRITON}ServerLive": Asked(b"", False),
    f"{TRITON}ServerReady": Asked(b"", False),
    f"{TRITON}ModelReady": Asked(lambda model: oip.ModelReadyRequest(name=model)),
    f"{TRITON}ServerMetadata": Asked(b"", False),
    f"{TRITON}ModelMetadata": Asked(lambda model: oip.ModelMetadataRequest(name=model)),
    f"{TRITON}ModelConfig": Asked(lambda model: oip.ModelConfigRequest(name=model)),
    f"{TRITON}ModelInfer": Asked(infer),
    f"{TRITON}ModelStatistics": Asked(lambda model: oip.ModelStatisticsRequest(name=model)),
    f"{TRITON}RepositoryIndex": Asked(b"", False),
    f"{TRITON}RepositoryModelLoad": Asked(lambda model: oip.RepositoryModelLoadRequest(model_name=model)),
    f"{TRITON}RepositoryModelUnload": Asked(lambda model: oip.RepositoryModelUnloadRequest(model_name=model)),
    f"{TRITON}SystemSharedMemoryStatus": Asked(b"", False, NOT_OFFERED),
    f"{TRITON}SystemSharedMemoryRegister": Asked(b"", False, NOT_OFFERED),
    f"{TRITON}SystemSharedMemoryUnregister": Asked(b"", False, NOT_OFFERED),
    f"{TRITON}TraceSetting": Asked(lambda model: oip.TraceSettingRequest(model_name=model)),
    f"{TRITON}LogSettings": Asked(b"", False),
    f"{TRITON}CudaSharedMemoryStatus": Asked(b"", False, NOT_OFFERED),
    f"{TRITON}CudaSharedMemoryRegister": Asked(b"", False, NOT_OFFERED),
    f"{TRITON}CudaSharedMemoryUnregister": Asked(b"", False, NOT_OFFERED),
    f"{PREDICTION}Predict": Asked(tfs_predict),
    f"{PREDICTION}Classify": Asked(examples(tfs.ClassificationRequest), good=REFUSED),
    f"{PREDICTION}Regress": Asked(examples(tfs.RegressionRequest), good=REFUSED),
    f"{PREDICTION}MultiInference": Asked(multi, good=REFUSED),
    f"{PREDICTION}GetModelMetadata": Asked(metadata),
    f"{MODELS}GetModelStatus": Asked(lambda model: tfs_models.GetModelStatusRequest(model_spec={"name": model})),
    f"{MODELS}HandleReloadConfigRequest": Asked(reload, good=frozenset({OK, grpc.StatusCode.FAILED_PRECONDITION})),
}
STREAM = {
    "/inferd.v1.PredictService/PredictStream": Asked(lambda model: request(name=model)),
    f"{NATIVE}WatchModels": Asked(lambda model: native.WatchModelsRequest(name=model)),
    f"{TRITON}ModelStreamInfer": Asked(infer),
    "/grpc.health.v1.Health/Watch": Asked(b"", False),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Asked(b"\x3a\x00", False),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Asked(b"\x3a\x00", False),
}
METHODS = {**UNARY, **STREAM}
# What a stream says of one of its messages is in its answers, and it goes on.
IN_BAND = {"/inferd.v1.PredictService/PredictStream", f"{TRITON}ModelStreamInfer"}
LISTS = {f"{NATIVE}WatchModels"}  # names a model as a filter: what is not the caller's is just not in there


@pytest.fixture(scope="module", params=sorted(TRANSPORTS))
def guarded(request, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = guarded_config(tmp_path_factory.mktemp("access"), keys)
    served = Served(request.param, manager=WatchedManager(), config=config, metrics=CountingMetrics())
    yield served
    served.end()


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def channel(guarded: Served) -> grpc.Channel:
    return guarded.channel()


def ask(channel: grpc.Channel, method: str, message: bytes, authorization: str | None) -> tuple[grpc.StatusCode, str]:
    """How one request ends: its code and text. Of a stream the first answer is enough."""
    metadata = header(authorization)
    try:
        if method in UNARY:
            channel.unary_unary(method)(message, metadata=metadata, timeout=20)
        else:
            answers = channel.stream_stream(method)(iter([message]), metadata=metadata, timeout=20)
            next(answers, None)
            answers.cancel()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return OK, ""


def test_the_table_leaves_no_method_out() -> None:
    config = ServerConfig()
    table = build_method_table(FakeManager(), FakeMetrics(), config, inflight=InflightBounds(config.inflight))
    assert set(UNARY) == set(table.unary)
    assert set(STREAM) == set(table.stream)
    assert set(METHODS) == set(RULES)


BAD = ("none", "bad signature", "expired", "wrong audience", "unknown token", "another form")


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.parametrize("method", METHODS)
def test_bad_credentials(guarded: Served, channel: grpc.Channel, keys: Keys, method: str, wrong: str) -> None:
    before = len(guarded.manager.touched)
    authorization = bad_credentials(keys)[wrong]
    code, text = ask(channel, method, METHODS[method].of("digits"), authorization)
    if wrong == "none" and RULES[method].need == "health":
        assert code is OK
        return
    assert code is NOBODY, text
    assert text.startswith("expected ")
    assert authorization is None or authorization.split()[1] not in text
    assert len(guarded.manager.touched) == before


@pytest.mark.parametrize("method", [method for method in METHODS if RULES[method].need != "health"])
def test_the_wrong_scope(guarded: Served, channel: grpc.Channel, keys: Keys, method: str) -> None:
    need = RULES[method].need
    scope = need if isinstance(need, Scope) else Scope.METADATA
    others = {Scope.PREDICT: ["metadata", "admin"], Scope.METADATA: ["predict"], Scope.ADMIN: ["predict", "metadata"]}
    before = len(guarded.manager.touched)
    code, text = ask(channel, method, METHODS[method].of("digits"), with_scopes(keys, others[scope]))
    assert (code, text) == (DENIED, f"expected credentials with the scope '{scope.value}', got others")
    # Before the message is judged: a stranger learns nothing.
    assert ask(channel, method, b"\xff\xff", with_scopes(keys, others[scope]))[0] is DENIED
    assert len(guarded.manager.touched) == before


@pytest.mark.parametrize("method", [name for name, asked in METHODS.items() if asked.names_model and name not in LISTS])
def test_another_model(guarded: Served, channel: grpc.Channel, keys: Keys, method: str) -> None:
    """The refusal is the same whether there is such a model or not."""
    mine = with_scopes(keys, ["predict", "metadata", "admin"], ["dig*"])
    before = len(guarded.manager.touched)
    if method in IN_BAND:
        texts = {
            model: first_answer(channel, method, METHODS[method].of(model), mine) for model in ("secret", "nosuch")
        }
        assert " credentials with the scope 'predict' for model 'secret'" in texts["secret"]
    else:
        codes = {model: ask(channel, method, METHODS[method].of(model), mine) for model in ("secret", "nosuch")}
        assert {code for code, _ in codes.values()} == {DENIED}
        texts = {model: text for model, (_, text) in codes.items()}
    assert texts["secret"].replace("secret", "nosuch") == texts["nosuch"]
    assert len(guarded.manager.touched) == before


def first_answer(channel: grpc.Channel, method: str, message: bytes, authorization: str) -> str:
    answers = channel.stream_stream(method)(iter([message]), metadata=header(authorization), timeout=20)
    return next(answers).decode("latin-1").partition("expected")[2]


@pytest.mark.parametrize("kind", ["static", "jwt"])
@pytest.mark.parametrize("method", METHODS)
def test_good_credentials(channel: grpc.Channel, keys: Keys, method: str, kind: str) -> None:
    need = RULES[method].need
    scope = need.value if isinstance(need, Scope) else "metadata"
    good = f"Bearer {STATIC}" if kind == "static" else with_scopes(keys, [scope], ["digits"])
    code, text = ask(channel, method, METHODS[method].of("digits"), good)
    assert code in METHODS[method].good, text


@pytest.mark.parametrize("method", [f"{NATIVE}ListModels", f"{TRITON}RepositoryIndex", f"{NATIVE}WatchModels"])
def test_lists_show_what_is_the_callers(channel: grpc.Channel, keys: Keys, method: str) -> None:
    for pattern, there, absent in (("dig*", b"digits", b"secret"), ("sec*", b"secret", b"digits")):
        authorization = header(with_scopes(keys, ["metadata"], [pattern]))
        if method in UNARY:
            found = channel.unary_unary(method)(b"", metadata=authorization, timeout=20)
        else:
            answers = channel.stream_stream(method)(iter([b""]), metadata=authorization, timeout=20)
            found = next(answers)
            answers.cancel()
        assert there in found
        assert absent not in found
