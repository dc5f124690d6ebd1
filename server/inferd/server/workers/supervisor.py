"""The supervisor: starts the workers, keeps them in number and in step, and ends when it is told to.

Everything happens on the thread that calls `run`; links, signals and timers post functions to it. It serves nothing and
imports neither gRPC nor a framework.

    start    ports proved free and held → workers begin, open their ports and load → all ready → the server is ready
    death    a worker is gone → another starts in its place, after a pause that grows with every early death; it opens
             its ports when it has loaded what the others serve
    hang     a worker does not answer for `server.worker_hang` → it is killed, and that is its death
    leave    a worker is sent SIGTERM (or all are replaced in turn: SIGHUP to the supervisor) → its replacement starts,
             loads and serves → its connections move to the others → it drains and ends
    stop     SIGTERM, SIGINT → every worker drains → 0 when each had answered all that it accepted
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.operations.overrides import Overrides
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.observability.events import event, get
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
from inferd.server.workers.worker_join import introduce, missing, tell_missing
from inferd.server.workers.worker_settings import check, for_workers

log = get("group")

_PATIENCE = 60.0  # seconds for which a version that others have loaded waits for the last worker
_MARGIN = 20.0  # seconds beyond all graces before a worker that stops is killed
_LOOK = 0.05
_LATE = 60.0  # seconds after which it is told why a worker does not serve yet


class CannotServe(Exception):
    """A worker said that it cannot serve, and another try would end the same way."""


class Supervisor:
    """One group of workers. Used once: `run`. `stop`, `hasten` and `roll` may be called from a signal handler."""

    def __init__(self, config: ServerConfig, *, backoff: Backoff | None = None) -> None:
        """Raises OSError for a port that cannot be had, OverridesError for a state directory that cannot be used."""
        self._size = config.server.workers
        check(config)
        self._overrides = Overrides.of_config(config.server)
        self.ports = HeldPorts.of(config)
        self._config = for_workers(self.ports.apply(config))
        self._deaths = RestartBackoff(backoff or Backoff(0.5, 30.0))
        self._agenda = JobLoop()
        self._numbers = itertools.count(1)
        self._children: dict[int, Child] = {}
        self._agreement = TwoPhaseActivation(
            self._decided, self._late, named=self._named, patience=_PATIENCE, clock=time.monotonic
        )
        self._operations = Operations(self._overrides, self._alive, self._agenda.post)
        self._scrapes = MetricsExchange(self._alive, self._agenda.post, self._agenda.after)
        self._watch = LivenessWatch(
            self._alive, self._agenda.post, self._agenda.after, limit=config.server.worker_hang, clock=time.monotonic
        )
        self._rolling = RollingRestart(self._roll_one)
        self._summary = ""
        self._ready = False
        self._stopping = False
        self._failed = False
        self._reason = ""
        self._on_ready: Callable[[str], None] = lambda _summary: None

    def run(self, on_ready: Callable[[str], None]) -> bool:
        """Serves until told to stop. Calls `on_ready` once, with what is served. Gives whether every worker ended well.

        Raises CannotServe when a worker cannot even begin.
        """
        self._on_ready = on_ready
        try:
            for number in range(1, self._size + 1):
                self._spawn(number, late=False)
            self._watch.start()
            while not (self._stopping and not self._alive()):
                self._agenda.turn(self._agreement.due)
                self._agreement.tick()
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
        """Drains all workers and ends."""
        self._agenda.post(self._stop)

    def hasten(self) -> None:
        """Ends all workers at once."""
        self._agenda.post(self._kill)

    def roll(self) -> None:
        """Replaces every worker, one after the other."""
        self._agenda.post(self._roll)

    # Workers come

    def _spawn(self, number: int, *, late: bool, replaces: Child | None = None) -> None:
        if self._stopping:
            return
        child = Child(next(self._numbers), number, late=late)
        child.began = time.monotonic()
        child.replaces = replaces
        try:
            child.start(
                lambda child, message, answer: self._agenda.post(partial(self._received, child, message, answer)),
                lambda child: self._agenda.post(partial(self._lost, child)),
            )
        except (OSError, RuntimeError) as error:  # no process, descriptor or thread to be had: those that serve go on
            pause = self._deaths.pause(0.0)
            event(log, logging.ERROR, "a worker cannot be started", worker=number, error=error, next_in=pause)
            self._agenda.after(pause, partial(self._respawn, number, replaces))
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
            self._agenda.after(_LATE, lambda: tell_missing(child, self._serving()))
        if not late or not self._serving():
            self._agreement.join(child.id)

    def _alive(self) -> list[Child]:
        return [child for child in self._children.values() if child.alive]

    def _serving(self) -> list[Child]:
        return [child for child in self._children.values() if child.phase is ChildPhase.SERVING]

    def _named(self, id: int) -> str:  # noqa: A002
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
                self._agreement.loaded(child.id, message.key, message.subject)
            case m.NotLoaded():
                self._agreement.failed(child.id, message.key, message.subject, message.reason)
            case m.Withdrawn():
                self._agreement.withdrawn(child.id, message.key)
            case m.Leaving():
                child.stopping = True
                self._replace(child)
            case m.Impossible():
                self._impossible(child, message.reason)
            case m.Farewell():
                self._scrapes.farewell(child, message.families)
            case m.Operation() if answer is not None:
                self._operations.start(child, message, answer)
            case m.Keep() if answer is not None:
                self._operations.keep(child, message, answer)
            case m.Scrape() if answer is not None:
                self._scrapes.start(child, message.own, answer, len(self._serving()))

    def _advance(self) -> None:
        """Lets those in that have what they need."""
        if not self._ready:
            first = [child for child in self._children.values() if not child.late and child.alive]
            if len(first) == self._size and all(child.phase is ChildPhase.READY for child in first):
                self._ready = True
                for child in first:
                    self._joined(child)
                if not self._stopping:
                    self._on_ready(self._summary)
            return
        for child in self._alive():
            if child.phase is ChildPhase.READY and not child.late:  # its ports are open
                self._joined(child)
            elif child.phase is ChildPhase.READY and not missing(child, self._serving()):
                child.phase = ChildPhase.OPENING
                child.link.tell(m.GroupReady())
                child.link.tell(m.Open())

    def _joined(self, child: Child) -> None:
        child.phase = ChildPhase.SERVING
        child.link.tell(m.GroupReady())
        self._agreement.join(child.id)
        introduce(child, self._serving())
        event(log, logging.INFO, "worker serves", worker=child.number, pid=child.pid)
        if child.replaces is not None and child.replaces.alive:
            self._send_away(child.replaces)
        child.replaces = None
        if child.stopping:  # it was asked to leave while it came
            self._replace(child)

    def _states(self, child: Child, news: m.States) -> None:
        if news.states is None:
            before = child.states.pop(news.model, {})
            ended = list(before)
        else:
            child.states[news.model] = news.states
            ended = [version for version, (state, _) in news.states.items() if state in ("UNLOADING", "END")]
        for version in ended:
            self._agreement.ended(child.id, f"{news.model}:{version}")
        if child.phase is ChildPhase.SERVING:
            for other in self._serving():
                if other is not child:
                    other.link.tell(m.PeerStates(child.number, news.model, news.states))
        self._advance()

    # TwoPhaseActivation

    def _decided(self, id: int, key: str, refusal: str) -> None:  # noqa: A002
        self._children[id].link.tell(m.Decided(key, refusal))

    def _late(self, subject: str, workers: list[int]) -> None:
        words = ", ".join(self._named(worker) for worker in workers)
        event(log, logging.WARNING, "a version serves before every worker has it", servable=subject, missing=words)

    # Workers go

    def _lost(self, child: Child, until: float | None = None) -> None:
        """The link is gone, and the process soon: others are not kept waiting for that."""
        until = until or time.monotonic() + (_MARGIN if child.stopping or self._stopping else 1.0)
        code = child.exit_code(kill=time.monotonic() >= until)
        if code is None:
            self._agenda.after(_LOOK, partial(self._lost, child, until))
            return
        served = child.phase in (ChildPhase.SERVING, ChildPhase.OPENING)
        leaving = child.phase is ChildPhase.LEAVING
        child.phase = ChildPhase.GONE
        self._agreement.leave(child.id)
        self._scrapes.gone(child)
        del self._children[child.id]
        for other in self._serving():
            other.link.tell(m.PeerGone(child.number))
        if self._stopping:
            self._failed |= code != 0 and child.stopping
            return
        self._gone(child, code, served=served, left=leaving)
        if not self._serving():  # those that come have only each other to wait for
            for other in self._alive():
                self._agreement.join(other.id)
        self._advance()
        self._rolling.gone(child.id)

    def _gone(self, child: Child, code: int, *, served: bool, left: bool) -> None:
        if left:
            event(log, logging.INFO, "worker left", worker=child.number, code=code)
            return
        pause = self._deaths.pause(time.monotonic() - child.began)
        event(log, logging.ERROR, "worker died", worker=child.number, pid=child.pid, code=code, next_in=pause)
        if child.replaced:
            return  # its replacement is on its way
        self._scrapes.restarts += served or self._ready
        replaced = child.replaces if child.replaces is not None and child.replaces.alive else None
        self._agenda.after(pause, partial(self._respawn, child.number, replaced))

    def _respawn(self, number: int, replaces: Child | None) -> None:
        self._spawn(number, late=self._ready and bool(self._serving()), replaces=replaces)

    def _impossible(self, child: Child, reason: str) -> None:
        event(log, logging.ERROR, "a worker cannot serve", worker=child.number, reason=reason)
        if not self._ready and not self._stopping:
            self._reason = reason
            self._stop()

    def _replace(self, child: Child) -> None:
        if self._stopping or child.phase is not ChildPhase.SERVING or child.replaced:
            return
        child.replaced = True
        self._scrapes.restarts += 1
        self._spawn(child.number, late=True, replaces=child)

    def _send_away(self, child: Child) -> None:
        child.phase = ChildPhase.LEAVING
        child.stopping = True
        self._agreement.leave(child.id)
        for other in self._serving():
            other.link.tell(m.PeerGone(child.number))
        child.link.tell(m.Leave())
        event(log, logging.INFO, "worker leaving", worker=child.number, pid=child.pid)

    def _roll(self) -> None:
        if self._ready and not self._stopping and not self._rolling.under_way:
            workers = self._serving()
            event(log, logging.INFO, "replacing the workers one by one", workers=len(workers))
            self._rolling.begin(child.id for child in workers)

    def _roll_one(self, id: int) -> bool:  # noqa: A002
        child = self._children.get(id)
        if child is None or child.phase is not ChildPhase.SERVING:
            return False
        self._replace(child)
        return child.replaced

    # The end

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
        self._agenda.after(drain.pre_stop + 2 * drain.grace + _MARGIN, self._kill)

    def _kill(self) -> None:
        self._stopping = True
        for child in self._alive():
            self._failed = True
            child.kill()
