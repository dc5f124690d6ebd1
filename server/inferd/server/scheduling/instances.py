"""The instances of a model. Each has its own thread, which makes the instance, runs it and closes it.

Frameworks keep per-thread state (CUDA contexts, thread pools, arenas), so an instance never changes threads.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import TypeVar

from inferd.backends.api import Instance, LoadError, Model, Placement

_log = logging.getLogger("inferd.scheduling")
T = TypeVar("T")


class InstanceWorker:
    """One instance and its thread. All methods are thread-safe.

    The thread is a daemon: a model that hangs in its framework never keeps the process alive.
    """

    def __init__(self, name: str, model: Model, placement: Placement, on_exit: Callable[[], None]) -> None:
        """`on_exit` is called on the worker's thread after the instance is closed."""
        self.name = name
        self.placement = placement
        self._model = model
        self._on_exit = on_exit
        self._calls: SimpleQueue[Callable[[Instance], None] | None] = SimpleQueue()
        self._made: Future[None] = Future()
        self._instance: Instance | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> Future[None]:
        """Starts the thread. The future is done when the instance is made; its exception is a LoadError."""
        self._thread.start()
        return self._made

    def call(self, fn: Callable[[Instance], T]) -> Future[T]:
        """Runs `fn(instance)` on the worker's thread, after earlier calls. The future gets its result or exception."""
        future: Future[T] = Future()

        def run(instance: Instance) -> None:
            try:
                future.set_result(fn(instance))
            except BaseException as error:  # the caller handles it, and the thread goes on
                future.set_exception(error)

        self._calls.put(run)
        return future

    def renew(self) -> Future[None]:
        """Replaces the instance by a new one without the old one's state. The future's exception is a LoadError."""

        def renew(instance: Instance) -> None:
            instance.close()
            self._instance = None
            self._instance = _make(self._model, self.placement)

        return self.call(renew)

    def stop(self) -> None:
        """Makes the thread close the instance and end, after earlier calls."""
        self._calls.put(None)

    def join(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for the thread. Returns whether it has ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _main(self) -> None:
        lower_priority(self.placement.nice)
        try:
            self._instance = _make(self._model, self.placement)
        except LoadError as error:
            self._made.set_exception(error)
        else:
            self._made.set_result(None)
            self._take_calls()
        if self._instance is not None:
            try:
                self._instance.close()
            except Exception:
                _log.exception("%s: the instance could not be closed", self.name)
            self._instance = None
        self._on_exit()

    def _take_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            instance = self._instance
            if instance is None:
                return  # `renew` has failed, and so does the load
            call(instance)
            del call, instance


def lower_priority(nice: int) -> None:
    """Adds `nice` to the nice value of the calling thread; threads that it starts inherit it. On Linux only: on other
    systems the nice value belongs to the process.
    """
    if nice and sys.platform.startswith("linux"):
        thread = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + nice))
        except OSError as error:
            _log.info("a thread's priority cannot be set: %s", error)


def _make(model: Model, placement: Placement) -> Instance:
    try:
        return model.instance(placement)
    except LoadError:
        raise
    except Exception as error:
        _log.exception("an instance on %s could not be made", placement.device)
        raise LoadError(
            f"no instance on {placement.device}: unexpected {type(error).__name__}, see the server's log"
        ) from error


class InstanceGroup:
    """The workers of one servable. The last worker to end closes the model. Thread-safe."""

    def __init__(self, name: str, model: Model, placements: Sequence[Placement]) -> None:
        if not placements:
            raise ValueError("an instance group needs at least one placement")
        self._model = model
        self._lock = threading.Lock()
        self._left = len(placements)
        self._started = False
        self._closed = False
        self.workers = tuple(
            InstanceWorker(f"inferd-{name}-{number}", model, placement, self._exited)
            for number, placement in enumerate(placements)
        )

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each instance."""
        return tuple(worker.placement.device for worker in self.workers)

    def start(self) -> None:
        """Makes every instance. Raises the first LoadError; the caller must call `close` in that case too."""
        self._started = True
        made = [worker.start() for worker in self.workers]
        for future in made:
            future.exception()
        for future in made:
            future.result()

    def keep_one(self) -> None:
        """Ends every worker but the first."""
        surplus, self.workers = self.workers[1:], self.workers[:1]
        for worker in surplus:
            worker.stop()

    def close(self, timeout: float) -> bool:
        """Ends the workers when their current calls have ended. Returns whether all have ended within `timeout`
        seconds; the others end later, when the model returns.
        """
        with self._lock:
            first, self._closed = not self._closed, True
        if first and not self._started:
            self._model.close()
        elif first:
            for worker in self.workers:
                worker.stop()
        if not self._started:
            return True
        deadline = monotonic() + timeout
        ended = [worker.join(max(0.0, deadline - monotonic())) for worker in self.workers]
        return all(ended)

    def _exited(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            try:
                self._model.close()
            except Exception:
                _log.exception("the model could not be closed")
