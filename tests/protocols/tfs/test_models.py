"""TensorFlow Serving's metadata and status of models with the real stubs."""

from __future__ import annotations

from typing import Any

import pytest
from support.foreign_models import add
from support.rpc import Served, refused

from inferd.backends.api import Signature, TensorSpec
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
tf = pytest.importorskip("tensorflow")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)


def predictions(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def models(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def test_metadata_unpacks_into_tensorflow_servings_class(channel: Any) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest()
    asked.model_spec.name = "digits"
    asked.metadata_field.append("signature_def")
    answer = predictions(channel).GetModelMetadata(asked)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(signature.outputs) == {"y", "z"}
    info = signature.inputs["x"]
    assert info.dtype == tf.float32.as_datatype_enum
    assert tf.TensorShape(info.tensor_shape).as_list() == [None, None]


def test_metadata_of_every_element_type_and_of_unknown_ranks(channel: Any, server: Served) -> None:
    signature = Signature("s", (TensorSpec("x", DType.STRING, None),), (TensorSpec("y", DType.BF16, ()),))
    add(server.manager, "odd", (signature,), dict)
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "odd"
    found = get_model_metadata_pb2.SignatureDefMap()
    predictions(channel).GetModelMetadata(asked).metadata["signature_def"].Unpack(found)
    info = found.signature_def["s"]
    assert info.inputs["x"].tensor_shape.unknown_rank
    assert info.inputs["x"].dtype == tf.string.as_datatype_enum
    assert tf.TensorShape(info.outputs["y"].tensor_shape).as_list() == []
    assert info.outputs["y"].dtype == tf.bfloat16.as_datatype_enum
    asked.model_spec.name = "echo"
    predictions(channel).GetModelMetadata(asked)


@pytest.mark.parametrize(
    ("name", "fields", "code", "text"),
    [
        ("nope", ["signature_def"], "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("digits", [], "INVALID_ARGUMENT", "must specify at least one metadata_field"),
        ("digits", ["other"], "INVALID_ARGUMENT", "Metadata field other is not supported"),
        ("", ["signature_def"], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_wrong_metadata_requests_are_refused(
    channel: Any, name: str | None, fields: list[str], code: str, text: str
) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        asked.model_spec.name = name
        asked.model_spec.SetInParent()
    error = refused(lambda: predictions(channel).GetModelMetadata(asked))
    assert error.code().name == code
    assert text in error.details()


def _status(channel: Any, name: str, version: int | None = None, label: str = "") -> Any:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = name
    if version is not None:
        asked.model_spec.version.value = version
    if label:
        asked.model_spec.version_label = label
    return models(channel).GetModelStatus(asked).model_version_status


def test_status_of_all_versions_and_of_one(channel: Any, server: Served) -> None:
    change = server.manager.change
    change(VersionStatus(ServableId("digits", 2), State.LOADING))
    change(VersionStatus(ServableId("digits", 3), State.FAILED, error="no graph"))
    change(VersionStatus(ServableId("digits", 4), State.END))
    change(VersionStatus(ServableId("digits", 5), State.UNLOADING))
    change(VersionStatus(ServableId("digits", 6), State.END, notes=("on disk, not served: version policy latest(1)",)))
    # This version was served before, so it is listed although it is now only on disk.
    gone = ("on disk, not served: version policy latest(1)",)
    change(VersionStatus(ServableId("digits", 7), State.END, generation=3, notes=gone))
    found = [(s.version, s.state, s.status.error_code, s.status.error_message) for s in _status(channel, "digits")]
    assert found == [
        (7, 50, 0, ""),
        (5, 40, 0, ""),
        (4, 50, 0, ""),
        (3, 50, 9, "no graph"),
        (2, 20, 0, ""),
        (1, 30, 0, ""),
    ]
    assert [s.version for s in _status(channel, "digits", 2)] == [2]
    assert len(_status(channel, "digits", label="canary")) == 6


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("nope", None, "Could not find any versions of model nope"),
        ("digits", 9, "Could not find version 9 of model digits"),
    ],
)
def test_status_of_an_unknown_model_or_version_is_not_found(
    channel: Any, name: str, version: int | None, text: str
) -> None:
    error = refused(lambda: _status(channel, name, version))
    assert error.code().name == "NOT_FOUND"
    assert error.details().startswith(text)
