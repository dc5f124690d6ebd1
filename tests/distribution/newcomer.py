"""`python -m distribution.newcomer` (make newcomer): from an empty directory to own models that answer in ten commands.

The directory holds two files that a newcomer would have: train.py, which trains four small models on the same flowers
and saves each as its framework's own tutorial says, and ask.py, which asks for all of them. Needs the network and about
4 GB. It prints each command with the time that it took, and fails when one of them fails or a model answers wrongly.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distribution.build import ROOT, build
from distribution.new_user import LONG, Fault, environment

TRAIN = """
import joblib, keras, numpy as np, torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skl2onnx import to_onnx

flowers, kinds = load_iris(return_X_y=True)
flowers = flowers.astype(np.float32)

classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(flowers, kinds)
joblib.dump(classifier, "flowers.joblib")
with open("flowers.onnx", "wb") as file:
    file.write(to_onnx(classifier, flowers[:1], options={"zipmap": False}).SerializeToString())

network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(0.02), loss)
network.fit(flowers, kinds, epochs=40, verbose=0)
network.save("flowers.keras")

module = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
optimiser = torch.optim.Adam(module.parameters(), 0.02)
for _ in range(300):
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(module(torch.tensor(flowers)), torch.tensor(kinds)).backward()
    optimiser.step()
rows = {0: torch.export.Dim("rows")}
program = torch.export.export(module.eval(), (torch.tensor(flowers[:2]),), dynamic_shapes=(rows,))
torch.export.save(program, "flowers.pt2")
"""
ASK = """
import sys
import numpy as np
from sklearn.datasets import load_iris
from inferd import Client

flowers, kinds = load_iris(return_X_y=True)
with Client(sys.argv[1]) as client:
    for model in ("sklearn", "onnx", "keras", "torch"):
        (given,) = client.metadata(model).signatures[0].inputs
        answer = client.predict(model, {given.name: flowers.astype(np.float32)})
        scores = next(array for array in answer.values() if array.ndim == 2)
        right = (scores.argmax(axis=1) == kinds).mean()
        print(f"{model}: {right:.0%} right, version {answer.version}")
        assert right > 0.9, (model, right)
"""
COMMANDS = """
{python} -m venv .venv
.venv/bin/pip install -q -c {constraints} '{wheel}[all]' scikit-learn skl2onnx
.venv/bin/python train.py
.venv/bin/inferd init server
.venv/bin/inferd serve --model-repository server/models --listen {address} --http 127.0.0.1:0
.venv/bin/inferd publish sklearn flowers.joblib --trust -r server/models --wait -a {address}
.venv/bin/inferd publish onnx flowers.onnx -r server/models --wait -a {address}
.venv/bin/inferd publish keras flowers.keras -r server/models --wait -a {address}
.venv/bin/inferd publish torch flowers.pt2 -r server/models --wait -a {address}
.venv/bin/python ask.py {address}
"""
MOST_COMMANDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="inferd-newcomer-"))
    try:
        built = build(place / "dist")
        home = place / "home"
        home.mkdir()
        (home / "train.py").write_text(TRAIN)
        (home / "ask.py").write_text(ASK)
        commands = COMMANDS.format(
            python=args.python, wheel=built.wheel, constraints=ROOT / "constraints" / "cpu.txt", address=_free_address()
        )
        return _run(home, commands.strip().splitlines())
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(home: Path, commands: list[str]) -> int:
    assert len(commands) <= MOST_COMMANDS
    server: subprocess.Popen[str] | None = None
    begin = time.perf_counter()
    try:
        for number, command in enumerate(commands, 1):
            start = time.perf_counter()
            words = shlex.split(command)
            words[0] = str(home / words[0]) if words[0].startswith(".venv/") else words[0]
            if "serve" in words:
                server, said = _serve(home, words)
            else:
                said = _finish(home, words)
            print(f"{number:2}. {time.perf_counter() - start:6.1f} s  {command}\n{said}", end="", flush=True)
        print(f"ten commands, {time.perf_counter() - begin:.0f} s in all")
        return 0
    except Fault as fault:
        print(f"FAILED: {fault}")
        return 1
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(LONG)


def _serve(home: Path, words: list[str]) -> tuple[subprocess.Popen[str], str]:
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(words, cwd=home, env=environment(), text=True, stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    ready = server.stdout.readline()
    if "ready" not in ready:
        raise Fault(f"the server did not become ready: {(home / 'server.log').read_text()[-2000:]}")
    return server, f"      {ready}"


def _finish(home: Path, words: list[str]) -> str:
    done = subprocess.run(
        words, cwd=home, env=environment(), text=True, capture_output=True, check=False, timeout=2 * LONG
    )
    if done.returncode:
        raise Fault(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return "".join(f"      {line}\n" for line in done.stdout.splitlines())


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
