"""One of several serving processes (`server.workers` above 1). The supervisor starts it; do not start it by hand.

`python -m inferd.server.cli.worker DESCRIPTOR SUPERVISOR`: the number of the link's file descriptor, and the process id
of the supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from inferd.backends.quiet import be_quiet
from inferd.server.allocator import set_up_heap
from inferd.server.cli.process_end import end_process
from inferd.server.cli.signals import calls_with_signal
from inferd.server.parent_death import end_with
from inferd.server.stray_signals import ignore_stray_signals

if TYPE_CHECKING:
    from inferd.server.app import App
    from inferd.server.workers.worker_agent import WorkerAgent


def main(descriptor: int, supervisor: int) -> int:
    """Serves until the supervisor stops it. Returns the exit code: 0 after a clean drain, 1 if requests were cut off or
    the server failed."""
    be_quiet()
    if not end_with(supervisor):
        return 1
    set_up_heap()  # before there is a second thread
    os.set_inheritable(descriptor, False)
    sigterm = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls_with_signal(signal.SIGTERM, sigterm.set)
    ignore_stray_signals((signal.SIGQUIT, signal.SIGHUP))  # those of the terminal are for the supervisor

    from inferd.server.app import App
    from inferd.server.config.errors import ConfigError
    from inferd.server.lifecycle.operations.overrides import OverridesError
    from inferd.server.observability import logs
    from inferd.server.workers.link import Link
    from inferd.server.workers.messages import Opened, Ready, StartFailed
    from inferd.server.workers.worker_agent import WorkerAgent

    end = socket.socket(fileno=descriptor)
    agent = WorkerAgent(lambda received, lost: Link(end, received, lost, name="inferd-supervisor"))
    begin = agent.begin
    with logs.start(begin.config.log, worker=begin.number):
        try:
            app = App(begin.config, agent=agent)
            if not begin.late:
                started = app.open()
                agent.tell(Opened(started.grpc, started.http))
        except (OSError, OverridesError, ConfigError) as error:
            agent.tell(StartFailed(str(error.strerror or error) if isinstance(error, OSError) else str(error)))
            return 1
        app.begin()
        orders = _Orders(agent, app)
        orders.start()
        threading.Thread(target=orders.request_leave, args=(sigterm,), name="inferd-leave", daemon=True).start()
        app.wait(orders.stop, lambda: agent.tell(Ready(app.summary())))
        if orders.leaving:
            app.leave(orders.hurry)
        return 0 if app.stop() else 1


class _Orders(threading.Thread):
    """A thread that carries out the supervisor's orders.

    stop      set when the worker must end
    leaving   before it ends, the worker waits until its connections have moved to other workers
    hurry     set when it must not wait for that
    """

    def __init__(self, agent: WorkerAgent, app: App) -> None:
        super().__init__(name="inferd-orders", daemon=True)
        self._agent = agent
        self._app = app
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.leaving = False

    def run(self) -> None:
        from inferd.server.workers.messages import Leave, Open, Opened, StartFailed

        while not self.hurry.is_set():
            order = self._agent.next_order()
            if isinstance(order, Open):
                try:
                    started = self._app.open()
                except Exception as error:  # any error: the supervisor must not wait for a worker that never serves
                    reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                    self._agent.tell(StartFailed(str(reason or error)))
                    self.stop.set()
                else:
                    self._agent.tell(Opened(started.grpc, started.http))
            elif isinstance(order, Leave):
                self.leaving = True
                self.stop.set()
            else:
                self.hurry.set()
                self.stop.set()

    def request_leave(self, sigterm: threading.Event) -> None:
        """Waits for SIGTERM to this worker and tells the supervisor. Runs on a thread of its own, because a signal
        handler may interrupt code that holds the link's lock."""
        from inferd.server.workers.messages import LeaveRequested

        sigterm.wait()
        self._agent.tell(LeaveRequested())


if __name__ == "__main__":
    end_process(main(int(sys.argv[1]), int(sys.argv[2])))
