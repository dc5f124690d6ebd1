"""The client with the oldest and the newest grpcio and protobuf that it supports, each in a separate environment."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.marked import prepare_model, publish
from support.server import Served

ROOT = Path(__file__).resolve().parent.parent.parent
ENDS = {
    "oldest": ["grpcio==1.75.1", "protobuf==6.31.1", "numpy==1.26.4"],
    "newest": ["grpcio", "protobuf>=7", "numpy"],
}
PROGRAM = """
import sys
import numpy as np
from inferd.client import Client, InvalidArgument
from inferd.v1 import predict_service_pb2_grpc, model_service_pb2_grpc
with Client(sys.argv[1]) as client:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    answer = client.predict("marked", {"x": x}, timeout=20.0)
    assert np.array_equal(answer["y"], x + 5), answer["y"]
    assert client.metadata("marked").signatures[0].inputs[0].shape == (-1, 4)
    assert [p["y"].shape for p in client.predict_many("marked", [{"x": x}] * 3)] == [(2, 4)] * 3
    with client.stream() as stream:
        assert stream.submit("marked", {"x": x}).result(20)["y"].shape == (2, 4)
    try:
        client.predict("marked", {"x": x.astype(np.int64)})
    except InvalidArgument:
        import google.protobuf, grpc
        print(grpc.__version__, google.protobuf.__version__, np.__version__)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("range") / "models"
    publish("onnx", prepare_model("onnx", root, "marked"), 1, marker=5)
    with Served(root) as server:
        yield server


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wheel that `pip install inferd` installs."""
    place = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT))
    (found,) = place.glob("inferd-*.whl")
    return str(found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", ENDS)
def test_the_oldest_and_newest_supported_packages(end: str, wheel: str, served: Served, tmp_path: Path) -> None:
    home = tmp_path / end
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    pip("--python", python, "install", "--no-compile", wheel, *ENDS[end])
    ran = subprocess.run(
        [python, "-W", "error", "-c", PROGRAM, served.address],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    versions = ran.stdout.split()
    if end == "oldest":
        assert versions == ["1.75.1", "6.31.1", "1.26.4"]
    else:
        assert versions[1].startswith("7.")
    command = [str(home / "bin" / "inferd")]
    listed = subprocess.run(
        [*command, "models", "--address", served.address], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    assert "marked" in listed.stdout
    for subcommand in ("serve", "check"):
        refused = subprocess.run([*command, subcommand], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "pip install 'inferd[" in refused.stderr, "a server needs more than the client, and says what"
        assert "Traceback" not in refused.stderr
