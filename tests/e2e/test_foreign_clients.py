"""Unmodified clients of Triton and TensorFlow Serving with a real server and models of every framework."""

from __future__ import annotations

import asyncio
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf import message_factory, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.server import Served
from support.waiting import eventually
from tritonclient.utils import InferenceServerException

from inferd.client import Client

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
REPOSITORY = Path(__file__).parents[2] / "model_repository"
MODELS = ("digits_onnx", "digits_torch", "digits_pt2", "digits_tf")
IMAGES = np.random.default_rng(7).random((5, 64), np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("foreign") / "models"
    shutil.copytree(REPOSITORY, root, ignore=shutil.ignore_patterns("*.md"))
    with Served(root) as server:
        yield server


@pytest.fixture(scope="module")
def expected(served: Served) -> dict[str, dict[str, np.ndarray]]:
    """The native client's answers."""
    with Client(served.address) as client:
        return {model: dict(client.predict(model, {"image": IMAGES})) for model in MODELS}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address) as found:
        yield found


def images(rows: np.ndarray = IMAGES) -> list[Any]:
    tensor = triton.InferInput("image", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


def assert_same(answer: Any, expected: dict[str, np.ndarray], rows: slice = slice(None)) -> None:
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected["probabilities"][rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(answer.as_numpy("digit"), expected["digit"][rows])


@pytest.mark.parametrize("model", MODELS)
def test_tritonclient_infers_and_classifies(client: triton.InferenceServerClient, expected: Any, model: str) -> None:
    assert client.is_model_ready(model)
    answer = client.infer(model, images(), request_id="a")
    assert_same(answer, expected[model])
    assert answer.get_response().id == "a"
    top = client.infer(model, images(), outputs=[triton.InferRequestedOutput("probabilities", class_count=1)])
    found = [int(item.split(b":")[1]) for item in top.as_numpy("probabilities")[:, 0]]
    assert found == expected[model]["digit"].tolist()


@pytest.mark.parametrize("model", MODELS)
def test_tritonclient_async_infer_and_stream(client: triton.InferenceServerClient, expected: Any, model: str) -> None:
    answers: queue.Queue[Any] = queue.Queue()

    def keep(result: Any, error: Any) -> None:
        answers.put((result, error))

    client.async_infer(model, images(), keep)
    result, error = answers.get(timeout=30)
    assert error is None
    assert_same(result, expected[model])
    client.start_stream(keep)
    for row in range(len(IMAGES)):
        client.async_stream_infer(model, images(IMAGES[row : row + 1]), request_id=str(row))
    for row in range(len(IMAGES)):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.get_response().id == str(row)
        assert_same(result, expected[model], slice(row, row + 1))
    client.stop_stream()


def test_tritonclient_asyncio_infer_and_stream(served: Served, expected: Any) -> None:
    async def requests() -> Any:
        for model in MODELS:
            yield {"model_name": model, "inputs": images(), "request_id": model}

    async def run() -> None:
        async with triton_aio.InferenceServerClient(served.address) as aio:
            assert await aio.is_server_ready()
            answers = await asyncio.gather(*(aio.infer(model, images()) for model in MODELS for _ in range(10)))
            for place, answer in enumerate(answers):
                assert_same(answer, expected[MODELS[place // 10]])
            seen = []
            async for result, error in aio.stream_infer(requests()):
                assert error is None
                seen.append(result.get_response().id)
                assert_same(result, expected[seen[-1]])
                if len(seen) == len(MODELS):
                    break
            assert seen == list(MODELS)

    asyncio.run(run())


@pytest.mark.parametrize("model", MODELS)
def test_the_usual_tensorflow_serving_snippet_works(served: Served, expected: Any, model: str) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    channel = grpc.insecure_channel(served.address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(IMAGES, shape=[5, 64]))
    result = stub.Predict(request, 10.0)
    scores = np.array(result.outputs["probabilities"].float_val).reshape(5, 10)
    np.testing.assert_allclose(scores, expected[model]["probabilities"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tf.make_ndarray(result.outputs["digit"]), expected[model]["digit"])
    channel.close()


@pytest.mark.parametrize("model", MODELS)
def test_metadata_and_status_unpack_into_tensorflow_servings_classes(served: Served, model: str) -> None:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    with grpc.insecure_channel(served.address) as channel:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, 10.0)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        inputs = signatures.signature_def["serving_default"].inputs
        assert [dim.size for dim in inputs["image"].tensor_shape.dim] == [-1, 64]
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = model
        found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, 10.0)
        assert [entry.state for entry in found.model_version_status] == [30]


def test_statistics_count_requests_rows_and_runs(client: triton.InferenceServerClient) -> None:
    def figures() -> Any:
        (found,) = client.get_inference_statistics("digits_onnx").model_stats
        return found

    before = figures()
    for rows in (1, 2, 5):
        client.infer("digits_onnx", images(IMAGES[:rows]))
    # The last run is counted after its requests were answered.
    eventually(lambda: figures().execution_count - before.execution_count == 3, "three runs counted")
    after = figures()
    assert after.inference_count - before.inference_count == 8
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert sum(b.batch_size * b.compute_infer.count for b in after.batch_stats) == after.inference_count
    assert sum(b.compute_infer.count for b in after.batch_stats) == after.execution_count
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert {s.name for s in client.get_inference_statistics().model_stats} == set(MODELS)


def test_unload_and_load_change_what_is_ready(client: triton.InferenceServerClient) -> None:
    client.unload_model("digits_torch")
    assert not client.is_model_ready("digits_torch")
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'digits_torch'") as caught:
        client.infer("digits_torch", images())
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    client.load_model("digits_torch")
    assert client.is_model_ready("digits_torch")
    with pytest.raises(InferenceServerException, match="failed to load 'nope'"):
        client.load_model("nope")


def test_an_unloaded_model_is_unavailable_in_the_index(client: triton.InferenceServerClient) -> None:
    client.unload_model("digits_pt2")
    index = {entry.name: entry for entry in client.get_model_repository_index().models}
    assert index["digits_pt2"].state == "UNAVAILABLE"
    assert index["digits_pt2"].reason
    client.load_model("digits_pt2")


def test_the_model_config_is_a_valid_config_pbtxt(
    client: triton.InferenceServerClient, expected: Any, tmp_path: Path
) -> None:
    root = tmp_path / "pasted"
    for model in MODELS:
        shutil.copytree(REPOSITORY / model, root / model)
        (root / model / "model.yaml").unlink(missing_ok=True)
        config = client.get_model_config(model).config
        (root / model / "config.pbtxt").write_text(text_format.MessageToString(config))
    with Served(root) as server, triton.InferenceServerClient(server.address) as pasted:
        for model in MODELS:
            assert_same(pasted.infer(model, images()), expected[model])
            assert pasted.get_model_metadata(model) == client.get_model_metadata(model)
            assert pasted.get_model_config(model) == client.get_model_config(model)


def test_reflection_has_the_protocols_real_names(served: Served, expected: Any) -> None:
    """A client that has only what reflection describes (grpcurl, for example) can call ModelInfer."""
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {
            "inference.GRPCInferenceService",
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
        } <= set(database.get_services())
        pool = DescriptorPool(database)
        predict = pool.FindServiceByName("tensorflow.serving.PredictionService").FindMethodByName("Predict")
        inputs = predict.input_type.fields_by_name["inputs"].message_type.fields_by_name["value"].message_type
        assert inputs.full_name == "tensorflow.TensorProto"
        assert inputs.fields_by_name["dtype"].enum_type.full_name == "tensorflow.DataType"
        assert pool.FindMessageTypeByName("tensorflow.serving.SignatureDefMap")
        method = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ModelInfer")
        asked = message_factory.GetMessageClass(method.input_type)(model_name="digits_onnx")
        assert method.input_type.full_name == "inference.ModelInferRequest"
        asked.inputs.add(name="image", datatype="FP32", shape=[5, 64])
        asked.raw_input_contents.append(IMAGES.tobytes())
        answer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )(asked, timeout=10)
        place = [output.name for output in answer.outputs].index("digit")
        digits = np.frombuffer(answer.raw_output_contents[place], np.int64)
        assert digits.tolist() == expected["digits_onnx"]["digit"].tolist()
