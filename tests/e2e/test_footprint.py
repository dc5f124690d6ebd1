"""A server imports only the frameworks that its models need, and no modules for other purposes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from support.marked import prepare_model, publish
from support.server import Served

from inferd.client import Client

MIB = 2**20


def mapped(server: Served) -> str:
    return Path(f"/proc/{server.pid}/maps").read_text()


def test_an_onnx_server_is_small_and_imports_no_other_framework(tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "small"), 1, marker=1)
    with Served(root) as server, Client(server.address) as client:
        assert client.predict("small", {"x": np.zeros((1, 4), np.float32)}).version == 1
        libraries = mapped(server)
        assert "onnxruntime" in libraries
        assert "libtorch" not in libraries
        assert "tensorflow" not in libraries
        assert server.memory() < 150 * MIB


# Modules that take memory and that only commands, other settings or other protocols need.
UNNEEDED = (
    "inferd.client", "inferd.server.cli.remote", "numpy.random", "fastapi", "jwt", "rich", "PIL",
    "google.protobuf.descriptor_pb2", "inferd.server.protocols.common.reflection_answers",
    "inferd.server.access.authority",
    "inferd.server.isolation.proxy", "inferd.server.config.meanings",
)  # fmt: skip


def test_a_server_imports_no_unneeded_modules(tmp_path: Path) -> None:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "small"), 1, marker=1)
    with Served(root, env={"PYTHONPROFILEIMPORTTIME": "1"}) as server, Client(server.address) as client:
        assert client.predict("small", {"x": np.zeros((1, 4), np.float32)}).version == 1
        with urlopen(f"http://{server.http}/metrics", timeout=30) as answer:
            assert b"inferd_" in answer.read()
        imported = set(re.findall(r"^import time: .*\| +(\S+)$", server.log.read_text(), re.MULTILINE))
    assert {"inferd.server.app", "onnxruntime"} <= imported  # so the list of imports is complete
    assert not imported.intersection(UNNEEDED)


def test_a_server_without_models_imports_no_framework(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with Served(root) as server:
        libraries = mapped(server)
        assert not any(name in libraries for name in ("onnxruntime", "libtorch", "tensorflow"))


@pytest.mark.heavy
def test_a_framework_is_imported_with_the_first_model_that_needs_it(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with Served(root) as server, Client(server.address) as client:
        publish("torch", prepare_model("torch", root, "late"), 1, marker=1)
        client.wait_ready(60.0, model="late")
        assert "libtorch" in mapped(server)
        assert "tensorflow" not in mapped(server)
