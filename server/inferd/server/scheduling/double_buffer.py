"""Two batches in hand on one instance: the next batch is joined and copied to the device while the current one
computes.

    ComputeTurns   lets one batch compute at a time and predicts when it ends
    DoubleBuffer   the instance for one of its threads: uploads at once, computes when it is its turn

A thread takes its next batch as late as the preparation allows, so that requests that arrive until then share the
batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

from inferd.backends.api import Ahead, Array, Instance

_RECENT = 0.2  # weight of the latest measurement
_SLACK = 1.5  # the time reserved for a preparation, as a multiple of the expected time

P = TypeVar("P")
B = TypeVar("B")


class ComputeTurns:
    """The turns of one instance. Thread-safe."""

    def __init__(self, expected: float = 0.0) -> None:
        """`expected`: seconds that a batch computes; 0: learned from the first batch."""
        self._condition = threading.Condition()
        self._computing = False
        self._began = 0.0
        self._expected = expected

    def wait(self, lead: float) -> None:
        """Waits until no batch computes, or the computing batch is expected to end within `lead` seconds."""
        with self._condition:
            while self._computing and self._expected:
                early = self._began + self._expected - lead - monotonic()
                if early <= 0:
                    return
                self._condition.wait(early)

    def __enter__(self) -> None:
        with self._condition:
            while self._computing:
                self._condition.wait()
            self._computing = True
            self._began = monotonic()

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._expected = _smoothed(self._expected, monotonic() - self._began)
            self._computing = False
            self._condition.notify_all()


class DoubleBuffer:
    """An instance for one of the threads that share it. Not thread-safe: each thread has its own object.

    The duration of `run` includes the wait for the turn; `taking` keeps this wait short.
    """

    def __init__(self, instance: Instance, turns: ComputeTurns) -> None:
        self._instance = instance
        self._turns = turns
        self._taken_at = 0.0
        self._lead = 0.0  # seconds from taking a batch to having it on the device
        self._upload: Callable[[str, Mapping[str, Array]], Mapping[str, Any]] = _nothing_to_upload
        if isinstance(instance, Ahead):
            self.staging = instance.staging
            self._upload = instance.upload

    def taking(self, take: Callable[[P], B]) -> Callable[[P], B]:
        """Wraps `take`, so that it waits until it is time to prepare the next batch."""

        def take_in_time(argument: P) -> B:
            self._turns.wait(_SLACK * self._lead)
            batch = take(argument)
            self._taken_at = monotonic()
            return batch

        return take_in_time

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """As Instance.run. Uploads at once and waits for its turn to compute."""
        uploaded = self._upload(signature, inputs)
        if self._taken_at:
            self._lead = _smoothed(self._lead, monotonic() - self._taken_at)
            self._taken_at = 0.0  # later runs of the same batch, request by request, are not measured
        with self._turns:
            return self._instance.run(signature, uploaded, outputs)

    def close(self) -> None:
        """Does nothing: the worker that made the instance closes it."""


def share(instance: Instance, places: Sequence[P], serve: Callable[[P, DoubleBuffer], None]) -> None:
    """Calls `serve(place, buffer)` for each place on a thread of its own, for the first place on the calling thread.
    Returns when all have returned, so that the caller can close the instance.
    """
    turns = ComputeTurns()
    name = threading.current_thread().name
    others = [
        threading.Thread(
            target=serve, args=(place, DoubleBuffer(instance, turns)), name=f"{name}-{number}", daemon=True
        )
        for number, place in enumerate(places[1:], 2)
    ]
    for other in others:
        other.start()
    serve(places[0], DoubleBuffer(instance, turns))
    for other in others:
        other.join()


def _nothing_to_upload(_signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
    return inputs


def _smoothed(known: float, seconds: float) -> float:
    return known + _RECENT * (seconds - known) if known else seconds
