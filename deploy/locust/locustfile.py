"""Load on the REST port with locust: users who ask one model, one request after the other.

    pip install locust
    INFERD_MODEL=digits_onnx locust -f deploy/locust/locustfile.py --headless -u 50 -r 10 -t 1m --host http://localhost:8000

The body is made from the model's own metadata: one row of zeros for each input, texts "a". INFERD_BODY names a file
with another one.
`inferd bench` measures gRPC, with open load (--rate) and percentiles that do not leave out what waited.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from locust import HttpUser, constant, task

MODEL = os.environ.get("INFERD_MODEL", "digits_onnx")


class Caller(HttpUser):
    """Asks without a pause."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Learns what the model takes."""
        given = os.environ.get("INFERD_BODY")
        self.body = Path(given).read_bytes() if given else self._made_up()

    def _made_up(self) -> bytes:
        described = self.client.get(f"/v2/models/{MODEL}", name="metadata").json()
        inputs = []
        for spec in described["inputs"]:
            shape = [1 if size == -1 else size for size in spec["shape"]]
            value = "a" if spec["datatype"] == "BYTES" else 0
            inputs.append({**spec, "shape": shape, "data": [value] * math.prod(shape)})
        return json.dumps({"inputs": inputs}).encode()

    @task
    def infer(self) -> None:
        """One request."""
        self.client.post(
            f"/v2/models/{MODEL}/infer", data=self.body, headers={"Content-Type": "application/json"}, name="infer"
        )
