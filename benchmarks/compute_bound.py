"""Throughput of the server compared with that of the framework alone, for models that are the bottleneck."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import grpc
import numpy as np
from support.server import Served

from benchmarks.h2load import Target, available, frame, load
from benchmarks.load import PREDICT, closed_loop, message
from benchmarks.models import write_mlp
from benchmarks.open_loop import open_loop
from benchmarks.report import Table
from inferd.wire.native import encode_request

ROUNDS, SECONDS = 7, 3.0
IN_FLIGHT = 32
SIZES = (1, 2, 4, 8, 16, 32)
SHAPE = (3, 32, 32)


def write_convolutions(
    path: Path, shape: tuple[int, int, int] = SHAPE, channels: int = 32, layers: int = 6, outputs: int = 10
) -> None:
    """Writes an ONNX model x [n, *shape] -> y [n, outputs] of `layers` convolutions. It computes much on little data,
    and a row costs nearly as much in a batch as alone."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    nodes, weights, last, depth = [], [], "x", shape[0]
    for i in range(layers):
        weight = (rng.normal(size=(channels, depth, 3, 3)) / np.sqrt(9 * depth)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"h{i}"]),
        ]
        last, depth = f"h{i}", channels
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "out"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(rng.normal(size=(channels, outputs)).astype(np.float32), "out"))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        weights,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measure() -> Table:
    """Alternating rounds; medians of paired ratios."""
    table = Table(
        f"Compute-bound models, {IN_FLIGHT} requests of one row in flight",
        (
            "model",
            "in process, rows/s",
            "at rows a batch",
            "server, rows/s",
            "ratio",
            "lowest–highest",
            "ratio to in process beside a like front end",
            "lowest–highest",
            "h2load: server, rows/s",
            "ratio",
            "lowest–highest",
        ),
        how=f"{ROUNDS} alternating rounds of {SECONDS:.0f} s, medians; in process: one thread, the batch size that is "
        f"best up to {IN_FLIGHT}; one instance with one thread; the load generator shares the cores. Beside a like "
        "front end: the same, while a server answers as many requests of that size with a model that computes nothing. "
        "h2load: the same requests from a generator that costs next to nothing, so that callers are back sooner.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "models"
        write_convolutions(root / "convolutions" / "1" / "model.onnx")
        write_mlp(root / "wide" / "1" / "model.onnx", 2048, 4)
        write_convolutions(root / "convolutions-light" / "1" / "model.onnx", channels=1, layers=1)
        write_mlp(root / "wide-light" / "1" / "model.onnx", 2048, 0)
        inputs = {"convolutions": np.ones((1, *SHAPE), np.float32), "wide": np.ones((1, 2048), np.float32)}
        for name in inputs:
            (root / name / "model.yaml").write_text("instances: {threads: 1}\n")
        with Served(root) as server, ProcessPoolExecutor(1, get_context("spawn")) as other:
            for name, x in inputs.items():
                path = root / name / "1" / "model.onnx"
                run = runner(path)
                rates = {size: rows_per_second(run, np.repeat(x, size, 0), 1.0) for size in SIZES}
                best = max(rates, key=rates.__getitem__)
                batch, body, light = np.repeat(x, best, 0), identified(name, x), message(f"{name}-light", x)
                bare, served, beside, quick = [], [], [], []
                target = target_of(server.address, body, Path(folder) / f"{name}.msg") if available() else None
                for _ in range(ROUNDS):
                    bare.append(rows_per_second(run, batch, SECONDS))
                    served.append(closed_loop(server.address, body, IN_FLIGHT, SECONDS).rate)
                    if target is not None:
                        quick.append(load(target, IN_FLIGHT, int(served[-1] * SECONDS)).rate)
                    running = other.submit(alone, path, batch, SECONDS)
                    open_loop(server.address, light, served[-1], SECONDS + 1.0)
                    beside.append(running.result())
                row: list[object] = [name, statistics.median(bare), best, statistics.median(served)]
                for base in (bare, beside):
                    ratios = [s / b for s, b in zip(served, base, strict=True)]
                    row += [statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"]
                if quick:
                    ratios = [s / b for s, b in zip(quick, bare, strict=True)]
                    row += [statistics.median(quick), statistics.median(ratios)]
                    row.append(f"{min(ratios):.2f}–{max(ratios):.2f}")
                else:
                    row += ["", "", ""]
                table.rows.append(row)
    return table


def identified(model: str, x: np.ndarray) -> bytes:
    """A request with an id: without one the server makes ids, and the answers would differ in length."""
    return encode_request(model, {"x": x}, request_id="compute-bound")


def target_of(address: str, body: bytes, file: Path) -> Target:
    """The target for h2load: the message, and the size of a right answer."""
    file.write_bytes(frame(body))
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary(PREDICT)(body)
    return Target(f"http://{address}{PREDICT}", file, len(frame(answer)))


def runner(path: Path) -> Callable[[np.ndarray], object]:
    """A function that runs the model in an ONNX Runtime session with one thread, like the server's instance."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})


def alone(path: Path, x: np.ndarray, seconds: float) -> float:
    """Rows per second of a session without a server; runs in a separate process."""
    return rows_per_second(runner(path), x, seconds)


def rows_per_second(run: Callable[[np.ndarray], object], x: np.ndarray, seconds: float) -> float:
    """Rows per second of runs one after the other."""
    run(x)
    began = time.perf_counter()
    count = 0
    while (now := time.perf_counter()) < began + seconds:
        run(x)
        count += len(x)
    return count / (now - began)
