"""What a client and a prediction show of themselves, and what type checkers say about inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from inferd.client import Client, Prediction

ROOT = Path(__file__).parents[2]
CALLS = """
import numpy as np
from inferd.client import Client

Items = list[dict[str, np.ndarray]]

def calls(client: Client, image: np.ndarray, items: Items, lists: dict[str, list[list[int]]]) -> None:
    client.predict("m", {"image": image})
    client.predict("m", [[0.0] * 64])
    client.predict("m", {"x": [[1, 2]], "y": 3, "text": ["a", b"b"]})
    client.predict("m", lists)
    for answer in client.predict_many("m", items):
        answer["x"]
    client.predict("m", None)             # wrong
    client.predict("m", {"x": {"y": 1}})  # wrong
    client.predict("m", {"x": object()})  # wrong
    client.predict("m", {1, 2})           # wrong
"""


def test_a_prediction_shows_few_values_and_the_shapes_of_many() -> None:
    answer = Prediction(
        "digits", 2, "s", {"p": np.zeros((1, 64), np.float32), "digit": np.array([7]), "e": np.zeros(0)}
    )
    assert repr(answer) == "<Prediction of digits:2 {p: float32[1, 64], digit: int64[1] = [7], e: float64[0] = []}>"
    assert "\n" not in repr(Prediction("m", 1, "s", {"x": np.zeros((4, 4))}))
    assert len(repr(Prediction("m", 1, "s", {"x": np.array([b"b" * 5000], object)}))) < 100


def test_a_client_shows_its_address_and_no_secret() -> None:
    with Client(["127.0.0.1:8001", "127.0.0.1:8002"], token="secret") as client:
        assert repr(client) == "<Client of 127.0.0.1:8001, 127.0.0.1:8002>"
    assert repr(client) == "<Client of 127.0.0.1:8001, 127.0.0.1:8002, closed>"


def test_type_checkers_know_what_inputs_are(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".mypy_cache", tmp_path / "calls.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    wrong = [number for number, line in enumerate(CALLS.splitlines(), 1) if line.endswith("# wrong")]
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if "error:" in line]
    assert found == wrong, done.stdout
