"""A demonstration of the server, as a user sees it: `make demo`.

It starts the server on a copy of model_repository/ and sends handwritten digits, which were not used in training, to
models of all three frameworks. It shows some of them in the terminal. Then it drops a better version into the
repository while eight threads keep calling. It prints what it measured; the exit code is 0 only if nothing failed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from train_digits import digits

from inferd.client import Client, InferdError
from inferd.server.cli.first_steps.hot_swap import THREADS, swap_under_load
from inferd.server.cli.first_steps.sample_model import picture
from inferd.server.cli.first_steps.server_process import DemoFailed, ServerProcess

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"digits_onnx": "ONNX", "digits_torch": "TorchScript", "digits_tf": "TF SavedModel"}
HOT = "digits_onnx"


def show_some(images: np.ndarray, labels: np.ndarray, predicted: dict[str, np.ndarray], count: int = 5) -> None:
    """Prints the first `count` digits side by side, with each framework's answer and the true digit."""
    rows = [picture(image) for image in images[:count]]
    for lines in zip(*rows, strict=True):
        print("   " + "   ".join(lines))
    for name, guesses in predicted.items():
        said = "   ".join(f"{MODELS[name].split()[-1]}: {d}".ljust(16) for d in guesses[:count])
        print("   " + said)
    print("   " + "   ".join(f"truth: {d}".ljust(16) for d in labels[:count]))


def drop_version(source: Path, model_directory: Path) -> float:
    """Publishes a version in the recommended way: copies it under a name that is no version number, then renames the
    copy. Returns the time of the renaming."""
    hidden = model_directory / f".tmp-{source.name}"
    shutil.copytree(source, hidden)
    hidden.rename(model_directory / source.name)
    return time.perf_counter()


def hot_drop(address: str, repository: Path, images: np.ndarray) -> None:
    """Drops the better version into the repository under traffic, and prints what the callers measured. Raises
    DemoFailed if a request fails or the version does not answer in time."""
    new = max(int(p.name) for p in (ROOT / "model_repository" / HOT).iterdir() if p.name.isdigit())
    source = ROOT / "model_repository" / HOT / str(new)
    swap = swap_under_load(address, HOT, images, new, lambda: drop_version(source, repository / HOT))
    print(
        f"  {swap.before} predictions before the drop; the first answer of version {new} came {swap.live:.2f} s after"
    )
    print("  it, of which 0.5 s were for the files to settle and up to 0.2 s for the poll")
    print(f"  requests sent {swap.sent}, failed {len(swap.failures)}; answers of version: {swap.answers}")
    quantiles = ", ".join(f"p{q} {np.percentile(swap.latencies, q):.2f}" for q in (50, 90, 99))
    print(f"  latency ms: {quantiles}, max {swap.latencies.max():.2f}")
    if swap.failures:
        raise DemoFailed(f"{len(swap.failures)} requests failed, the first: {swap.failures[0]}")


def run(address: str, repository: Path) -> None:
    """Runs the demonstration against a running server. Raises DemoFailed and InferdError."""
    data = digits()
    images, labels = data.held_out_images, data.held_out_digits
    with Client(address) as client:
        print(f"\n{len(images)} held-out digits to every framework:")
        predicted: dict[str, np.ndarray] = {}
        accuracy: dict[str, float] = {}
        for name, framework in MODELS.items():
            begin = time.perf_counter()
            parts = list(client.predict_many(name, ({"image": images[i : i + 30]} for i in range(0, len(images), 30))))
            guesses = np.concatenate([p["probabilities"].argmax(axis=1) for p in parts])
            predicted[name], accuracy[name] = guesses, float((guesses == labels).mean())
            took = 1000 * (time.perf_counter() - begin)
            served = f"{framework:14} {name}:{parts[0].version}"
            print(f"  {served:32} {len(guesses)} predictions, accuracy {accuracy[name]:.3f}, {took:.0f} ms")
        print()
        show_some(images, labels, predicted)
        if min(accuracy.values()) < 0.75:
            raise DemoFailed(f"the models are worse than they should be: {accuracy}")
        print(f"\nA better version of {HOT} is dropped in while {THREADS} threads keep calling:")
        hot_drop(address, repository, images)
        after = client.predict(HOT, {"image": images})
        better = float((after["probabilities"].argmax(axis=1) == labels).mean())
        print(f"  accuracy of {HOT}: version 1 {accuracy[HOT]:.3f} -> version {after.version} {better:.3f}")
        if better <= accuracy[HOT]:
            raise DemoFailed("the new version is not better than the old one")


def main() -> int:
    """Starts the server, runs the demonstration, stops the server. Returns the exit code. If it fails, the temporary
    directory with the server's log is kept."""
    directory = Path(tempfile.mkdtemp(prefix="inferd-demo-"))
    repository, log = directory / "models", directory / "server.log"
    shutil.copytree(ROOT / "model_repository", repository)
    versions = sorted((p for p in (repository / HOT).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    shutil.rmtree(versions[-1])  # the version that is dropped in later
    print("inferd demo: one server, three frameworks, a new version under traffic\n")
    try:
        with ServerProcess(repository, log) as server:
            print(f"  {server.ready}")
            run(server.address, repository)
            server.stop()
        print("\nThe server drained and ended with 0. Everything is as it should be.")
    except (DemoFailed, InferdError) as error:
        print(f"\nThe demo failed: {error}\n(server log: {log})", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
