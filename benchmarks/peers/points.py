"""The models, the requests, and their right answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import grpc
import numpy as np

from benchmarks.h2load import Target, frame
from benchmarks.models import SIZES, write_mlp, write_pool
from benchmarks.peers.peer import Peer, Running
from benchmarks.peers.programs.sessions import session
from inferd.oip.v1 import infer_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
YAML = "instances: {threads: 1}\nbatching: {max_batch_size: 64}\n"
IMAGE = (3, 224, 224)
ASK_LIMIT = 60.0


@dataclass(frozen=True)
class Work:
    """One model, and the request that is sent to it again and again.

    x, y   input and right output
    """

    model: str
    title: str
    x: np.ndarray
    y: np.ndarray

    @property
    def message(self) -> bytes:
        """The request as an Open Inference Protocol ModelInfer message."""
        request = pb.ModelInferRequest(model_name=self.model)
        request.inputs.add(name="x", datatype="FP32", shape=self.x.shape)
        request.raw_input_contents.append(self.x.tobytes())
        return request.SerializeToString()

    def ask(self, peer: Peer, running: Running) -> int:
        """Sends the request with a real client and checks the answer. Returns the size of the answer's data as h2load
        counts it. Raises ValueError for a wrong answer, and the errors of the client."""
        if peer.http1:
            asked = Request(
                f"http://{running.address}/{self.model}", self.x.tobytes(), {"content-type": "application/octet-stream"}
            )
            with urlopen(asked, timeout=ASK_LIMIT) as answer:
                body: bytes = answer.read()
            self._check(np.frombuffer(body, np.float32), peer)
            return len(body)
        with grpc.insecure_channel(running.address, [("grpc.max_receive_message_length", -1)]) as channel:
            body = channel.unary_unary(INFER)(self.message, timeout=ASK_LIMIT)
        if peer.echo:
            if body != self.message:
                raise ValueError("the echo differs from the request")
            return len(frame(body))
        found = pb.ModelInferResponse.FromString(body)
        values = (
            np.frombuffer(found.raw_output_contents[0], np.float32)
            if found.raw_output_contents
            else np.array(found.outputs[0].contents.fp32_contents, np.float32)
        )
        self._check(values, peer)
        return len(frame(body))

    def _check(self, values: np.ndarray, peer: Peer) -> None:
        if values.shape != (self.y.size,) or not np.allclose(values, self.y.ravel(), rtol=1e-3, atol=1e-4):
            raise ValueError(f"{peer.name} answered {values[:4]}... to {self.model}, expected {self.y.ravel()[:4]}...")

    def target(self, peer: Peer, running: Running, folder: Path) -> Target:
        """The target for h2load. Sends one request first, and raises as `ask`."""
        body = folder / f"{self.model}.{'raw' if peer.http1 else 'grpc'}"
        if not body.exists():
            body.write_bytes(self.x.tobytes() if peer.http1 else frame(self.message))
        path = f"/{self.model}" if peer.http1 else INFER
        return Target(f"http://{running.address}{path}", body, self.ask(peer, running), peer.http1)


def prepare(models: Path) -> list[Work]:
    """Writes the models as a repository, and returns the work for each of them."""
    for name, (width, layers) in SIZES.items():
        write_mlp(models / name / "1" / "model.onnx", width, layers)
    write_pool(models / "image" / "1" / "model.onnx", IMAGE)
    titles = {
        "tiny": "tiny model, 256 B",
        "image": "large payload, 600 KB in, 40 B out",
        "medium": "medium model, 2 KB (4 MB of weights)",
        "compute": "compute-bound model, 8 KB (67 MB of weights)",
    }
    works = []
    for name, title in titles.items():
        (models / name / "model.yaml").write_text(YAML)
        shape = IMAGE if name == "image" else (SIZES[name][0],)
        x = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
        y = session(models / name / "1" / "model.onnx").run(None, {"x": x})[0]
        works.append(Work(name, title, x, y))
    return works
