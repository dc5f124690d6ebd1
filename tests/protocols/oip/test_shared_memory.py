"""System shared memory with the real tritonclient: inputs, outputs, and bounds on what a client can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from support.foreign_models import serve
from support.rpc import Served, eventually
from tritonclient.utils import InferenceServerException

from inferd.server.config.schema import ServerConfig
from inferd.server.errors import AlreadyExists, InvalidRequest, NotFound
from inferd.server.inference.shared_memory import Region, Regions

Client = triton.InferenceServerClient
PREFIX = f"/inferd_test_{os.getpid()}_"
KEY = f"{PREFIX}a"


@pytest.fixture
def server(kind: str) -> Iterator[Served]:
    served = serve(ServerConfig.model_validate({"server": {"shared_memory": PREFIX}}), kind)
    yield served
    served.end()


@pytest.fixture
def memory() -> Iterator[Any]:
    """A region with 16 bytes of input at 0 and 64 bytes for outputs after them."""
    handle = shm.create_shared_memory_region("local", KEY, 80)
    shm.set_shared_memory_region(handle, [np.array([[1, 2, 3, 4]], np.float32)])
    yield handle
    shm.destroy_shared_memory_region(handle)


def far_input(region: str = "r", size: int = 16, offset: int = 0) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_shared_memory(region, size, offset)
    return [tensor]


def far_output(region: str = "r", size: int = 64, offset: int = 16, name: str = "y") -> triton.InferRequestedOutput:
    output = triton.InferRequestedOutput(name)
    output.set_shared_memory(region, size, offset)
    return output


def refused(fn: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        fn(*args, **kwargs)
    return caught.value.status(), caught.value.message()


def test_inputs_and_outputs_use_shared_memory(client: Client, server: Served, memory: Any) -> None:
    assert "system_shared_memory" in client.get_server_metadata().extensions
    client.register_system_shared_memory("r", KEY, 80)
    answer = client.infer("digits", far_input(), outputs=[far_output(), triton.InferRequestedOutput("z")])
    y = answer.get_output("y")
    assert y.parameters["shared_memory_region"].string_param == "r"
    assert y.parameters["shared_memory_byte_size"].int64_param == 16
    assert y.parameters["shared_memory_offset"].int64_param == 16
    assert answer.get_response().raw_output_contents[0] == b""
    assert shm.get_contents_as_numpy(memory, np.float32, [1, 4], 16).tolist() == [[2, 4, 6, 8]]
    assert answer.as_numpy("z").tolist() == [[1, 2, 3, 4]]


def test_a_stream_uses_shared_memory(client: Client, memory: Any) -> None:
    import queue

    client.register_system_shared_memory("r", KEY, 80)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    client.async_stream_infer("digits", far_input(), outputs=[far_output()])
    assert answers.get(timeout=10) is None
    assert shm.get_contents_as_numpy(memory, np.float32, [1, 4], 16).tolist() == [[2, 4, 6, 8]]
    client.async_stream_infer("digits", far_input("nope"))
    assert "Unable to find shared memory region: 'nope'" in answers.get(timeout=10).message()


def test_an_input_in_shared_memory_has_no_raw_contents(client: Client, memory: Any) -> None:
    client.register_system_shared_memory("r", KEY, 80)
    far = triton.InferInput("in_FP32", [1, 4], "FP32")
    far.set_shared_memory("r", 16)
    near = triton.InferInput("in_INT32", [1, 1], "INT32")
    near.set_data_from_numpy(np.array([[7]], np.int32))
    answer = client.infer("echo", [far, near])
    assert answer.as_numpy("out_FP32").tolist() == [[1, 2, 3, 4]]
    assert answer.as_numpy("out_INT32").tolist() == [[7]]


def test_regions_are_listed_and_unregistered(client: Client, memory: Any) -> None:
    client.register_system_shared_memory("r", KEY, 64, offset=16)
    client.register_system_shared_memory("s", KEY, 80)
    found = client.get_system_shared_memory_status().regions
    assert sorted(found) == ["r", "s"]
    assert (found["r"].key, found["r"].offset, found["r"].byte_size) == (KEY, 16, 64)
    assert list(client.get_system_shared_memory_status("s").regions) == ["s"]
    status, text = refused(client.register_system_shared_memory, "r", KEY, 8)
    assert (status, text) == ("StatusCode.ALREADY_EXISTS", "shared memory region 'r' already in manager")
    client.unregister_system_shared_memory("r")
    client.unregister_system_shared_memory("r")
    status, text = refused(client.get_system_shared_memory_status, "r")
    assert (status, text) == ("StatusCode.NOT_FOUND", "Unable to find shared memory region: 'r'")
    assert refused(client.infer, "digits", far_input())[0] == "StatusCode.NOT_FOUND"
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


@pytest.mark.parametrize(
    ("key", "size", "offset", "text"),
    [
        ("/etc", 8, 0, "expected '<prefix>' in front (server.shared_memory)"),
        ("<prefix>none", 8, 0, "Unable to open shared memory region"),
        ("<prefix>a", 81, 0, "holds 80 bytes, got offset 0 and 81 bytes"),
        ("<prefix>a", 8, 79, "holds 80 bytes, got offset 79 and 8 bytes"),
        ("<prefix>a", 0, 0, "got offset 0 and 0 bytes"),
        ("<prefix>a", 2**63, 2**63, "holds 80 bytes"),
        ("../../etc/passwd", 8, 0, "expected letters, digits, '_', '-' and '.' behind a '/'"),
        ("<prefix>/../x", 8, 0, "expected letters, digits, '_', '-' and '.' behind a '/'"),
        ("..", 8, 0, "expected letters, digits, '_', '-' and '.' behind a '/'"),
        ("", 8, 0, "expected letters, digits, '_', '-' and '.' behind a '/'"),
        ("/triton_python_backend_shm_region_1", 8, 0, "are reserved"),
    ],
)
def test_keys_are_confined(client: Client, memory: Any, key: str, size: int, offset: int, text: str) -> None:
    # The prefix has the number of this process, which must not be in the names of tests: pytest-xdist compares them.
    key, text = (each.replace("<prefix>", PREFIX) for each in (key, text))
    status, got = refused(client.register_system_shared_memory, "r", key, size, offset)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert text in got


@pytest.mark.parametrize(
    ("tensors", "outputs", "status", "text"),
    [
        (far_input(size=12), None, "INVALID_ARGUMENT", "expected 16 bytes for FP32 of shape [1, 4], got 12"),
        (
            far_input(size=16, offset=70),
            None,
            "INVALID_ARGUMENT",
            "invalid offset + byte size for shared memory region",
        ),
        (far_input("nope"), None, "NOT_FOUND", "Unable to find shared memory region: 'nope'"),
        (far_input(), [far_output(size=15)], "INTERNAL", "should be at least 16 bytes to hold the results"),
        (far_input(), [far_output(size=99)], "INVALID_ARGUMENT", "invalid offset + byte size"),
    ],
)
def test_tensors_that_do_not_fit_their_region_are_refused(
    client: Client, memory: Any, tensors: Any, outputs: Any, status: str, text: str
) -> None:
    client.register_system_shared_memory("r", KEY, 80)
    got = refused(client.infer, "digits", tensors, outputs=outputs)
    assert got[0] == f"StatusCode.{status}"
    assert text in got[1]


def test_classification_and_shared_memory_exclude_each_other(client: Client, memory: Any) -> None:
    client.register_system_shared_memory("r", KEY, 80)
    output = far_output()
    output._output.parameters["classification"].int64_param = 1
    assert "exclude each other" in refused(client.infer, "digits", far_input(), outputs=[output])[1]


def test_a_truncated_region_is_the_clients_error_and_no_crash(client: Client, memory: Any) -> None:
    client.register_system_shared_memory("r", KEY, 80)
    os.truncate(f"/dev/shm{KEY}", 8)
    status, text = refused(client.infer, "digits", far_input())
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "expected 16 bytes, only 8 are left" in text
    assert client.is_server_live()


def test_a_region_in_use_outlives_its_unregistering(client: Client, server: Served, memory: Any) -> None:
    import queue

    client.register_system_shared_memory("r", KEY, 80)
    server.scheduler.holding = True
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        "digits", far_input(), lambda result, error: answers.put((result, error)), outputs=[far_output()]
    )
    server.scheduler.wait_for(1)
    client.unregister_system_shared_memory("r")
    server.scheduler.step()
    _, error = answers.get(timeout=10)
    assert error is None
    assert shm.get_contents_as_numpy(memory, np.float32, [1, 4], 16).tolist() == [[2, 4, 6, 8]]


def test_descriptors_of_regions_are_closed(client: Client, server: Served, memory: Any) -> None:
    def open_files() -> int:
        return sum(
            f"/dev/shm{KEY}" in os.readlink(entry)
            for entry in Path("/proc/self/fd").iterdir()
            if os.path.lexists(entry)
        )

    before = open_files()
    for _ in range(5):
        client.register_system_shared_memory("r", KEY, 80)
        client.infer("digits", far_input())
        client.unregister_system_shared_memory("r")
        refused(client.register_system_shared_memory, "r", KEY, 800)
    eventually(lambda: open_files() <= before)  # fewer if an earlier server has closed its own meanwhile


def test_all_inputs_in_shared_memory_are_bounded_together(kind: str, memory: Any) -> None:
    served = serve(ServerConfig.model_validate({"server": {"shared_memory": "/"}, "inflight": {"bytes": "40B"}}), kind)
    try:
        with Client(served.address) as client:
            client.register_system_shared_memory("r", KEY, 80)
            other = triton.InferInput("in_INT32", [1, 8], "INT32")
            other.set_shared_memory("r", 32)
            first = triton.InferInput("in_FP32", [1, 4], "FP32")
            first.set_shared_memory("r", 16)
            text = refused(client.infer, "echo", [first, other])[1]
            assert text == "expected inputs of at most 40 bytes in shared memory, got 48"
    finally:
        served.end()


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_remote_callers_are_refused_shared_memory(client: Client, memory: Any, header: str) -> None:
    headers = {header: "10.0.0.1"}
    status, text = refused(client.register_system_shared_memory, "r", KEY, 80, headers=headers)
    assert status == "StatusCode.PERMISSION_DENIED"
    assert "open to callers on the server's own machine" in text
    client.register_system_shared_memory("r", KEY, 80)
    assert refused(client.infer, "digits", far_input(), headers=headers)[0] == "StatusCode.PERMISSION_DENIED"
    status, _ = refused(client.unregister_system_shared_memory, "r", headers=headers)
    assert status == "StatusCode.PERMISSION_DENIED"


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    regions = Regions("/", 1000, str(tmp_path))
    for key in ("/link", "/pipe", "/folder", "/none"):
        with pytest.raises(InvalidRequest):
            regions.register("r", key, 0, 8)
    regions.register("r", "secret", 0, 100)
    with pytest.raises(AlreadyExists):
        regions.register("r", "/secret", 0, 100)
    with pytest.raises(NotFound):
        regions.status("s")
    (region,) = regions.status("")
    assert isinstance(region, Region)
    assert region.read(90, 10) == b"x" * 10
