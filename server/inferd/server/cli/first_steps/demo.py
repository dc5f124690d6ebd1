"""`inferd demo`: serves a small real model on this machine, calls it, and replaces it while eight threads keep calling.

It needs no repository and no network, uses free ports of this machine and a temporary directory, and ends by itself
after about ten seconds. Every command and every figure that it prints is what it has just done and measured.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from inferd.client import Client
from inferd.server.cli.errors import CommandError
from inferd.server.cli.first_steps.hot_swap import THREADS, Swap, swap_under_load
from inferd.server.cli.first_steps.sample_model import BETTER, NAME, SMALL, held_out, picture
from inferd.server.cli.first_steps.server_process import DemoFailed, ServerProcess

_SHOWN = 4  # digits side by side, which fit into 80 columns


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("demo", help="a tour in ten seconds: serve, call, replace", description=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the demonstration. If it fails, the temporary directory with the server's log is kept."""
    if find_spec("onnxruntime") is None:
        raise CommandError(
            "the demo serves an ONNX model, and ONNX Runtime is not installed: pip install 'inferd[onnx]'"
        )
    directory = Path(tempfile.mkdtemp(prefix="inferd-demo-"))
    log = directory / "server.log"
    try:
        _tour(directory, log)
    except DemoFailed as error:
        raise CommandError(f"the demo failed: {error}\n(the server's log: {log})") from None
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def _tour(directory: Path, log: Path) -> None:
    repository = directory / "models"
    first = repository / NAME / "1"
    first.mkdir(parents=True)
    shutil.copy(SMALL, first)
    images, digits = held_out()
    _title("1. A model repository is a directory: <model>/<version>/<file>")
    print(f"   {first / SMALL.name}")
    print(f"   {SMALL.stat().st_size:,} bytes; it reads handwritten digits")

    _title("2. One command serves it")
    print(f"   $ inferd serve --model-repository {repository}")
    begin = time.perf_counter()
    with ServerProcess(repository, log) as server:
        print(f"   {server.ready}\n   after {time.perf_counter() - begin:.1f} s")
        with Client(server.address) as client:
            _title("3. A client calls it: arrays in, arrays out")
            right = _call(client, server.address, images, digits)
            _title(f"4. A better version is published while {THREADS} threads keep calling")
            new, swap = _swap(server.address, repository, images)
            _report(swap)
            after = _right(client, images, digits)
            print(f"   right answers to {len(digits)} digits: version 1 {right}, version {new} {after}")
            if after <= right:
                raise DemoFailed("the new version is not better than the old one")
        server.stop()
    _title("5. On SIGTERM the server finished what it had accepted, and ended with 0")
    print("\nNext, with a model of your own:")
    print("   $ inferd init my-server         a repository, settings and a client script")
    print("   $ inferd publish MODEL FILE -r my-server/models        your own model")


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _call(client: Client, address: str, images: np.ndarray[Any, Any], digits: np.ndarray[Any, Any]) -> int:
    print("   from inferd.client import Client")
    print(f'   with Client("{address}") as client:')
    print(f'       answer = client.predict("{NAME}", {{"image": images}})   # FP32 [{_SHOWN}, 64]\n')
    answer = client.predict(NAME, {"image": images[:_SHOWN]})
    for lines in zip(*(picture(image) for image in images[:_SHOWN]), strict=True):
        print(f"   {'   '.join(lines)}".rstrip())
    said = [f"it says {digit}".ljust(16) for digit in answer["digit"]]
    print(f"   {'   '.join(said)}".rstrip())
    truth = [f"truth: {digit}".ljust(16) for digit in digits[:_SHOWN]]
    print(f"   {'   '.join(truth)}".rstrip())
    return _right(client, images, digits)


def _right(client: Client, images: np.ndarray[Any, Any], digits: np.ndarray[Any, Any]) -> int:
    """How many digits the served version reads as they are. A request may hold many rows."""
    return int((client.predict(NAME, {"image": images})["digit"] == digits).sum())


def _swap(address: str, repository: Path, images: np.ndarray[Any, Any]) -> tuple[int, Swap]:
    def publish() -> float:
        command = ["publish", NAME, str(BETTER), "--repository", str(repository)]
        print(f"   $ inferd publish {NAME} better.onnx --repository {repository}", flush=True)
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "inferd", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoFailed(f"inferd publish ended with {done.returncode}: {done.stderr}")
        print("".join(f"   {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
        return begin

    swap = swap_under_load(address, NAME, images, 2, publish)
    return 2, swap


def _report(swap: Swap) -> None:
    new = max(swap.answers)
    print(f"   version {new} answered {swap.live:.1f} s after the command began: publish loads and runs it")
    print("   first, and a server waits until its files are left alone (repository.settle)")
    counts = ", ".join(f"version {version} {count:,}" for version, count in swap.answers.items())
    print(f"   requests: {swap.sent:,}, failed: {len(swap.failures)}; answered by {counts}")
    quantiles = ", ".join(f"p{q} {np.percentile(swap.latencies, q):.2f}" for q in (50, 90, 99))
    print(f"   latency in ms: {quantiles}, max {swap.latencies.max():.2f}")
    if swap.failures:
        raise DemoFailed(f"{len(swap.failures)} requests failed, the first: {swap.failures[0]}")
