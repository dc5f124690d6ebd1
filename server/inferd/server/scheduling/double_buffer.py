"""Several batches in hand on one instance: the next is put together and copied while the current one computes.

    ComputeTurns   lets one batch compute at a time, and knows when it is expected to end
    DoubleBuffer   one thread's view of the instance: uploads at once and computes in its turn

The next batch is taken as late as its preparation allows: what comes meanwhile shares it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

from inferd.backends.api import Ahead, Array, Instance

_RECENT = 0.2  # share of the latest measurement in what is expected
_SLACK = 1.5  # a preparation may take that many times as long as expected

P = TypeVar("P")
B = TypeVar("B")


class ComputeTurns:
    """The turns of one instance. Thread-safe."""

    def __init__(self, expected: float = 0.0) -> None:
        """`expected`: seconds that a batch computes, learned from the first on where it is 0."""
        self._condition = threading.Condition()
        self._computing = False
        self._began = 0.0
        self._expected = expected

    def wait(self, lead: float) -> None:
        """Waits until nothing computes, or what does is expected to end within `lead` seconds."""
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
    """An instance as one of the threads that share it sees it. Not thread-safe: it belongs to its thread.

    What `run` takes on the clock includes the wait for its turn, which `taking` keeps short.
    """

    def __init__(self, instance: Instance, turnstile: ComputeTurns) -> None:
        self._instance = instance
        self._turnstile = turnstile
        self._taken = 0.0
        self._lead = 0.0  # seconds from taking a batch to having it on the device
        self._upload: Callable[[str, Mapping[str, Array]], Mapping[str, Any]] = _nothing_to_upload
        if isinstance(instance, Ahead):
            self.staging = instance.staging
            self._upload = instance.upload

    def taking(self, take: Callable[[P], B]) -> Callable[[P], B]:
        """`take`, but not before it is time for the next batch."""

        def timely(argument: P) -> B:
            self._turnstile.wait(_SLACK * self._lead)
            batch = take(argument)
            self._taken = monotonic()
            return batch

        return timely

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """As Instance.run, in turn."""
        uploaded = self._upload(signature, inputs)
        if self._taken:
            self._lead = _smoothed(self._lead, monotonic() - self._taken)
            self._taken = 0.0  # a batch that is run again in parts tells nothing
        with self._turnstile:
            return self._instance.run(signature, uploaded, outputs)

    def close(self) -> None:
        """The instance is its worker's to close."""


def share(instance: Instance, places: Sequence[P], serve: Callable[[P, DoubleBuffer], None]) -> None:
    """Serves an instance from as many threads as there are places, the calling one among them. Gives back control when
    all have ended: whoever closes the instance then does so alone.
    """
    turnstile = ComputeTurns()
    name = threading.current_thread().name
    others = [
        threading.Thread(
            target=serve, args=(place, DoubleBuffer(instance, turnstile)), name=f"{name}-{number}", daemon=True
        )
        for number, place in enumerate(places[1:], 2)
    ]
    for other in others:
        other.start()
    serve(places[0], DoubleBuffer(instance, turnstile))
    for other in others:
        other.join()


def _nothing_to_upload(_signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
    return inputs


def _smoothed(known: float, seconds: float) -> float:
    return known + _RECENT * (seconds - known) if known else seconds
