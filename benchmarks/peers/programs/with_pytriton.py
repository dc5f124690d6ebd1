"""PyTriton: the Triton server (front end in C++, dynamic batching), which calls the model in Python."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from sessions import MAX_BATCH, free_port, row_shape, say, sessions


def runner(model: Any) -> Callable[..., dict[str, np.ndarray]]:
    """The function that Triton calls with a batch."""

    @batch
    def infer(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": model.run(None, {"x": x})[0]}

    return infer


def main(root: str) -> None:
    """Serves until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that Triton's files and processes are cleaned up
    port = free_port()
    config = TritonConfig(http_port=free_port(), grpc_port=port, metrics_port=free_port())
    with Triton(config=config) as server:
        for name, model in sessions(root).items():
            server.bind(
                name,
                runner(model),
                inputs=[Tensor(name="x", dtype=np.float32, shape=row_shape(model, "x"))],
                outputs=[Tensor(name="y", dtype=np.float32, shape=row_shape(model, "y"))],
                config=ModelConfig(max_batch_size=MAX_BATCH),
            )
        server.run()
        say(f"127.0.0.1:{port}")
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
