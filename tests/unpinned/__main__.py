"""`python -m unpinned` (make test-unpinned): inferd with the newest release of everything that it allows.

Runs in a virtual environment into which `inferd[all]` was installed without constraints. It opens the sample repository
in every order of the frameworks, each order in a process of its own, then serves it and asks every model. It fails, and
never skips: an environment that cannot show the fault is a fault.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "model_repository"
INFERD = (sys.executable, "-m", "inferd.server.cli.main")
DEADLINE = 600.0  # seconds for one process: the first import after an installation compiles everything
SHOWN = (
    "onnxruntime",
    "torch",
    "triton",
    "tensorflow-cpu",
    "ai-edge-litert",
    "numpy",
    "protobuf",
    "grpcio",
    "pydantic",
    "fastapi",
)
OPEN = """
import json, sys
from pathlib import Path
from inferd.backends.registry import Registry
registry, held = Registry(), []
for name in sys.argv[2:]:
    found, artefact = registry.detect(Path(sys.argv[1]) / name / "1")
    print(name, found.name, artefact.name, found.devices(), flush=True)
    if name == "digits_pt2":
        import torch
        held.append(torch.export.load(artefact))
    elif name == "digits_torch":
        import torch
        held.append(torch.jit.load(artefact))
print("opened", flush=True)
"""


def main() -> int:
    """Runs all checks. Returns 1 when one of them fails."""
    faults = list(_faults())
    for fault in faults:
        print(f"FAILED: {fault}")
    print("FAILED" if faults else "all orders are safe, and the sample repository is served")
    return 1 if faults else 0


def _faults() -> Iterator[str]:
    missing = []
    for name in SHOWN:
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield f"not installed: {', '.join(missing)}; expected what PyPI gives for inferd[all], torch with triton"
        return
    for number, order in enumerate(itertools.permutations(("digits_torch", "digits_pt2", "digits_tf"))):
        names = ("digits_onnx", *order) if number % 2 else (*order, "digits_onnx")
        yield from _opened(names)
    yield from _served()


def _opened(names: tuple[str, ...]) -> Iterator[str]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", OPEN, str(MODELS), *names],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    print(f"{' → '.join(names)}: {_ended(done.returncode)} in {time.monotonic() - began:.1f} s", flush=True)
    if done.returncode or not done.stdout.endswith("opened\n"):
        yield f"{' → '.join(names)}: {_ended(done.returncode)}\n{done.stdout}{done.stderr[-3000:]}"


def _served() -> Iterator[str]:
    import numpy as np

    from inferd.client import Client, InferdError

    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/inferd.sock"
        sets = ("server.http=[]", "server.readiness=strict")
        command = [*INFERD, "serve", "--model-repository", str(MODELS), "--listen", address]
        command += [part for each in sets for part in ("--set", each)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert server.stdout is not None
        lines: list[str] = []
        ready = threading.Event()

        def read(stream: Iterator[str]) -> None:
            for line in stream:
                lines.append(line)
                if " ready: " in line:
                    ready.set()
            ready.set()  # it has ended

        reader = threading.Thread(target=read, args=(server.stdout,), daemon=True)
        reader.start()
        try:
            if not ready.wait(DEADLINE) or server.poll() is not None:
                yield f"inferd serve is not ready:\n{''.join(lines)[-3000:]}"
                return
            with Client(address) as client:
                for status in client.list_models():
                    signature = client.metadata(status.name).signatures[0]
                    inputs = {
                        spec.name: np.zeros([max(size, 1) for size in spec.shape or ()], spec.dtype.numpy)
                        for spec in signature.inputs
                        if spec.dtype is not None
                    }
                    outputs = dict(client.predict(status.name, inputs))
                    shapes = {name: list(array.shape) for name, array in outputs.items()}
                    print(f"{status.name}: {json.dumps(shapes)}", flush=True)
                    if any(not np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
                        yield f"{status.name} answers with numbers that are not finite"
        except InferdError as error:
            yield f"the server does not answer: {error}"
        finally:
            if server.poll() is None:
                os.kill(server.pid, signal.SIGTERM)
            code = server.wait(60)
            reader.join(10)
        print(f"inferd serve: {_ended(code)}", flush=True)
        if code:
            yield f"inferd serve: {_ended(code)}\n{''.join(lines)[-3000:]}"


def _ended(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
