"""inferd's definitions of foreign messages compared with the original ones: equal field numbers and types.

Both can be loaded in one process. Each test runs in a separate process, because the original definitions need an empty
descriptor pool.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = {
    "inferd": "import inferd.oip.v1.grpc_inference_service_pb2, inferd.tfs.v1.model_service_pb2",
    "tritonclient": "import tritonclient.grpc, tritonclient.grpc.aio",
    "tensorflow": "import tensorflow\nimport tensorflow_serving.apis.prediction_service_pb2_grpc",
}


def run(code: str) -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr[-3000:]


def test_inference_messages_have_tritons_field_numbers() -> None:
    run(
        """
from support.foreign import compare_services
from tritonclient.grpc import service_pb2 as theirs
from inferd.oip.v1 import grpc_inference_service_pb2 as ours
name = "GRPCInferenceService"
count = compare_services(ours.DESCRIPTOR.services_by_name[name], theirs.DESCRIPTOR.services_by_name[name],
                         only_ours={"inferd.oip.v1.ModelMetadataResponse.properties"})
assert count > 60, count
"""
    )


@pytest.mark.heavy
def test_serving_messages_have_tensorflows_field_numbers() -> None:
    run(
        """
from support.foreign import compare_messages, compare_services
from tensorflow_serving.apis import get_model_metadata_pb2, model_service_pb2, prediction_service_pb2
from inferd.tfs.v1 import model_service_pb2 as our_models, prediction_service_pb2 as our_predictions
count = 0
for name, ours, theirs in (("PredictionService", our_predictions, prediction_service_pb2),
                           ("ModelService", our_models, model_service_pb2)):
    count += compare_services(ours.DESCRIPTOR.services_by_name[name], theirs.DESCRIPTOR.services_by_name[name],
                              as_int={"inferd.tfs.v1.ModelConfig.model_type"})
assert count > 40, count
compare_messages(our_predictions.SignatureDefMap.DESCRIPTOR, get_model_metadata_pb2.SignatureDefMap.DESCRIPTOR, set())
"""
    )


@pytest.mark.heavy
@pytest.mark.parametrize("order", [tuple(IMPORTS), tuple(reversed(IMPORTS))], ids="-".join)
def test_all_definitions_can_be_loaded_in_one_process(order: tuple[str, ...]) -> None:
    run("\n".join(IMPORTS[name] for name in order))
