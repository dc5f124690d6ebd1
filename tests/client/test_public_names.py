"""The public interface: its names, the modules that importing loads, and type checking of calls."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import inferd.client
from inferd.client import AsyncClient, Client

NAMES = [
    "NO_RETRIES", "AdminReply", "AsyncClient", "AsyncPredictStream", "Cancelled", "Client", "ClientClosed", "DType",
    "DeadlineExceeded", "FailedPrecondition", "InferdError", "InputValue", "Inputs", "InvalidArgument",
    "InvalidInput", "InvalidResponse",
    "KeepAlive", "MessageTooLarge", "ModelMetadata", "ModelStatus", "NotFound", "Overloaded", "Override",
    "PermissionDenied", "PredictStream", "Prediction", "RequestError", "RetryPolicy", "ServerFailure", "Signature",
    "TensorSpec", "Tls", "Unauthenticated", "Unavailable", "Unsupported", "VersionChange", "VersionState",
    "VersionStatus",
]  # fmt: skip
METHODS = {
    "as_arrays", "close", "list_models", "load", "metadata", "predict", "predict_many", "ready", "rollback",
    "set_label", "status", "stream", "submit", "unload", "wait_ready", "watch",
}  # fmt: skip


def test_the_public_names_are_pinned():
    assert inferd.client.__all__ == NAMES
    visible = {name for name in vars(inferd.client) if not name.startswith("_")}
    assert visible == set(NAMES)


def test_the_methods_are_pinned_and_both_clients_have_the_same():
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")} - {"timeout", "address"}

    assert public(Client) == METHODS
    assert public(AsyncClient) == METHODS - {"submit"}


@pytest.mark.parametrize("name", sorted(METHODS - {"submit", "close"}))
def test_both_clients_take_the_same_arguments(name):
    sync, aio = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (Client, AsyncClient))
    assert sync == aio
    assert inspect.signature(Client).parameters.keys() == inspect.signature(AsyncClient).parameters.keys()


def test_the_generated_stubs_stay_importable():
    from inferd.v1 import model_service_pb2_grpc, predict_service_pb2_grpc

    assert predict_service_pb2_grpc.PredictServiceStub
    assert model_service_pb2_grpc.ModelServiceStub


def test_importing_the_client_needs_only_the_base_installation():
    program = """
import sys
import google.protobuf.message, grpc, grpc.aio, numpy  # these bring what they bring
before = {name.partition(".")[0] for name in sys.modules}
import inferd.client
new = set(sys.modules)
print(*sorted({n.partition(".")[0] for n in new} - before - set(sys.stdlib_module_names)))
print(*sorted(n for n in new if n.startswith(("inferd.server", "inferd.backends"))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    brought, of_the_server = done.stdout.splitlines()
    assert set(brought.split()) <= {"inferd", "google", "typing_extensions"}
    assert of_the_server == ""


WRONG = """\
import numpy as np
from inferd.client import AsyncClient, Client, Prediction, RetryPolicy, Tls

client = Client("localhost:8001")
array = np.zeros(2, np.float32)
fine: Prediction = client.predict("m", {"x": array}, version=1, timeout=5.0)
for answer in client.predict_many("m", [array], in_flight=4):
    print(answer["y"].shape, answer.version)
client.predict("m", {"x": array}, version="1")  # wrong
client.predict("m", {"x": array}, 1)  # wrong
client.predict("m")  # wrong
client.predict("m", {"x": array}, verison=1)  # wrong
client.submit("m", {"x": array}, verison=1)  # wrong
client.predict("m", {"x": array}).versoin  # wrong
client.predict_many("m", [array], errors="ignore")  # wrong
for outcome in client.predict_many("m", [array], errors="return"):
    outcome["y"]  # wrong
Client("localhost", load_balancing="random")  # wrong
Client("localhost", retry=3)  # wrong
RetryPolicy().attempts = 4  # wrong
Tls(ca=3)  # wrong
client.set_label("m", "stable")  # wrong


async def use(other: AsyncClient) -> int:
    other.predict("m", {"x": array}).version  # wrong
    return (await other.predict("m", {"x": array})).version
"""


def test_the_type_checker_refuses_wrong_calls_only(tmp_path: Path):
    root = Path(__file__).parents[2]
    file = tmp_path / "calls.py"
    file.write_text(WRONG)
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"),
            "--cache-dir", str(tmp_path / "cache"), "--no-error-summary", "--hide-error-context", str(file),
        ],
        capture_output=True, text=True, cwd=root, check=False,
    )  # fmt: skip
    refused = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    expected = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert refused == expected, done.stdout + done.stderr
