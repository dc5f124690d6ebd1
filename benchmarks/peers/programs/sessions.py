"""Functions that the programs share: they load the models of a folder with ONNX Runtime and find a free port.

The programs run in environments without inferd and its tests, so they import only each other.
"""

from __future__ import annotations

import socket
from pathlib import Path

import onnxruntime

MAX_BATCH = 64


def sessions(root: str) -> dict[str, onnxruntime.InferenceSession]:
    """The sessions by model name. Each model has one input `x` and one output `y`, float32, batch axis first."""
    return {path.parent.parent.name: session(path) for path in sorted(Path(root).glob("*/1/model.onnx"))}


def session(path: Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session with one thread, like the instances of inferd in these measurements."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def row_shape(model: onnxruntime.InferenceSession, tensor: str) -> tuple[int, ...]:
    """The shape of one row of the input ("x") or the output ("y")."""
    nodes = model.get_inputs() if tensor == "x" else model.get_outputs()
    return tuple(nodes[0].shape[1:])


def free_port() -> int:
    """A port that is free now; another process may take it before it is used."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def say(address: str) -> None:
    """Prints the address for the process that has started this one. "serving" distinguishes the line from the output
    of a framework."""
    print("serving", address, flush=True)
