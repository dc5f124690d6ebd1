"""A gRPC servicer as it is usually written: generated classes, a thread pool, one run of the model for each request."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from sessions import row_shape, say, sessions

from inferd.oip.v1 import infer_pb2 as pb


def main(root: str) -> None:
    """Serves until it is killed."""
    models = sessions(root)
    shapes = {name: row_shape(found, "x") for name, found in models.items()}

    def infer(request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:
        name = request.model_name
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape((-1, *shapes[name]))
        y = models[name].run(None, {"x": x})[0]
        answer = pb.ModelInferResponse(model_name=name, model_version="1", id=request.id)
        answer.outputs.add(name="y", datatype="FP32", shape=y.shape)
        answer.raw_output_contents.append(y.tobytes())
        return answer

    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    handler = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"127.0.0.1:{port}")
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
