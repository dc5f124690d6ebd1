"""`inferd serve` with `server.workers` above 1: this process is the supervisor."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from inferd.server.cli.errors import CommandError

if TYPE_CHECKING:
    from inferd.server.config.schema import ServerConfig


def serve_group(config: ServerConfig, asked: list[int]) -> int:
    """Serves. `asked`: signals that have come, and a place for those that will. Gives 0 after a clean drain, 1 when
    requests were cut off or the server failed, 130 when it was interrupted twice."""
    from inferd.server import __version__
    from inferd.server.lifecycle.operations.overrides import OverridesError
    from inferd.server.observability import logs
    from inferd.server.workers.supervisor import CannotServe, Supervisor

    group: list[Supervisor] = []

    def signalled(number: int, _frame: Any) -> None:
        asked.append(number)
        for supervisor in group:
            supervisor.stop()
            if len(asked) > 1:
                supervisor.hasten()

    def rolled(_number: int, _frame: Any) -> None:
        for supervisor in group:
            supervisor.roll()

    signal.signal(signal.SIGTERM, signalled)
    signal.signal(signal.SIGINT, signalled)
    signal.signal(signal.SIGHUP, rolled)
    asked[:] = [number for number in asked if number != signal.SIGHUP]  # nothing had begun that could be replaced
    try:
        log = logs.start(config.log)
    except OSError as error:
        raise CommandError(f"log.file: cannot open {config.log.file}: {error.strerror or error}") from None
    with log:
        try:
            supervisor = Supervisor(config)
        except (OSError, OverridesError) as error:
            raise CommandError(str(error.strerror or error) if isinstance(error, OSError) else str(error)) from None
        group.append(supervisor)
        if asked:  # before anybody listened
            supervisor.stop()

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
    if len(asked) > 1 and asked[-1] == signal.SIGINT:
        return 130
    return 0 if ended_well else 1
