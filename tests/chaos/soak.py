"""`python -m chaos.soak` (make soak): checks that the server does not grow under continuous load and reloads.

There is a verified load on a model of each framework. Every few seconds one model gets a new version and loses an old
one; an isolated model is unloaded and loaded. Resident memory, descriptors and threads of the server are sampled each
second. During the first third of the time, allocators and caches fill. After that, the medians of the second and the
last third must agree: memory within 5 % or 24 MiB, descriptors and threads within 8 (a leak at each reload is far
more). The exit code is 1 if they do not agree, if a request was lost or failed, or if an answer was wrong.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chaos.callers import Caller, Target, beside, oip, rest, stream
from chaos.load import Load
from chaos.report import machine
from chaos.stage import Setup, Stage
from support.marked import BACKENDS, prepare_model, publish

from inferd.client import RetryPolicy

MIB = 2**20
MEMORY, SHARE, COUNT = 24 * MIB, 0.05, 8
CALLERS: tuple[Caller, ...] = (beside, stream, oip, rest)


@dataclass(frozen=True)
class Sample:
    """A sample of the server's process: seconds since the start, resident memory in bytes, and counts."""

    seconds: float
    resident: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Soaked:
    """The result of a soak. `reloads` and `isolated`: number of new versions, and of loads of the isolated model."""

    samples: tuple[Sample, ...]
    reloads: int
    isolated: int
    answered: int
    faults: tuple[str, ...]


def sample(pid: int, began: float) -> Sample:
    """Takes a sample of a process."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        time.monotonic() - began,
        int(status["VmRSS"].split()[0]) * 1024,
        sum(1 for _ in (process / "fd").iterdir()),
        int(status["Threads"]),
    )


def growth(samples: Sequence[Sample]) -> list[str]:
    """Descriptions of what has grown from the second to the last third of the samples."""
    third = len(samples) // 3
    if not third:
        return ["too short: fewer than three looks at the server"]
    middle, last = samples[third : 2 * third], samples[2 * third :]
    found = []
    for name, allowed in (("resident", MEMORY), ("descriptors", COUNT), ("threads", COUNT)):
        before, after = (statistics.median(getattr(s, name) for s in part) for part in (middle, last))
        bound = max(allowed, SHARE * before) if name == "resident" else allowed
        if after - before > bound:
            unit, what = (MIB, " MiB") if name == "resident" else (1, "")
            found.append(
                f"{name} grew from {before / unit:.0f} to {after / unit:.0f}{what}, more than {bound / unit:.0f}{what}"
            )
    return found


def soak(place: Path, seconds: float, pause: float, reloads: int = 0, backends: Sequence[str] = BACKENDS) -> Soaked:
    """Runs for so many seconds and at least so many reloads, with `pause` seconds between two reloads."""
    samples: list[Sample] = []
    over = threading.Event()
    done = isolated = 0
    # The isolated model is unloaded and loaded by operators' calls, the others get and lose versions on disk.
    with Stage(place, Setup(sets=("queue.requests=4096",))) as stage, ExitStack() as stack:
        for backend in backends:
            publish(backend, prepare_model(backend, stage.root, backend), 1, marker=1)
        for backend in backends:
            stage.available(backend, 1)
        loads = [
            stack.enter_context(Load(Target(stage.grpc, stage.http, backend, RetryPolicy()), CALLERS))
            for backend in backends
        ]
        for load in loads:
            load.more(20)
        began = time.monotonic()

        def look() -> None:
            while not over.is_set() and stage.alive():
                samples.append(sample(stage.pid, began))
                _say(samples)
                over.wait(1.0 if seconds > 60 else 0.2)

        looker = threading.Thread(target=look)
        looker.start()
        faults: list[str] = []
        versions = dict.fromkeys(backends, 1)
        try:
            with stage.client() as client:
                while time.monotonic() - began < seconds or done < reloads:
                    backend = backends[done % len(backends)]
                    versions[backend] += 1
                    stage.publish(backend, versions[backend], backend)
                    stage.available(backend, versions[backend])
                    shutil.rmtree(stage.root / backend / str(versions[backend] - 1))
                    done += 1
                    if done % 3 == 0:
                        client.unload("walled")
                        client.load("walled")
                        isolated += 1
                    loads[done % len(loads)].more(20)
                    over.wait(pause)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        finally:
            over.set()
            looker.join()
        if not stage.alive():
            faults.append(f"the server ended: {stage.tail()}")
        stack.close()
        for backend, load in zip(backends, loads, strict=True):
            seen = load.tally
            if seen.lost or seen.wrong or seen.refused:
                faults.append(f"{backend}: {seen.lost} lost, {seen.wrong} wrong, {dict(seen.refused)}: {seen.examples}")
    return Soaked(
        tuple(samples), done, isolated, sum(load.tally.answered for load in loads), (*faults, *growth(samples))
    )


def _say(samples: Sequence[Sample]) -> None:
    now = samples[-1]
    if len(samples) == 1:
        print("| seconds | resident, MiB | descriptors | threads |\n| --- | --- | --- | --- |", flush=True)
    if (len(samples) - 1) % 15 == 0:
        print(
            f"| {now.seconds:.0f} | {now.resident / MIB:.1f} | {now.descriptors} | {now.threads} |",
            flush=True,
        )


def main(arguments: Sequence[str]) -> int:
    """Runs the soak. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two reloads (default: %(default)s)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="inferd-chaos-") as place:
        found = soak(Path(place) / "stage", 60 * options.minutes, options.pause)
    print(f"\n{found.answered:,} verified answers, {found.reloads} reloads, {found.isolated} isolated loads")
    third = len(found.samples) // 3
    for name, unit in (("resident", MIB), ("descriptors", 1), ("threads", 1)):
        parts = (found.samples[:third], found.samples[third : 2 * third], found.samples[2 * third :])
        medians = [statistics.median(getattr(s, name) for s in part) / unit if part else 0 for part in parts]
        print(f"{name}: medians of the thirds {', '.join(f'{m:.1f}' for m in medians)}")
    for fault in found.faults:
        print(f"BROKEN: {fault}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
