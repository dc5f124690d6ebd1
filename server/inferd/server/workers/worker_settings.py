"""What each worker of a group gets of the server's settings."""

from __future__ import annotations

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.resources.cpu_budget import available_cpus, share

CONNECTION_AGE = 30.0  # seconds; how long a worker that leaves must wait for its connections


def for_workers(config: ServerConfig) -> ServerConfig:
    """The machine is shared out; connections do not stay with one worker for ever."""
    threads = share(config.server.cpu_threads or available_cpus(), config.server.workers)
    server = config.server.model_copy(update={"cpu_threads": threads, "state_dir": None})  # it has one writer
    grpc = config.grpc
    if grpc.max_connection_age is None:
        grpc = grpc.model_copy(update={"max_connection_age": CONNECTION_AGE})
    return config.model_copy(update={"server": server, "grpc": grpc})


def check(config: ServerConfig) -> None:
    """Raises OSError for what a group cannot serve."""
    if config.server.shared_memory is not None:
        raise OSError(
            "server.shared_memory: expected null while server.workers is above 1: a region that one worker knows is "
            "unknown to the others"
        )
