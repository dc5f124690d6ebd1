"""A new version goes live while callers keep calling: what they measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferd.client import NO_RETRIES, Client, InferdError
from inferd.server.cli.first_steps.server_process import LIMIT, DemoFailed

THREADS = 8
_BEFORE = 400  # answers before the new version is published
_AFTER = 50  # answers of the new version that each caller gets


@dataclass
class CallRecord:
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


@dataclass(frozen=True)
class Swap:
    """What all callers measured together.

    before      answers before the new version was published
    live        seconds from the time that `publish` returned to the first answer of the new version
    sent        requests; `failures` has the error messages of those that failed
    answers     number of answers by version
    latencies   of all answers, in milliseconds
    """

    before: int
    live: float
    sent: int
    failures: list[str]
    answers: dict[int, int]
    latencies: np.ndarray[Any, Any]


def swap_under_load(
    address: str, model: str, images: np.ndarray[Any, Any], new_version: int, publish: Callable[[], float]
) -> Swap:
    """Calls `model` from several threads, calls `publish` meanwhile, and goes on until `new_version` has answered every
    thread. `publish` puts the version into the repository and returns the time from which its way to
    the first answer counts (time.perf_counter). Raises DemoFailed if the version does not answer in time."""
    stop = threading.Event()
    callers = [CallRecord() for _ in range(THREADS)]
    threads = [
        threading.Thread(target=_call_until, args=(stop, address, model, images, new_version, caller))
        for caller in callers
    ]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + LIMIT
        while sum(len(caller.latencies) for caller in callers) < _BEFORE:
            if time.monotonic() > deadline or not any(thread.is_alive() for thread in threads):
                raise DemoFailed(f"{_BEFORE} predictions were not made in time{_first_failure(callers)}")
            time.sleep(0.05)
        before = sum(len(caller.latencies) for caller in callers)
        published = publish()
        while any(caller.answers.get(new_version, 0) < _AFTER for caller in callers):
            if time.monotonic() > deadline:
                raise DemoFailed(f"version {new_version} did not answer every caller in time{_first_failure(callers)}")
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    versions = sorted({version for caller in callers for version in caller.answers})
    failures = [failure for caller in callers for failure in caller.failures]
    return Swap(
        before=before,
        live=min(caller.first_new for caller in callers if caller.first_new is not None) - published,
        sent=sum(len(caller.latencies) for caller in callers) + len(failures),
        failures=failures,
        answers={version: sum(caller.answers.get(version, 0) for caller in callers) for version in versions},
        latencies=1000 * np.concatenate([caller.latencies for caller in callers]),
    )


def _first_failure(callers: list[CallRecord]) -> str:
    failures = [failure for caller in callers for failure in caller.failures]
    return f"; the first of {len(failures)} failures: {failures[0]}" if failures else ""


def _call_until(
    stop: threading.Event, address: str, model: str, images: np.ndarray[Any, Any], new_version: int, caller: CallRecord
) -> None:
    """Calls until `stop` is set, and writes to `caller`. There are no retries: every failed request counts."""
    with Client(address, retry=NO_RETRIES) as client:
        i = 0
        while not stop.is_set():
            begin = time.perf_counter()
            try:
                answer = client.predict(model, {"image": images[i % len(images)][None]}, timeout=10.0)
            except InferdError as error:
                caller.failures.append(str(error))
                continue
            now = time.perf_counter()
            caller.latencies.append(now - begin)
            caller.answers[answer.version] = caller.answers.get(answer.version, 0) + 1
            if answer.version == new_version and caller.first_new is None:
                caller.first_new = now
            i += 1
