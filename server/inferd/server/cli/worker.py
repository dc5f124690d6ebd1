"""One serving process of a group. Started by the supervisor only, never by hand: `python -m inferd.server.cli.worker`
with the number of the link's descriptor and the supervisor's process id."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from inferd.server.cli.signals import calls_with_signal
from inferd.server.parent_death import end_with

if TYPE_CHECKING:
    from inferd.server.app import App
    from inferd.server.workers.worker_agent import WorkerAgent


def main(descriptor: int, supervisor: int) -> int:
    """Serves until told to stop. Gives 0 after a clean drain, 1 when requests were cut off or the server failed."""
    if not end_with(supervisor):
        return 1
    os.set_inheritable(descriptor, False)
    asked = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls_with_signal(signal.SIGTERM, asked.set)

    from inferd.server.app import App
    from inferd.server.config.errors import ConfigError
    from inferd.server.lifecycle.operations.overrides import OverridesError
    from inferd.server.observability import logs
    from inferd.server.workers.link import Link
    from inferd.server.workers.messages import Impossible, Opened, Ready
    from inferd.server.workers.worker_agent import WorkerAgent

    end = socket.socket(fileno=descriptor)
    seat = WorkerAgent(lambda received, lost: Link(end, received, lost, name="inferd-supervisor"))
    begin = seat.begin
    with logs.start(begin.config.log, worker=begin.number):
        try:
            app = App(begin.config, seat=seat)
            if not begin.late:
                started = app.open()
                seat.tell(Opened(started.grpc, started.http))
        except (OSError, OverridesError, ConfigError) as error:
            seat.tell(Impossible(str(error.strerror or error) if isinstance(error, OSError) else str(error)))
            return 1
        app.begin()
        orders = _Orders(seat, app)
        orders.start()
        threading.Thread(target=orders.ask_to_leave, args=(asked,), name="inferd-leave", daemon=True).start()
        app.wait(orders.stop, lambda: seat.tell(Ready(app.summary())))
        if orders.leaving:
            app.leave(orders.hurry)
        return 0 if app.stop() else 1


class _Orders(threading.Thread):
    """Does what the supervisor says. `stop` is set when the worker is to end; `leaving`: it lets its connections go to
    the others first, unless `hurry` is set."""

    def __init__(self, seat: WorkerAgent, app: App) -> None:
        super().__init__(name="inferd-orders", daemon=True)
        self._seat = seat
        self._app = app
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.leaving = False

    def run(self) -> None:
        from inferd.server.workers.messages import Impossible, Leave, Open, Opened

        while not self.hurry.is_set():
            order = self._seat.next_order()
            if isinstance(order, Open):
                try:
                    started = self._app.open()
                except Exception as error:  # whatever it is: a worker that never serves would be waited for
                    words = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                    self._seat.tell(Impossible(str(words or error)))
                    self.stop.set()
                else:
                    self._seat.tell(Opened(started.grpc, started.http))
            elif isinstance(order, Leave):
                self.leaving = True
                self.stop.set()
            else:
                self.hurry.set()
                self.stop.set()

    def ask_to_leave(self, asked: threading.Event) -> None:
        """Waits for a signal to this worker alone. Not for the signal's handler, which runs between any two lines."""
        from inferd.server.workers.messages import Leaving

        asked.wait()
        self._seat.tell(Leaving())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
