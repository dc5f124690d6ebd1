"""The real tritonclient.http with every element type, and a server without the libraries for REST."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from support.rest import Rest
from tritonclient.utils import InferenceServerException

from inferd.server.composition import http_port as choice
from inferd.server.config.schema import Http
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpServer
from inferd.wire.dtypes import DType

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([[b"a\0b", "ü".encode()]], object),
    "FP16": np.array([[1.5, -2]], np.float16),
    "BF16": np.array([[1.5, -2]], DType.BF16.numpy),
}


def values(name: str) -> Any:
    return VALUES.get(name, np.array([[1, 100]], DType[name].numpy if name != "BYTES" else object))


@pytest.fixture
def client(rest: Rest) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(rest.address) as found:
        yield found


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", [dtype.oip_name for dtype in DType])
def test_every_element_type_round_trips(client: triton.InferenceServerClient, name: str, binary: bool) -> None:
    array = values(name)
    tensor = triton.InferInput(f"in_{name}", list(array.shape), name)
    if name in ("FP16", "BF16") and not binary:
        with pytest.raises(InferenceServerException, match="binary"):
            _infer_as_json(client, tensor, array)
        return
    tensor.set_data_from_numpy(array, binary_data=binary)
    output = triton.InferRequestedOutput(f"out_{name}", binary_data=binary)
    answer = client.infer("echo", [tensor], outputs=[output])
    found = answer.as_numpy(f"out_{name}")
    if name == "BYTES":
        found = np.array(
            [[item if isinstance(item, bytes) else item.encode() for item in row] for row in found], object
        )
    np.testing.assert_array_equal(found, array)


def _infer_as_json(client: triton.InferenceServerClient, tensor: Any, array: Any) -> None:
    """For one of the two types, tritonclient refuses JSON itself."""
    tensor.set_data_from_numpy(array, binary_data=False)
    client.infer("echo", [tensor])


def test_json_and_binary_tensors_can_be_mixed(client: triton.InferenceServerClient) -> None:
    inputs, outputs = [], []
    names = ("FP32", "BYTES", "INT8", "FP64", "BOOL")
    for place, name in enumerate(names):
        tensor = triton.InferInput(f"in_{name}", [1, 2], name)
        tensor.set_data_from_numpy(values(name), binary_data=place % 2 == 0)
        inputs.append(tensor)
        outputs.append(triton.InferRequestedOutput(f"out_{name}", binary_data=place % 3 == 0))
    answer = client.infer("echo", inputs, outputs=outputs)
    for name in ("FP32", "INT8", "FP64", "BOOL"):
        np.testing.assert_array_equal(answer.as_numpy(f"out_{name}"), values(name))


async def _aio(address: str) -> Any:
    async with triton_aio.InferenceServerClient(address) as client:
        tensor = triton.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
        assert await client.is_server_live()
        return (await client.infer("digits", [tensor], request_compression_algorithm="gzip")).as_numpy("y")


def test_the_asyncio_client_works(rest: Rest) -> None:
    import asyncio

    assert asyncio.run(_aio(rest.address)).tolist() == [[2.0]]


def test_without_the_rest_libraries_the_pages_are_served(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(addresses: tuple[str, ...]) -> Any:
        return choice.make_http_server(addresses, bytes, lambda: ReadinessLike(True), rest.rest._core, Http())

    assert type(make(("127.0.0.1:0",))).__name__ == "RestServer"
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "orjson" else object())
    with caplog.at_level(logging.INFO, "inferd.http"):
        server = make(("127.0.0.1:0",))
    assert isinstance(server, HttpServer)
    assert "REST needs orjson: pip install 'inferd[http]'" in caplog.text
    caplog.clear()
    make(())
    assert not caplog.text
    server.start()
    server.refuse()
    assert server.drain(0.0)
    server.stop()
