"""`inferd serve` with `server.workers` above 1: this process is the supervisor of the workers."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from inferd.server.cli.errors import CommandError
from inferd.server.cli.health import note_addresses

if TYPE_CHECKING:
    from inferd.server.config.schema import ServerConfig
    from inferd.server.work_dir import WorkDir


def serve_with_workers(config: ServerConfig, signals: list[int], work: WorkDir) -> int:
    """Serves until stopped. `signals` holds the signals that have come so far; later ones are added to it. `work`: the
    private directory of this process.

    Returns the exit code: 0 after a clean drain, 1 if requests were cut off or the server failed, 130 if it was
    interrupted twice.
    """
    from inferd.server import __version__
    from inferd.server.lifecycle.operations.overrides import OverridesError
    from inferd.server.observability import logs
    from inferd.server.workers.supervisor import CannotServe, Supervisor

    supervisors: list[Supervisor] = []  # empty until the supervisor exists; the handlers are set before

    def on_stop(number: int, _frame: Any) -> None:
        signals.append(number)
        for supervisor in supervisors:
            supervisor.stop()
            if len(signals) > 1:
                supervisor.stop_now()

    def on_roll(_number: int, _frame: Any) -> None:
        for supervisor in supervisors:
            supervisor.roll()

    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    signal.signal(signal.SIGQUIT, on_stop)
    signal.signal(signal.SIGHUP, on_roll)
    signals[:] = [number for number in signals if number != signal.SIGHUP]  # there were no workers to replace yet
    try:
        log = logs.start(config.log)
    except OSError as error:
        raise CommandError(f"log.file: cannot open {config.log.file}: {error.strerror or error}") from None
    with log:
        try:
            supervisor = Supervisor(config)
        except (OSError, OverridesError) as error:
            raise CommandError(str(error.strerror or error) if isinstance(error, OSError) else str(error)) from None
        supervisors.append(supervisor)
        if signals:  # they came before the handlers knew the supervisor
            supervisor.stop()
        note_addresses(work, config, supervisor.ports.grpc, supervisor.ports.http, supervisor.ports.metrics)

        def ready(summary: str) -> None:
            grpc, http = ", ".join(supervisor.ports.grpc), ", ".join(supervisor.ports.http) or "off"
            metrics = f"; metrics {', '.join(supervisor.ports.metrics)}" if supervisor.ports.metrics else ""
            workers = f"{config.server.workers} workers"
            sys.stdout.write(f"inferd {__version__} ready: grpc {grpc}; http {http}{metrics}; {summary}; {workers}\n")
            sys.stdout.flush()

        try:
            ended_well = supervisor.run(ready)
        except CannotServe as error:
            raise CommandError(str(error)) from None
    if len(signals) > 1 and signals[-1] == signal.SIGINT:
        return 130
    return 0 if ended_well else 1
