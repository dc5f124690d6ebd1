"""`python -m differential.record`: records the calls of unmodified clients (tritonclient, TensorFlow Serving's, our
own, curl) in recorded.json. The scene `recorded` replays them.

The clients talk to a proxy in front of a server of the checkout. Run it again when a new version of a client sends
different messages.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import http.server
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from differential import models
from differential.code import checkout
from differential.methods import STREAMS
from differential.requests import rows
from differential.side import Setup, Side

RECORDED = Path(__file__).with_name("recorded.json")
_OWN = ("user-agent", "grpc-", "host", "accept-encoding", "connection", ":")


class Recorder:
    """A gRPC proxy and an HTTP proxy that record calls. `client` is the name recorded with them."""

    def __init__(self, side: Side) -> None:
        self.client = ""
        self.calls: list[dict[str, Any]] = []
        self._side = side
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((_Handler(self, side),))
        self.grpc = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        recorder = self

        class Http(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                sent = {key: value for key, value in self.headers.items() if not key.lower().startswith(_OWN)}
                recorder.keep(http=[self.command, self.path, sent, base64.b64encode(body).decode()])
                host, port = side.http.rsplit(":", 1)
                upstream = http.client.HTTPConnection(host, int(port))
                upstream.request(self.command, self.path, body or None, sent)
                answer = upstream.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in ("content-length", "date", "connection", "transfer-encoding"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                upstream.close()

            do_GET = do_POST = _any

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Http)
        self.http = f"127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def keep(self, **call: Any) -> None:
        """Records one call."""
        with self._lock:
            self.calls.append({"client": self.client, **call})

    def stop(self) -> None:
        """Stops both proxies."""
        self._server.stop(None)
        self._http.shutdown()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, recorder: Recorder, side: Side) -> None:
        self._recorder, self._side = recorder, side

    def service(self, details: Any) -> Any:
        method: str = details.method
        metadata = [[k, v] for k, v in details.invocation_metadata if not k.startswith(_OWN) and isinstance(v, str)]
        if method.rpartition("/")[2] in STREAMS:

            def stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
                messages: list[str] = []
                self._recorder.keep(grpc=[method, metadata, messages])

                def tee() -> Iterator[bytes]:
                    for request in requests:
                        messages.append(base64.b64encode(request).decode())
                        yield request

                yield from self._side.channel.stream_stream(method)(tee(), metadata=metadata)

            return grpc.stream_stream_rpc_method_handler(stream)

        def unary(request: bytes, context: Any) -> bytes:
            self._recorder.keep(grpc=[method, metadata, [base64.b64encode(request).decode()]])
            try:
                answer: bytes = self._side.channel.unary_unary(method)(request, metadata=metadata)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            return answer

        return grpc.unary_unary_rpc_method_handler(unary)


def _own(recorder: Recorder) -> None:
    from inferd.client import AsyncClient, Client, InferdError

    x = {"x": rows(1, 2)}
    recorder.client = "inferd.client"
    with Client(recorder.grpc) as client:
        client.predict("rows", x)
        client.predict("rows", x, label="stable", outputs=["y"], request_id="mine", priority=2, queue_timeout=30.0)
        client.predict("several", {"inputs": ["one", "three"]}, signature="classes")
        client.predict("scalar", {**x, "factor": 3})
        client.predict("kind_bool", {"in": [[True, False]]})
        for wrong in ("nobody", "failing"):
            try:
                client.predict(wrong, x)
            except InferdError:
                pass
        client.list_models()
        client.status("rows")
        client.metadata("rows")
        with client.stream() as stream:
            for future in [stream.submit("rows", {"x": rows(i)}) for i in range(3)]:
                future.result()

    async def again() -> None:
        async with AsyncClient(recorder.grpc) as client:
            await client.predict("rows", x)
            await client.metadata("several")

    asyncio.run(again())
    recorder.client = "inferd (command line)"
    inferd = str(checkout().inferd)
    for words in (["models"], ["predict", "rows", "-i", "[[1, 2, 3, 4]]"], ["load", "counting"]):
        subprocess.run([inferd, *words, "-a", recorder.grpc], check=True, stdout=subprocess.DEVNULL)


def _triton(recorder: Recorder) -> None:
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    for name, module, address in (
        ("tritonclient.grpc", tritonclient.grpc, recorder.grpc),
        ("tritonclient.http", tritonclient.http, recorder.http),
    ):
        recorder.client = name
        client = module.InferenceServerClient(address)
        client.is_server_live()
        client.is_server_ready()
        client.is_model_ready("rows")
        client.get_server_metadata()
        client.get_model_metadata("rows")
        client.get_model_config("rows")
        client.get_inference_statistics("rows")
        client.get_model_repository_index()
        client.get_system_shared_memory_status()
        client.get_log_settings()
        client.get_trace_settings()
        client.load_model("counting")
        tensor = module.InferInput("x", [2, 4], "FP32")
        tensor.set_data_from_numpy(rows(1, 2))
        wanted = module.InferRequestedOutput
        client.infer("rows", [tensor], request_id="a")
        client.infer("rows", [tensor], model_version="1", outputs=[wanted("y")], priority=1, timeout=30_000_000)
        client.infer("rows", [tensor], outputs=[wanted("y", class_count=2)])
        client.infer("rows", [tensor], parameters={"mine": "yes"}, headers={"x-request-id": "theirs"})
        text = module.InferInput("inputs", [2], "BYTES")
        text.set_data_from_numpy(np.array([b"one", b"three"], object))
        client.infer("several", [tensor])
        try:
            client.infer("several", [text])
        except InferenceServerException:
            pass  # the input belongs to another signature, which this protocol cannot select
        for wrong in ("nobody", "failing"):
            try:
                client.infer(wrong, [tensor])
            except InferenceServerException:
                pass
        if module is tritonclient.http:
            plain = module.InferInput("x", [2, 4], "FP32")
            plain.set_data_from_numpy(rows(1, 2), binary_data=False)
            client.infer("rows", [plain], outputs=[wanted("y", binary_data=False)])
            client.infer("rows", [tensor], request_compression_algorithm="gzip")
        else:
            client.infer("rows", [tensor], compression_algorithm="gzip")
            _triton_stream(client, tensor)
        client.close()


def _triton_stream(client: Any, tensor: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(3):
        client.async_stream_infer("rows", [tensor], request_id=str(i), enable_empty_final_response=i == 2)
    for _ in range(3):
        answers.get(timeout=30)
    client.stop_stream()


def _tensorflow(recorder: Recorder) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )

    recorder.client = "tensorflow-serving-api"
    with grpc.insecure_channel(recorder.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for label in ("", "stable"):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "rows"
            if label:
                request.model_spec.version_label = label
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(rows(1, 2)))
            request.output_filter.extend(["y"] if label else [])
            stub.Predict(request)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "several"
        request.model_spec.signature_name = "classes"
        request.inputs["inputs"].CopyFrom(tf.make_tensor_proto([b"one", b"three"]))
        stub.Predict(request)
        example = tf.train.Example()
        example.features.feature["inputs"].bytes_list.value.append(b"one")
        for kind, name, signature in (
            (classification_pb2.ClassificationRequest, "Classify", "classes"),
            (regression_pb2.RegressionRequest, "Regress", "values"),
        ):
            asked = kind()
            asked.model_spec.name = "several"
            asked.model_spec.signature_name = signature
            asked.input.example_list.examples.append(example)
            getattr(stub, name)(asked)
        described = get_model_metadata_pb2.GetModelMetadataRequest()
        described.model_spec.name = "rows"
        described.metadata_field.append("signature_def")
        stub.GetModelMetadata(described)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "rows"
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)


def _curl(recorder: Recorder) -> None:
    recorder.client = "curl"
    at = f"http://{recorder.http}"
    for words in (
        ["-d", '{"instances": [[1.0, 2.0, 3.0, 4.0]]}', f"{at}/v1/models/rows:predict"],
        [f"{at}/v1/models/rows"],
        [f"{at}/v1/models/rows/metadata"],
        [
            "-d",
            '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}',
            f"{at}/v2/models/rows/infer",
        ],
        ["-X", "POST", f"{at}/v2/repository/index"],
        [f"{at}/v2/health/ready"],
    ):
        subprocess.run(["curl", "-s", "-S", *words], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Records. Gives the exit code."""
    setup = Setup("recorded", models.write, ("server.shared_memory=/inferd-differential-",))
    with (
        tempfile.TemporaryDirectory(prefix="inferd-record-") as place,
        Side("base", checkout(), setup, Path(place) / "side") as side,
    ):
        recorder = Recorder(side)
        try:
            for client in (_own, _triton, _tensorflow, _curl):
                client(recorder)
        finally:
            recorder.stop()
    lines = ",\n".join(json.dumps(call) for call in recorder.calls)
    RECORDED.write_text(f"[\n{lines}\n]\n")
    print(f"{len(recorder.calls)} calls in {RECORDED.name}, {RECORDED.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
