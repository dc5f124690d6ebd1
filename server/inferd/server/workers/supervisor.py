"""The supervisor: starts the workers, replaces those that end, and coordinates what all workers must do together.

All work is done on the thread that calls `run`; links, signals and timers post functions to it. The supervisor answers
no requests and imports neither gRPC nor a framework.

    start    ports are checked and held → workers start, open the ports and load → all are ready → the server is ready
    death    a worker ends unexpectedly → another starts in its place, after a pause that grows with every early death;
             it opens its ports when it has loaded the versions that the other workers serve
    hang     a worker does not answer for `server.worker_hang` → it is killed → as after a death
    leave    a worker gets SIGTERM (SIGHUP to the supervisor: all workers, in turn) → its replacement starts, loads and
             serves → its connections move to the other workers → it drains and ends
    stop     SIGTERM or SIGINT → every worker drains → exit code 0 if each has answered every request that it accepted
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.observability.events import event, get
from inferd.server.process_end import ending
from inferd.server.workers import messages as m
from inferd.server.workers.child import Child, ChildPhase
from inferd.server.workers.job_loop import JobLoop
from inferd.server.workers.link import Answer
from inferd.server.workers.liveness import LivenessWatch
from inferd.server.workers.metrics_exchange import MetricsExchange
from inferd.server.workers.operations import Operations
from inferd.server.workers.ports import HeldPorts
from inferd.server.workers.restart_backoff import RestartBackoff
from inferd.server.workers.rolling_restart import RollingRestart
from inferd.server.workers.two_phase_activation import TwoPhaseActivation
from inferd.server.workers.worker_join import exchange_states, log_missing, missing
from inferd.server.workers.worker_settings import check, for_workers

log = get("group")

_ACTIVATION_PATIENCE = 60.0  # seconds for which a loaded version waits for the last worker
_KILL_MARGIN = 20.0  # seconds after the graces, after which a worker that stops is killed
_EXIT_POLL = 0.05  # seconds between two checks whether a process has ended
_LATE = 60.0  # seconds after which the log says why a worker does not serve yet


class CannotServe(Exception):
    """A worker has reported that it cannot serve. Another try would fail in the same way."""


class Supervisor:
    """Call `run` once. `stop`, `stop_now` and `roll` may be called from signal handlers and other threads."""

    def __init__(self, config: ServerConfig, *, backoff: Backoff | None = None) -> None:
        """Holds the ports. Raises OSError for a port that cannot be held or a setting that several workers cannot
        serve, OverridesError for a state directory that cannot be used."""
        self._size = config.server.workers
        check(config)
        self._overrides = Overrides.of_config(config.server)
        self.ports = HeldPorts.of(config)
        self._config = for_workers(self.ports.apply(config))
        self._restart_backoff = RestartBackoff(backoff or Backoff(0.5, 30.0))
        self._jobs = JobLoop()
        self._ids = itertools.count(1)
        self._children: dict[int, Child] = {}  # by id
        self._activation = TwoPhaseActivation(
            self._decided, self._late, name_of=self._name_of, patience=_ACTIVATION_PATIENCE, clock=time.monotonic
        )
        self._operations = Operations(self._overrides, self._alive, self._jobs.post)
        self._metrics = MetricsExchange(self._alive, self._jobs.post, self._jobs.after)
        self._liveness = LivenessWatch(
            self._alive, self._jobs.post, self._jobs.after, limit=config.server.worker_hang, clock=time.monotonic
        )
        self._rolling_restart = RollingRestart(self._roll_one)
        self._summary = ""
        self._ready = False
        self._stopping = False
        self._failed = False
        self._reason = ""
        self._on_ready: Callable[[str], None] = lambda _summary: None

    def run(self, on_ready: Callable[[str], None]) -> bool:
        """Serves until `stop`. Calls `on_ready` once, with a summary of what is served. Returns whether every worker
        has ended with exit code 0.

        Raises CannotServe if a worker reports, before the server is ready, that it cannot serve.
        """
        self._on_ready = on_ready
        try:
            for number in range(1, self._size + 1):
                self._spawn(number, late=False)
            self._liveness.start()
            while not (self._stopping and not self._alive()):
                self._jobs.turn(self._activation.due)
                self._activation.tick()
        finally:
            for child in self._alive():
                child.kill()
            for child in self._alive():
                child.wait()
            self.ports.close()
        if self._reason:
            raise CannotServe(self._reason)
        return not self._failed

    def stop(self) -> None:
        """Drains all workers; then `run` returns."""
        self._jobs.post(self._stop)

    def stop_now(self) -> None:
        """Kills all workers; then `run` returns."""
        self._jobs.post(self._kill)

    def roll(self) -> None:
        """Replaces every worker, one after the other."""
        self._jobs.post(self._roll)

    # Workers start and join

    def _spawn(self, number: int, *, late: bool, replaces: Child | None = None) -> None:
        if self._stopping:
            return
        child = Child(next(self._ids), number, late=late)
        child.began = time.monotonic()
        child.replaces = replaces
        try:
            child.start(
                lambda child, message, answer: self._jobs.post(partial(self._received, child, message, answer)),
                lambda child: self._jobs.post(partial(self._link_lost, child)),
            )
        except (OSError, RuntimeError) as error:  # the system gives no process, descriptor or thread
            pause = self._restart_backoff.pause(0.0)
            event(log, logging.ERROR, "a worker cannot be started", worker=number, error=error, next_in=pause)
            self._jobs.after(pause, partial(self._respawn, number, replaces))
            return
        self._children[child.id] = child
        event(log, logging.INFO, "worker starting", worker=number, pid=child.pid)
        child.link.tell(
            m.Begin(
                self._config,
                number,
                self._size,
                late,
                self._overrides.all,
                self._overrides.persistent,
                self._operations.configured_models,
            )
        )
        if late:
            self._jobs.after(_LATE, lambda: log_missing(child, self._serving()))
        if not late or not self._serving():
            self._activation.join(child.id)

    def _alive(self) -> list[Child]:
        return [child for child in self._children.values() if child.alive]

    def _serving(self) -> list[Child]:
        return [child for child in self._children.values() if child.phase is ChildPhase.SERVING]

    def _name_of(self, id: int) -> str:  # noqa: A002
        return f"worker {self._children[id].number}" if id in self._children else "a worker"

    def _received(self, child: Child, message: Any, answer: Answer | None) -> None:
        match message:
            case m.Ready():
                self._summary = message.summary
                if child.phase is ChildPhase.STARTING:
                    child.phase = ChildPhase.READY
                    self._advance()
            case m.Opened():
                if child.phase is ChildPhase.OPENING:
                    self._joined(child)
            case m.States():
                self._states(child, message)
            case m.Loaded():
                self._activation.loaded(child.id, message.key, message.subject)
            case m.NotLoaded():
                self._activation.failed(child.id, message.key, message.subject, message.reason)
            case m.Withdrawn():
                self._activation.withdrawn(child.id, message.key)
            case m.LeaveRequested():
                child.stopping = True
                self._replace(child)
            case m.StartFailed():
                self._start_failed(child, message.reason)
            case m.FinalMetrics():
                self._metrics.final(child, message.families)
            case m.Operation() if answer is not None:
                if message.kind == "load":
                    self._activation.try_again(message.model)
                self._operations.start(child, message, answer)
            case m.KeepOverrides() if answer is not None:
                self._operations.keep(child, message, answer)
            case m.CollectOthers() if answer is not None:
                self._metrics.collect(child, message.own, answer, len(self._serving()))

    def _advance(self) -> None:
        """Moves workers on to their next phase: all first workers together, late workers when they lack no version."""
        if not self._ready:
            first = [child for child in self._children.values() if not child.late and child.alive]
            if len(first) == self._size and all(child.phase is ChildPhase.READY for child in first):
                self._ready = True
                for child in first:
                    self._joined(child)
                self._announce(first)
            return
        for child in self._alive():
            if child.phase is ChildPhase.READY and not child.late:  # its ports are open
                self._joined(child)
            elif child.phase is ChildPhase.READY and not missing(child, self._serving()):
                child.phase = ChildPhase.OPENING
                child.link.tell(m.GroupReady())
                child.link.tell(m.Open())

    def _announce(self, workers: Sequence[Child]) -> None:
        """Calls `on_ready` when each of these workers has read that the group is ready: a client that was told so must
        not meet a worker that denies it. A worker that is gone is not waited for."""
        behind = len(workers)

        def has_read() -> None:
            nonlocal behind
            behind -= 1
            if not behind and not self._stopping:
                self._on_ready(self._summary)

        for child in workers:
            child.link.ask(m.Ping()).add_done_callback(lambda _answer: self._jobs.post(has_read))

    def _joined(self, child: Child) -> None:
        child.phase = ChildPhase.SERVING
        child.link.tell(m.GroupReady())
        self._activation.join(child.id)
        exchange_states(child, self._serving())
        event(log, logging.INFO, "worker serves", worker=child.number, pid=child.pid)
        if child.replaces is not None and child.replaces.alive:
            self._send_away(child.replaces)
        child.replaces = None
        if child.stopping:  # it got SIGTERM while it started
            self._replace(child)

    def _states(self, child: Child, changed: m.States) -> None:
        if changed.states is None:
            before = child.states.pop(changed.model, {})
            ended = list(before)
        else:
            child.states[changed.model] = changed.states
            ended = [version for version, (state, _) in changed.states.items() if state in ("UNLOADING", "END")]
        for version in ended:
            self._activation.ended(child.id, f"{changed.model}:{version}")
        if child.phase is ChildPhase.SERVING:
            for other in self._serving():
                if other is not child:
                    other.link.tell(m.PeerStates(child.number, changed.model, changed.states))
        self._advance()

    # Callbacks of TwoPhaseActivation

    def _decided(self, id: int, key: str, refusal: str) -> None:  # noqa: A002
        self._children[id].link.tell(m.ActivationDecided(key, refusal))

    def _late(self, subject: str, workers: list[int]) -> None:
        names = ", ".join(self._name_of(worker) for worker in workers)
        event(log, logging.WARNING, "a version serves before every worker has it", servable=subject, missing=names)

    # Workers leave and die

    def _link_lost(self, child: Child, until: float | None = None) -> None:
        """The worker's link has ended. Polls until its process has ended, too, without blocking this thread; kills the
        process when the time is up."""
        until = until or time.monotonic() + (_KILL_MARGIN if child.stopping or self._stopping else 1.0)
        code = child.exit_code(kill=time.monotonic() >= until)
        if code is None:
            self._jobs.after(_EXIT_POLL, partial(self._link_lost, child, until))
            return
        served = child.phase in (ChildPhase.SERVING, ChildPhase.OPENING)
        leaving = child.phase is ChildPhase.LEAVING
        child.phase = ChildPhase.GONE
        self._activation.leave(child.id)
        self._metrics.gone(child)
        del self._children[child.id]
        for other in self._serving():
            other.link.tell(m.PeerGone(child.number))
        if self._stopping:
            self._failed |= code != 0 and child.stopping
            return
        self._restart(child, code, served=served, left=leaving)
        if not self._serving():  # no member is left: the workers that start become members and wait for each other
            for other in self._alive():
                self._activation.join(other.id)
        self._advance()
        self._rolling_restart.gone(child.id)

    def _restart(self, child: Child, code: int, *, served: bool, left: bool) -> None:
        """Schedules a worker in the place of one that died. `left`: it ended because it was replaced."""
        if left:
            event(log, logging.INFO, "worker left", worker=child.number, code=code)
            return
        pause = self._restart_backoff.pause(time.monotonic() - child.began)
        fields = {"worker": child.number, "pid": child.pid, "code": code, "fate": ending(code), "next_in": pause}
        event(log, logging.ERROR, "worker died", error=None, **fields)
        if child.replaced:
            return  # its replacement has been started already or will be
        self._metrics.restarts += served or self._ready
        replaces = child.replaces if child.replaces is not None and child.replaces.alive else None
        self._jobs.after(pause, partial(self._respawn, child.number, replaces))

    def _respawn(self, number: int, replaces: Child | None) -> None:
        self._spawn(number, late=self._ready and bool(self._serving()), replaces=replaces)

    def _start_failed(self, child: Child, reason: str) -> None:
        event(log, logging.ERROR, "a worker cannot serve", worker=child.number, reason=reason)
        if not self._ready and not self._stopping:
            self._reason = reason
            self._stop()

    def _replace(self, child: Child) -> None:
        if self._stopping or child.phase is not ChildPhase.SERVING or child.replaced:
            return
        child.replaced = True
        self._metrics.restarts += 1
        self._spawn(child.number, late=True, replaces=child)

    def _send_away(self, child: Child) -> None:
        child.phase = ChildPhase.LEAVING
        child.stopping = True
        self._activation.leave(child.id)
        for other in self._serving():
            other.link.tell(m.PeerGone(child.number))
        child.link.tell(m.Leave())
        event(log, logging.INFO, "worker leaving", worker=child.number, pid=child.pid)

    def _roll(self) -> None:
        if self._ready and not self._stopping and not self._rolling_restart.under_way:
            workers = self._serving()
            event(log, logging.INFO, "replacing the workers one by one", workers=len(workers))
            self._rolling_restart.begin(child.id for child in workers)

    def _roll_one(self, id: int) -> bool:  # noqa: A002
        child = self._children.get(id)
        if child is None or child.phase is not ChildPhase.SERVING:
            return False
        self._replace(child)
        return child.replaced

    # The server stops

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        drain = self._config.drain
        event(log, logging.INFO, "stopping the workers", workers=len(self._alive()))
        for child in self._alive():
            if child.phase in (ChildPhase.STARTING, ChildPhase.READY) and (child.late or not self._ready):
                child.kill()  # it serves nothing yet
            else:
                child.stopping = True
                child.link.tell(m.Stop())
        self._jobs.after(drain.pre_stop + 2 * drain.grace + _KILL_MARGIN, self._kill)

    def _kill(self) -> None:
        self._stopping = True
        for child in self._alive():
            self._failed = True
            child.kill()
