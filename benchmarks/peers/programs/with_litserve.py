"""LitServe (HTTP only) with one worker for each model and batching. The bodies are the raw bytes of the tensors.

JSON bodies, which are usual, would cost far more: here its transport and its batching are measured at their best. (This
file has no `from __future__ import annotations`, because the framework reads the annotations.)
"""

import sys
from typing import Annotated, Any

import litserve as ls
import numpy as np
from fastapi import Body, Response
from sessions import MAX_BATCH, free_port, row_shape, say, session, sessions


class OnnxApi(ls.LitAPI):
    """One model at `/NAME`."""

    def __init__(self, path: str, name: str, shape: tuple[int, ...]) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=0.001, api_path=f"/{name}")
        self._path = path
        self._shape = shape

    def setup(self, device: str) -> None:
        from pathlib import Path

        self._session = session(Path(self._path))

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> np.ndarray:
        return np.frombuffer(request, np.float32).reshape(self._shape)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> Any:
        return self._session.run(None, {"x": x})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(content=output.tobytes(), media_type="application/octet-stream")


def main(root: str) -> None:
    """Serves until SIGTERM."""
    shapes = {name: row_shape(model, "x") for name, model in sessions(root).items()}
    apis = [OnnxApi(f"{root}/{name}/1/model.onnx", name, shape) for name, shape in shapes.items()]
    server = ls.LitServer(apis, accelerator="cpu")
    port = free_port()
    say(f"127.0.0.1:{port}")
    server.run(host="127.0.0.1", port=port, generate_client_file=False, num_api_servers=1, log_level="error")


if __name__ == "__main__":
    main(sys.argv[1])
