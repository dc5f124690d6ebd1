"""MLServer with a runtime for ONNX and batching, in one process, as its documentation advises for light models."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from sessions import MAX_BATCH, free_port, say, session


class OnnxModel(MLModel):
    """One model of the folder. Its URI is the model file."""

    async def load(self) -> bool:
        self._session = session(Path(self._settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = payload.inputs[0]
        x = np.asarray(found.data.root, np.float32).reshape(found.shape)
        y = self._session.run(None, {"x": x})[0]
        output = ResponseOutput(name="y", datatype="FP32", shape=list(y.shape), data=y.ravel().tolist())
        return InferenceResponse(id=payload.id, model_name=self.name, model_version="1", outputs=[output])


async def main(root: str) -> None:
    """Serves until it is killed."""
    grpc_port = free_port()
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        parallel_workers=0,
        http_port=free_port(),
        grpc_port=grpc_port,
        metrics_port=free_port(),
    )
    models = [
        ModelSettings(
            name=path.parent.parent.name,
            implementation=OnnxModel,
            parameters={"uri": str(path), "version": "1"},
            max_batch_size=MAX_BATCH,
            max_batch_time=0.001,
        )
        for path in sorted(Path(root).glob("*/1/model.onnx"))
    ]
    say(f"127.0.0.1:{grpc_port}")
    await MLServer(settings).start(models)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
