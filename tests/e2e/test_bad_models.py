"""One bad model stops nobody: of a hundred models more than half are bad, each in its own way."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bad_models import BAD, adding, endless
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import Client, InferdError

pytestmark = pytest.mark.timeout(300)

GOOD = [f"good{number:02}" for number in range(100 - len(BAD))]
X = np.zeros((1, 4), np.float32)
TIMEOUT = 120.0


def index(server: Served) -> dict[str, dict[str, Any]]:
    """The models as an operator lists them, by name; of several versions the newest."""
    request = urllib.request.Request(f"http://{server.http}/v2/repository/index", b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        listed = json.load(answer)
    return {entry["name"]: entry for entry in sorted(listed, key=lambda entry: int(entry.get("version") or 0))}


def test_a_hundred_models_of_which_more_than_half_are_bad(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name in (*GOOD, *(bad.name for bad in BAD)):
        adding(root / name / "1/model.onnx", 1.0)
    for bad in BAD:
        bad.make(root / bad.name)

    with Served(root, sets=FAST, limit=TIMEOUT) as server, Client(server.address) as client:

        def serves(version: int) -> bool:
            try:
                return all(client.predict(name, {"x": X})["y"][0, 0] == version for name in GOOD)
            except InferdError:
                return False

        def silent() -> dict[str, object]:
            """The bad models that do not say why, with what they say."""
            found = index(server)
            reasons = {bad.name: found.get(bad.name, {}).get("reason", "not listed") for bad in BAD}
            return {bad.name: reasons[bad.name] for bad in BAD if not re.search(bad.says, str(reasons[bad.name]))}

        eventually(lambda: serves(1), "the good models answer", server.tail, TIMEOUT)
        eventually(lambda: not silent(), "each bad model says why", silent, TIMEOUT)
        endless(root / "endless/1/model.onnx")
        eventually(lambda: "endless" in index(server), "its load has begun", server.tail, TIMEOUT)
        for name in GOOD:
            adding(root / name / "new/model.onnx", 2.0)
            (root / name / "new").rename(root / name / "2")
        eventually(lambda: serves(2), "the good models are reloaded", server.tail, TIMEOUT)
        assert index(server)["endless"].get("state") != "READY"
        assert silent() == {}
    # On its way out, `Served` has checked that SIGTERM ends the server with 0, although a load still runs.
    assert "Traceback" not in server.tail(1_000_000)
