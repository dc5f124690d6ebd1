"""The client and the command line with the real server and a real model on disk."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.server import Served

from inferd.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    DType,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    VersionState,
)

DIGITS = Path(__file__).parents[2] / "model_repository" / "digits_onnx"
pytest.importorskip("onnxruntime")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    shutil.copytree(DIGITS, tmp_path / "models" / "digits")
    with Served(tmp_path / "models") as server:
        yield server


@pytest.fixture
def connected(served: Served, connect: Callable[..., Any]) -> Any:
    return connect(served.address)


def test_the_whole_contract(connected, served: Served):
    """All calls use one server, because starting a server takes longer than all of them."""
    client = connected
    client.wait_ready(30)
    image = np.linspace(0, 1, 64, dtype=np.float32)[None]

    metadata = client.metadata("digits")
    assert (metadata.name, metadata.version, metadata.backend, metadata.stateful) == ("digits", 2, "onnx", False)
    assert [(spec.name, spec.dtype, spec.shape) for spec in metadata.signatures[0].inputs] == [
        ("image", DType.FP32, (-1, 64))
    ]

    answer = client.predict("digits", {"image": image}, timeout=5.0, request_id="r-1")
    assert (answer.version, answer.request_id) == (2, "r-1")
    np.testing.assert_allclose(answer["probabilities"].sum(), 1.0, rtol=1e-5)
    # A list without a name gets its name and element type from the metadata; the answer is the same.
    again = client.predict("digits", image.tolist(), outputs=["probabilities"])
    assert list(again) == ["probabilities"]
    np.testing.assert_allclose(again["probabilities"], answer["probabilities"], rtol=1e-5)

    with pytest.raises(NotFound, match="nope"):
        client.predict("nope", {"image": image})
    with pytest.raises(NotFound):
        client.predict("digits", {"image": image}, version=9)
    with pytest.raises(NotFound):
        client.predict("digits", {"image": image}, label="nope")
    with pytest.raises(InvalidArgument, match="image") as caught:
        client.predict("digits", {"image": image[:, :5]})
    assert caught.value.accepted is False
    with pytest.raises(InvalidArgument, match="FP64"):
        client.predict("digits", {"image": image.astype(np.float64)})

    numbers = [np.full((1, 64), i / 100, np.float32) for i in range(100)]
    many = list(client.predict_many("digits", ({"image": n} for n in numbers), in_flight=16))
    with client.stream() as stream:
        futures = [stream.submit("digits", {"image": n}) for n in numbers]
        streamed = [future.result() for future in futures]
    for one, two in zip(many, streamed, strict=True):
        np.testing.assert_allclose(one["probabilities"], two["probabilities"], rtol=1e-4, atol=1e-6)
    with client.stream() as stream, pytest.raises(NotFound):
        stream.submit("nope", {"image": image}).result()

    reply = client.load("digits", version=1)
    assert set(reply.model.available) == {1, 2}
    assert reply.persistent is False
    client.set_label("digits", "canary", 1)
    assert client.predict("digits", {"image": image}, label="canary").version == 1
    with pytest.raises((FailedPrecondition, NotFound)):
        client.set_label("digits", "canary", 7)
    client.rollback("digits")
    assert client.predict("digits", {"image": image}).version == 1
    client.unload("digits")
    assert client.ready("digits") is False
    with pytest.raises(NotFound):
        client.predict("digits", {"image": image})
    with pytest.raises(DeadlineExceeded):
        client.wait_ready(0.3, "digits")
    client.load("digits")
    client.wait_ready(30, "digits")
    assert client.status("digits").available[0] == 2


def test_a_watch_reports_a_new_version(served: Served):
    with Client(served.address) as client:
        client.wait_ready(30)
        seen: list[tuple[int, VersionState]] = []
        begun = threading.Event()

        def watch() -> None:
            for change in client.watch("digits", timeout=60.0):
                seen.append((change.version.version, change.version.state))
                begun.set()
                if seen[-1] == (3, VersionState.AVAILABLE):
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        assert begun.wait(30)
        hidden = served.repository / "digits" / ".next"
        shutil.copytree(DIGITS / "1", hidden)
        hidden.rename(served.repository / "digits" / "3")
        thread.join(60)
        assert seen[-1] == (3, VersionState.AVAILABLE)
        assert (3, VersionState.LOADING) in seen


def test_a_client_survives_a_restart_of_the_server(served: Served):
    """Accepted requests are answered, and the client goes on with the new server by itself."""
    image = np.zeros((1, 64), np.float32)
    with Client(served.address, timeout=60.0) as client:
        client.predict("digits", {"image": image})
        assert served.stop() == 0
        with Served(served.repository, "--listen", served.address, log=served.repository.parent / "second.log"):
            client.wait_ready(30)
            assert client.predict("digits", {"image": image}).version == 2


def test_cancelled_tasks_do_not_affect_other_requests(served: Served):
    async def main() -> None:
        async with AsyncClient(served.address) as client:
            images = [np.full((1, 64), i / 50, np.float32) for i in range(50)]
            alone = [await client.predict("digits", {"image": image}) for image in images]
            tasks = [asyncio.create_task(client.predict("digits", {"image": image})) for image in images]
            for task in tasks[::3]:
                await asyncio.sleep(0)
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for i, (outcome, expected) in enumerate(zip(outcomes, alone, strict=True)):
                if isinstance(outcome, asyncio.CancelledError):
                    assert i % 3 == 0
                else:
                    np.testing.assert_allclose(
                        outcome["probabilities"], expected["probabilities"], rtol=1e-3, atol=1e-6
                    )

    asyncio.run(main())


def test_the_command_line(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import json

    from inferd.server.cli.main import main

    image = pytest.importorskip("PIL.Image")
    image.new("L", (16, 16), 255).save(tmp_path / "digit.png")
    address = ("-a", served.address)
    with Client(served.address) as client:
        client.wait_ready(30)
    options = ("--layout", "NHW", "--resize", "8x8", "--scale", "16/255")
    assert main(["predict", "digits", "-i", f"@{tmp_path}/digit.png", *options, "--json", *address]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["probabilities"]["shape"] == [1, 10]
    published = ["publish", "digits", str(DIGITS / "1"), "-r", str(served.repository), "--wait", "--json", *address]
    assert main(published) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 3
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = [
        "publish",
        "digits",
        str(tmp_path / "broken.onnx"),
        "-r",
        str(served.repository),
        "--no-check",
        "--wait",
        *address,
    ]
    assert main(broken) == 1
    assert "digits:4 failed to load" in capsys.readouterr().err
    assert main(["bench", "digits", "-n", "100", "--batch", "2", "--json", *address]) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == 100
    assert main(["models", "--json", *address]) == 0
    states = {v["version"]: v["state"] for v in json.loads(capsys.readouterr().out)[0]["versions"]}
    assert states[3] == "AVAILABLE"
