"""`python -m distribution` (make dist): builds dist/, and tries it as a new user does.

For each extra it installs the wheel into an empty virtual environment, without constraints, from the package index, and
runs what README.md's first screen says. It needs the network, and several GB for torch and TensorFlow. It fails, and
never skips: an extra that cannot be installed is a fault.

    python -m distribution                       all extras, with this Python
    python -m distribution --extras onnx http    these only; "client" is the installation without an extra
    python -m distribution --python python3.12   another Python
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from distribution.build import ROOT, build
from distribution.new_user import Fault, NewUser

EXTRAS = ("client", "server", "http", "jwt", "cli", "onnx", "torch", "tensorflow", "litert", "all")
"""Not onnx-gpu: it is onnx with another wheel of ONNX Runtime, and needs NVIDIA's GPU."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extras", nargs="+", choices=EXTRAS, default=EXTRAS)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    shutil.rmtree(args.dist, ignore_errors=True)
    built = build(args.dist)
    print(f"{built.wheel}\n{built.sdist}")
    faults = 0
    for extra in args.extras:
        place = Path(tempfile.mkdtemp(prefix=f"inferd-dist-{extra}-"))
        begin = time.perf_counter()
        try:
            user = NewUser(args.python, place)
            user.install(built.wheel, "" if extra == "client" else extra)
            print(
                f"[{extra}] installed in {time.perf_counter() - begin:.0f} s, {user.size() / 2**20:.0f} MiB", flush=True
            )
            TRIES.get(extra, try_other)(user)
            print(f"[{extra}] works ({time.perf_counter() - begin:.0f} s)", flush=True)
        except Fault as fault:
            faults += 1
            print(f"[{extra}] FAILED: {fault}", flush=True)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    print("FAILED" if faults else f"{len(args.extras)} extras work")
    return 1 if faults else 0


def try_client(user: NewUser) -> None:
    user.python("import inferd; from inferd import Client; print(inferd.__version__, Client)")
    user.run("inferd", "--version")
    user.refused("serve", "pip install 'inferd[server]'")
    user.refused("demo", "pip install 'inferd[onnx]'")


def try_other(user: NewUser) -> None:
    """An extra without a framework: the command line says what is missing."""
    user.run("inferd", "--help")
    user.refused("demo", "pip install 'inferd[onnx]'")


def try_server(user: NewUser) -> None:
    try_other(user)
    user.run("inferd", "config", "show")


def try_onnx(user: NewUser) -> None:
    user.first_screen()


def try_framework(model: str) -> Callable[[NewUser], None]:
    def run(user: NewUser) -> None:
        user.serve_and_ask(ROOT / "model_repository" / model, model)

    return run


def try_litert(user: NewUser) -> None:
    from support.litert_graphs import written

    model = written(lambda graph, x: graph("ADD", x, [2.0]), ("FLOAT32", (-1, 4)))
    user.serve_and_answer({"model.tflite": model}, "x=[[1, 2, 3, 4]]", "[3. 4. 5. 6.]")


def try_all(user: NewUser) -> None:
    user.first_screen()
    for model in ("digits_torch", "digits_pt2", "digits_tf"):
        user.serve_and_ask(ROOT / "model_repository" / model, model)
    try_litert(user)


TRIES: dict[str, Callable[[NewUser], None]] = {
    "client": try_client,
    "server": try_server,
    "http": try_server,
    "jwt": try_server,
    "onnx": try_onnx,
    "torch": try_framework("digits_torch"),
    "tensorflow": try_framework("digits_tf"),
    "litert": try_litert,
    "all": try_all,
}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as error:
        print(f"FAILED: {error}")
        sys.exit(1)
