"""Every public call of tritonclient's InferenceServerClient works or is refused with a reason, as the table in
docs/protocols.md says."""

from __future__ import annotations

import inspect
import os
import queue
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shm
from support.foreign_models import serve
from support.rpc import Served
from tritonclient.utils import InferenceServerException

from inferd.server.config.schema import ServerConfig

Client = triton.InferenceServerClient
DOC = Path(__file__).parents[3] / "docs" / "protocols.md"
BEGIN, END = "<!-- tritonclient calls: begin -->", "<!-- tritonclient calls: end -->"
KEY = f"/inferd_test_{os.getpid()}_table"


@pytest.fixture
def server(kind: str) -> Iterator[Served]:
    """A server with the features on that are off by default."""
    settings = {"server": {"shared_memory": "/"}, "admin": {"allow_upload": True}}
    served = serve(ServerConfig.model_validate(settings), kind)
    yield served
    served.end()


def x() -> list[triton.InferInput]:
    tensor = triton.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    return [tensor]


def _async(client: Client) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer("digits", x(), lambda result, error: answers.put(error))
    assert answers.get(timeout=10) is None


def _stream(client: Client) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    client.async_stream_infer("digits", x())
    assert answers.get(timeout=10) is None
    client.stop_stream()


def _register(client: Client) -> None:
    handle = shm.create_shared_memory_region("local", KEY, 64)
    try:
        client.register_system_shared_memory("r", KEY, 64)
    finally:
        shm.destroy_shared_memory_region(handle)


CALLS: dict[str, Callable[[Client], Any]] = {
    "is_server_live": lambda c: c.is_server_live(),
    "is_server_ready": lambda c: c.is_server_ready(),
    "is_model_ready": lambda c: c.is_model_ready("digits"),
    "get_server_metadata": lambda c: c.get_server_metadata(),
    "get_model_metadata": lambda c: c.get_model_metadata("digits"),
    "get_model_config": lambda c: c.get_model_config("digits"),
    "get_model_repository_index": lambda c: c.get_model_repository_index(),
    "load_model": lambda c: c.load_model("digits"),
    "load_model with config": lambda c: c.load_model("digits", config="{}"),
    "load_model with config and files": lambda c: c.load_model("digits", config="{}", files={"file:1/m": b"x"}),
    "unload_model": lambda c: c.unload_model("digits"),
    "get_inference_statistics": lambda c: c.get_inference_statistics("digits"),
    "infer": lambda c: c.infer("digits", x()),
    "infer with sequence_id": lambda c: c.infer("digits", x(), sequence_id=1, sequence_start=True),
    "async_infer": _async,
    "start_stream": _stream,
    "async_stream_infer": _stream,
    "stop_stream": _stream,
    "get_trace_settings": lambda c: c.get_trace_settings(),
    "update_trace_settings": lambda c: c.update_trace_settings(settings={"trace_rate": "5"}),
    "get_log_settings": lambda c: c.get_log_settings(),
    "update_log_settings": lambda c: c.update_log_settings({"log_verbose_level": 1}),
    "get_system_shared_memory_status": lambda c: c.get_system_shared_memory_status(),
    "register_system_shared_memory": _register,
    "unregister_system_shared_memory": lambda c: c.unregister_system_shared_memory(),
    "get_cuda_shared_memory_status": lambda c: c.get_cuda_shared_memory_status(),
    "register_cuda_shared_memory": lambda c: c.register_cuda_shared_memory("r", b"a" * 64, 0, 64),
    "unregister_cuda_shared_memory": lambda c: c.unregister_cuda_shared_memory(),
    "close": lambda c: None,
}
LOCAL = {"plugin", "register_plugin", "unregister_plugin"}
"""Calls that never reach a server."""


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_the_table_has_every_call_of_the_client() -> None:
    asked = {name.split(" ")[0] for name in CALLS}
    assert asked == public(Client) - LOCAL
    assert public(triton_aio.InferenceServerClient) - LOCAL - {"stream_infer"} <= asked


def outcome(client: Client, call: Callable[[Client], Any]) -> str:
    try:
        call(client)
    except InferenceServerException as error:
        return f"{error.status().removeprefix('StatusCode.')}: {error.message()}"
    return "works"


def test_every_call_works_or_is_refused_with_a_reason(client: Client) -> None:
    outcomes = {name: outcome(client, call) for name, call in CALLS.items()}
    assert all(found == "works" or found.startswith("UNIMPLEMENTED: ") for found in outcomes.values()), outcomes
    rows = [f"| `{name}` | {found} |" for name, found in outcomes.items()]
    table = "\n".join(["| call | |", "| --- | --- |", *rows])
    found = re.search(f"{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}", DOC.read_text(), re.DOTALL)
    assert found is not None, f"{DOC.name} has no table"
    if found[1] != table:
        pytest.fail(f"{DOC.name}: replace the table of tritonclient's calls by\n{table}")
