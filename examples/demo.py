"""A demonstration of the server, as a user sees it: `make demo`.

It starts the server on a copy of model_repository/ and sends handwritten digits, which were not used in training, to
models of all three frameworks. It shows some of them in the terminal. Then it drops a better version into the
repository while eight threads keep calling. It prints what it measured; the exit code is 0 only if nothing failed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from train_digits import digits

from inferd.client import NO_RETRIES, Client, InferdError

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"digits_onnx": "ONNX", "digits_torch": "TorchScript", "digits_tf": "TF SavedModel"}
HOT = "digits_onnx"
THREADS = 8
LIMIT = 150.0  # seconds that a step may take; importing the frameworks can take long on a slow machine


class DemoFailed(Exception):
    """A step of the demonstration failed. The message says which one."""


@dataclass
class Caller:
    """What one client thread has measured.

    latencies   of the answers, in seconds
    answers     number of answers by version
    failures    error messages
    first_new   time of the first answer of the new version (time.perf_counter)
    """

    latencies: list[float] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    first_new: float | None = None


def start_server(repository: Path, log: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts `inferd serve` on free ports and waits until it is ready. Returns the process and its gRPC address. Raises
    DemoFailed."""
    command = [
        str(Path(sys.executable).with_name("inferd")), "serve", "--model-repository", str(repository),
        "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
        "--set", "repository.settle=500ms", "--set", "repository.poll=200ms",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("w"), text=True, cwd=ROOT)
    assert process.stdout is not None
    killer = threading.Timer(LIMIT, process.kill)  # if the server never becomes ready, the demo must not hang
    killer.start()
    try:
        for line in process.stdout:
            found = re.search(r"ready: grpc (\S+?)[,;\s]", line)
            if found:
                print(f"  {line.strip()}")
                return process, found[1]
    finally:
        killer.cancel()
    raise DemoFailed(f"the server did not become ready; its log:\n{log.read_text()[-3000:]}")


def picture(image: np.ndarray) -> list[str]:
    """An 8x8 digit of grey values 0..16 as eight lines of text."""
    shades = " .:-=+*#%@"
    return ["".join(shades[min(9, int(v * 10 / 17))] * 2 for v in row) for row in image.reshape(8, 8)]


def show_some(images: np.ndarray, labels: np.ndarray, predicted: dict[str, np.ndarray], count: int = 5) -> None:
    """Prints the first `count` digits side by side, with each framework's answer and the true digit."""
    rows = [picture(image) for image in images[:count]]
    for lines in zip(*rows, strict=True):
        print("   " + "   ".join(lines))
    for name, guesses in predicted.items():
        said = "   ".join(f"{MODELS[name].split()[-1]}: {d}".ljust(16) for d in guesses[:count])
        print("   " + said)
    print("   " + "   ".join(f"truth: {d}".ljust(16) for d in labels[:count]))


def call_until(stop: threading.Event, address: str, images: np.ndarray, new_version: int, record: Caller) -> None:
    """Calls the model HOT until `stop` is set, and writes to `record`. There are no retries: every failed request
    counts."""
    with Client(address, retry=NO_RETRIES) as client:
        i = 0
        while not stop.is_set():
            begin = time.perf_counter()
            try:
                answer = client.predict(HOT, {"image": images[i % len(images)][None]}, timeout=10.0)
            except InferdError as error:
                record.failures.append(str(error))
                continue
            now = time.perf_counter()
            record.latencies.append(now - begin)
            record.answers[answer.version] = record.answers.get(answer.version, 0) + 1
            if answer.version == new_version and record.first_new is None:
                record.first_new = now
            i += 1


def drop_version(source: Path, model_directory: Path) -> float:
    """Publishes a version in the recommended way: copies it under a name that is no version number, then renames the
    copy. Returns the time of the renaming."""
    hidden = model_directory / f".tmp-{source.name}"
    shutil.copytree(source, hidden)
    hidden.rename(model_directory / source.name)
    return time.perf_counter()


def hot_drop(address: str, repository: Path, images: np.ndarray) -> list[Caller]:
    """Drops the better version into the repository under traffic, and returns what the callers measured. Raises
    DemoFailed if a request fails or the version does not answer in time."""
    new = max(int(p.name) for p in (ROOT / "model_repository" / HOT).iterdir() if p.name.isdigit())
    stop = threading.Event()
    records = [Caller() for _ in range(THREADS)]
    threads = [threading.Thread(target=call_until, args=(stop, address, images, new, r)) for r in records]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + LIMIT
        while sum(len(r.latencies) for r in records) < 400:
            if time.monotonic() > deadline:
                raise DemoFailed("400 predictions were not made in time")
            time.sleep(0.05)
        before = sum(len(r.latencies) for r in records)
        dropped = drop_version(ROOT / "model_repository" / HOT / str(new), repository / HOT)
        while any(r.answers.get(new, 0) < 50 for r in records):
            if time.monotonic() > deadline:
                raise DemoFailed(f"version {new} did not answer every caller within {LIMIT:.0f} s of its drop")
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    firsts = [r.first_new for r in records if r.first_new is not None]
    millis = 1000 * np.concatenate([r.latencies for r in records])
    sent = sum(len(r.latencies) + len(r.failures) for r in records)
    failed = [f for r in records for f in r.failures]
    answers = {v: sum(r.answers.get(v, 0) for r in records) for v in sorted({v for r in records for v in r.answers})}
    live = min(firsts) - dropped
    print(f"  {before} predictions before the drop; the first answer of version {new} came {live:.2f} s after")
    print("  it, of which 0.5 s were for the files to settle and up to 0.2 s for the poll")
    print(f"  requests sent {sent}, failed {len(failed)}; answers of version: {answers}")
    quantiles = ", ".join(f"p{q} {np.percentile(millis, q):.2f}" for q in (50, 90, 99))
    print(f"  latency ms: {quantiles}, max {millis.max():.2f}")
    if failed:
        raise DemoFailed(f"{len(failed)} requests failed, the first: {failed[0]}")
    return records


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
    process = None
    try:
        process, address = start_server(repository, log)
        run(address, repository)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=LIMIT)
        if code != 0:
            raise DemoFailed(f"the server ended with {code} on SIGTERM; its log:\n{log.read_text()[-3000:]}")
        print("\nThe server drained and ended with 0. Everything is as it should be.")
    except (DemoFailed, InferdError, subprocess.TimeoutExpired) as error:
        print(f"\nThe demo failed: {error}\n(server log: {log})", file=sys.stderr)
        return 1
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
