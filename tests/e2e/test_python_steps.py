"""Python steps around a model (`steps.py`) behind a real server: the examples, and steps that come and go with their
version."""

from __future__ import annotations

import io
import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.marked import prepare_model, write_version
from support.protocols import PROTOCOLS, Callers
from support.server import FAST, Served
from support.traffic import Traffic
from support.waiting import eventually
from tritonclient.utils import InferenceServerException

from inferd.client import NO_RETRIES, Client, InvalidArgument, RetryPolicy, ServerFailure, VersionState
from inferd.server.cli.main import main

pytest.importorskip("PIL")
pytestmark = pytest.mark.timeout(240)
EXAMPLES = Path(__file__).parents[2] / "examples" / "python_steps" / "models"
MARKED = """\
signatures:
  - inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]
version_policy: {latest: 2}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The examples, and `marked`: y = x + marker in ONNX, with a step that adds 100 times the marker before."""
    root = tmp_path_factory.mktemp("steps") / "models"
    shutil.copytree(EXAMPLES, root)
    prepare_model("onnx", root, "marked", MARKED)
    publish_marked(root, 1)
    sets = (*FAST, f"repository.allow={{{root}: [python]}}", "admin.allow_upload=true")
    with Served(root, sets=sets) as server:
        yield server


def publish_marked(root: Path, number: int) -> None:
    hidden = root / "marked" / f".{number}"
    write_version("onnx", hidden, number)
    (hidden / "steps.py").write_text(f"def before(x):\n    return {{'x': x + x.dtype.type({100 * number})}}\n")
    hidden.rename(root / "marked" / str(number))


