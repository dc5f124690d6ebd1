"""What the front end costs: both transports beside a bare grpc.aio echo, a usual grpcio servicer and the model alone.

The load is h2load's where it is installed (nghttp2-client; a C program that costs little), else grpc.aio's. h2load
counts HTTP answers: that they were right is read from inferd's own count of OK; the peers are checked with one call.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
from support.server import Served

from benchmarks.load import PREDICT, closed_loop, cpu_seconds, message
from benchmarks.models import SIZES, write_mlp
from benchmarks.overhead import in_process
from benchmarks.report import Table

ROUNDS = 7
IN_FLIGHT = {1: (1, 1), 32: (4, 8), 256: (8, 32)}  # requests -> connections, streams on each
WIDTHS = {"256 B": SIZES["tiny"][0], "600 KB": 150_000}
REQUESTS = {"256 B": {1: 2_000, 32: 10_000, 256: 10_000}, "600 KB": {1: 300, 32: 600, 256: 600}}
YAML = "instances: {threads: 1}\nbatching: {max_batch_size: 64}\n"


def measure() -> Table:
    """Every server runs all the time; rounds alternate between them."""
    table = Table(
        "Front ends, the same tiny model",
        ("payload", "in flight", "server", "requests/s", "of grpc.aio echo", "CPU µs/request", "peak RSS MB"),
        how=f"{ROUNDS} alternating rounds, medians; ratios are medians of paired rounds; "
        f"load by {'h2load' if shutil.which('h2load') else 'grpc.aio'} on the same cores.",
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder) / "models"
        for name, width in WIDTHS.items():
            model = root / _model(name)
            write_mlp(model / "1" / "model.onnx", width, 1 if name == "256 B" else 0)
            (model / "model.yaml").write_text(YAML)
        servers: dict[str, tuple[str, int]] = {}
        served = {}
        for kind in ("cq", "public"):
            served[kind] = stack.enter_context(Served(root, "--set", f"server.transport={kind}"))
            servers[f"inferd, {kind}"] = (served[kind].address, served[kind].pid)
        servers["grpc.aio echo"] = stack.enter_context(_peer("echo", root))
        servers["grpcio servicer"] = stack.enter_context(_peer("servicer", root))
        for payload, width in WIDTHS.items():
            body = message(_model(payload), np.ones((1, width), np.float32))
            file = Path(folder) / "body"
            file.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
            for address, _ in servers.values():
                with grpc.insecure_channel(address) as channel:
                    assert channel.unary_unary(PREDICT)(body, timeout=60)
            bare = in_process(root / _model(payload) / "1" / "model.onnx", np.ones((1, width), np.float32), 1.0)
            table.rows.append([payload, 1, "in process, no server", bare, "", 1e6 / bare, ""])
            for in_flight in IN_FLIGHT:
                requests = REQUESTS[payload][in_flight]
                before = _answered(served["cq"].http)
                rates: dict[str, list[float]] = {name: [] for name in servers}
                cpu: dict[str, list[float]] = {name: [] for name in servers}
                for _ in range(ROUNDS):
                    for name, (address, pid) in servers.items():
                        began = cpu_seconds(pid)
                        rate, done = _load(address, body, file, in_flight, requests)
                        rates[name].append(rate)
                        cpu[name].append(1e6 * (cpu_seconds(pid) - began) / done)
                if shutil.which("h2load"):
                    answered = _answered(served["cq"].http) - before
                    assert answered >= ROUNDS * requests, f"{answered} of {ROUNDS * requests} were answered OK"
                for name, (_, pid) in servers.items():
                    ratio = statistics.median(a / b for a, b in zip(rates[name], rates["grpc.aio echo"], strict=True))
                    row = [statistics.median(rates[name]), ratio, statistics.median(cpu[name]), _peak(pid)]
                    table.rows.append([payload, in_flight, name, *row])
    return table


def _model(payload: str) -> str:
    return "tiny" if payload == "256 B" else "large"


def _load(address: str, body: bytes, file: Path, in_flight: int, requests: int) -> tuple[float, int]:
    """Requests per second, and how many were made."""
    if shutil.which("h2load") is None:
        load = closed_loop(address, body, in_flight, 2.0)
        return load.rate, int(load.rate * 2.0)
    connections, streams = IN_FLIGHT[in_flight]
    flags = ["-n", str(requests), "-c", str(connections), "-m", str(streams), "-t", "1", "-d", str(file)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = ["h2load", *flags, *headers, f"http://{address}{PREDICT}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"([0-9.]+) req/s", said)
    assert found is not None, said
    return float(found.group(1)), requests


def _answered(http: str) -> int:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(int(float(n)) for n in re.findall(r'^inferd_requests_total\{code="OK".*\} (\S+)$', text, re.M))


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


@contextmanager
def _peer(kind: str, root: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "benchmarks.frontend", kind, str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}", process.pid
    finally:
        process.kill()
        process.wait()


_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


async def _echo() -> None:
    """The least that a grpc.aio server can do: the same bytes back."""

    async def same(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server(options=_OPTIONS)
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(same)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inferd.v1.PredictService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def _servicer(root: Path) -> None:
    """A servicer as they are usually written: generated classes, a thread pool, one run a request."""
    from concurrent.futures import ThreadPoolExecutor

    import onnxruntime

    from inferd.v1 import predict_service_pb2 as pb

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        path.parent.parent.name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for path in root.glob("*/1/model.onnx")
    }

    def predict(request: pb.PredictRequest, _context: object) -> pb.PredictResponse:
        inputs = {t.name: np.frombuffer(t.data, np.float32).reshape(tuple(t.shape)) for t in request.inputs}
        y = sessions[request.model.name].run(None, inputs)[0]
        response = pb.PredictResponse(model_name=request.model.name, version=1)
        response.outputs.add(name="y", dtype=11, shape=y.shape, data=y.tobytes())
        return response

    server = grpc.server(ThreadPoolExecutor(8), options=_OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        predict, pb.PredictRequest.FromString, pb.PredictResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler("inferd.v1.PredictService", {"Predict": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        asyncio.run(_echo())
    else:
        _servicer(Path(sys.argv[2]))
