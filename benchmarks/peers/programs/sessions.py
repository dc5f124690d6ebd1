"""What every program here does alike: opens the models of a folder with ONNX Runtime on one thread, finds a free port.

These programs run in environments of their own, where neither inferd nor its tests are: they import each other only.
"""

from __future__ import annotations

import socket
from pathlib import Path

import onnxruntime

MAX_BATCH = 64


def sessions(root: str) -> dict[str, onnxruntime.InferenceSession]:
    """model name -> its session; each has one input `x` and one output `y`, float32, batch axis first."""
    return {path.parent.parent.name: session(path) for path in sorted(Path(root).glob("*/1/model.onnx"))}


def session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, as the server's instances have here."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def row_shape(found: onnxruntime.InferenceSession, what: str) -> tuple[int, ...]:
    """The shape of one row of the input ("x") or the output ("y")."""
    nodes = found.get_inputs() if what == "x" else found.get_outputs()
    return tuple(nodes[0].shape[1:])


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def say(address: str) -> None:
    """Tells whoever started this where it will answer; the word tells it from what a framework prints."""
    print("serving", address, flush=True)