def pictures(count: int) -> tuple[list[bytes], list[int]]:
    """The first of scikit-learn's digits as PNG files."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    files = []
    for image in images[:count]:
        file = io.BytesIO()
        Image.fromarray(np.round(image.reshape(8, 8) / 16 * 255).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files, digits[:count].tolist()


NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_go_in_and_embeddings_come_out(served: Served, protocol: str) -> None:
    text = np.array([b"The cat sleeps.", b"A dog barks.", b"Snow falls today.", b"The wind blows."], object)
    with Callers(served) as callers:
        outcome = callers.send(protocol, "sentences", {"text": text})
        assert outcome.code == "OK", outcome.text
        (found,) = outcome.outputs.values()
        found = np.asarray(found, np.float32).reshape(4, 32)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
        near = found @ found.T
        assert near[0, 1] > 0.8
        assert near[2, 3] > 0.8
        assert near[:2, 2:].max() < 0.5
        assert callers.send(protocol, "sentences", {"text": np.array([b" "], object)}).refused


def test_pictures_go_in_and_names_come_out(served: Served) -> None:
    files, digits = pictures(90)
    rows = np.array(files, object)
    with Client(served.address, retry=NO_RETRIES, timeout=60.0) as client:
        assert client.status("digits_png").versions[0].batching == "up to 32 rows (declared)"
        named = [client.predict("digits_png", {"png": rows[at : at + 30]})["label"] for at in range(0, 90, 30)]
        found = [NAMES.index(name.decode()) for names in named for name in names]
        assert np.mean(np.array(found) == digits) > 0.95
        with pytest.raises(InvalidArgument, match="expected a whole PNG or JPEG image, got 20 bytes"):
            client.predict("digits_png", {"png": np.array([files[0][:20]], object)})
        with pytest.raises(InvalidArgument, match="expected a whole PNG"):
            client.predict("digits_png", {"png": np.array([files[0][:-40]], object)})
        answer = client.predict("digits_png", {"png": rows[:1]})
        assert answer["confidence"].dtype == np.float32


def test_pictures_over_rest_and_on_the_command_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    import base64

    seven = EXAMPLES / "digits_png" / "seven.png"
    body = {"instances": [{"b64": base64.b64encode(seven.read_bytes()).decode()}]}
    request = urllib.request.Request(f"http://{served.http}/v1/models/digits_png:predict", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        (prediction,) = json.load(answer)["predictions"]
    assert prediction["label"] == "seven"
    assert main(["predict", "digits_png", "-i", f"png=@{seven}", "--json", "--address", served.address]) == 0
    assert "seven" in capsys.readouterr().out


def test_tritons_own_client_sends_pictures(served: Served) -> None:
    files, digits = pictures(3)
    given = triton.InferInput("png", [3], "BYTES")
    given.set_data_from_numpy(np.array(files, object))
    with triton.InferenceServerClient(served.address) as client:
        found = client.infer("digits_png", [given]).as_numpy("label")
    assert [NAMES.index(name.decode()) for name in found] == digits


def test_a_picture_of_another_caller_that_is_none_fails_alone(served: Served) -> None:
    """The steps are declared idempotent, so a failed batch runs again request by request."""
    files, digits = pictures(40)
    with Client(served.address, retry=NO_RETRIES, timeout=60.0) as client:
        inputs = [{"png": np.array([file if i % 5 else b"junk"], object)} for i, file in enumerate(files)]
        outcomes = list(client.predict_many("digits_png", inputs, in_flight=40, errors="return"))
    for i, outcome in enumerate(outcomes):
        if i % 5:
            assert outcome["label"].tolist() == [NAMES[digits[i]].encode()]
        else:
            assert isinstance(outcome, InvalidArgument), outcome


def test_steps_are_swapped_and_rolled_back_with_their_model(served: Served) -> None:
    root = served.repository
    with Client(served.address, timeout=60.0) as client, Traffic(served.address, "marked") as traffic:
        traffic.more(50)
        publish_marked(root, 2)
        traffic.marker(202)
        client.rollback("marked", to=1)
        seen = traffic.more(100)
    assert not seen.failures, seen.failures[:3]
    assert not seen.wrong, seen.wrong[:3]
    assert set(seen.markers) == {101, 202}, "never the steps of one version with the model of the other"
    assert all(order[:2] == [101, 202] for order in seen.orders), seen.orders


def test_a_version_whose_steps_fail_the_sample_is_not_served(served: Served) -> None:
    root = served.repository
    shutil.copytree(EXAMPLES / "digits_png" / "1", root / "digits_png" / ".2")
    code = (root / "digits_png" / ".2" / "steps.py").read_text()
    (root / "digits_png" / ".2" / "steps.py").write_text(code.replace("np.float32)[np.newaxis]", "np.float32)"))
    (root / "digits_png" / ".2").rename(root / "digits_png" / "2")
    with Client(served.address, timeout=60.0) as client:

        def failed() -> str:
            return next((v.error for v in client.status("digits_png").versions if v.version == 2), "")

        error = eventually(failed, "version 2 has failed")
        assert re.search(r"before: 'image': expected shape \[-1, 1, 8, 8\], got \[1, 8, 8\]", error), error
        states = {version.version: version.state for version in client.status("digits_png").versions}
        assert states[1] is VersionState.AVAILABLE


def test_uploaded_code_needs_an_entry_of_its_own(served: Served) -> None:
    files = {f"file:1/{path.name}": path.read_bytes() for path in (EXAMPLES / "sentences" / "1").iterdir()}
    refusal = pytest.raises(InferenceServerException, match=r"steps.py is Python code.*\{uploads: \[python\]\}")
    with triton.InferenceServerClient(served.address) as client, refusal:
        client.load_model("sent", config="{}", files=files)


def test_a_step_that_ends_its_process_harms_no_other_model(served: Served) -> None:
    root = served.repository
    prepare_model("onnx", root, "leaving", MARKED)
    hidden = root / "leaving" / ".1"
    write_version("onnx", hidden, 5)
    (hidden / "steps.py").write_text("import os\ndef before(x):\n    return {'x': x} if x[0, 0] < 9 else os._exit(4)\n")
    hidden.rename(root / "leaving" / "1")
    x = np.zeros((1, 4), np.float32)
    with Client(served.address, retry=NO_RETRIES, timeout=60.0) as client:
        client.wait_ready(60.0, model="leaving")
        with Traffic(served.address, "marked", threads=1) as beside:
            with pytest.raises(ServerFailure, match="ended with exit code 4"):
                client.predict("leaving", {"x": x + 10})
            beside.more(10)
        assert not beside.seen.failures
        with Client(served.address, retry=RetryPolicy(attempts=20), timeout=60.0) as patient:
            assert patient.predict("leaving", {"x": x})["y"][0, 0] == 5
