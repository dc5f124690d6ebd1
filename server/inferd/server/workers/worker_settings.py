"""The settings with which each worker runs, made from the server's settings."""

from __future__ import annotations

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.resources.cpu_budget import available_cpus, share

CONNECTION_AGE = 30.0  # seconds; a worker that leaves waits about this long for its connections to move


def for_workers(config: ServerConfig) -> ServerConfig:
    """The settings of one worker: its share of the CPU threads, no state directory (only the supervisor writes it),
    and a bounded connection age, so that clients move to other workers."""
    threads = share(config.server.cpu_threads or available_cpus(), config.server.workers)
    server = config.server.model_copy(update={"cpu_threads": threads, "state_dir": None})
    grpc = config.grpc
    if grpc.max_connection_age is None:
        grpc = grpc.model_copy(update={"max_connection_age": CONNECTION_AGE})
    return config.model_copy(update={"server": server, "grpc": grpc})


def check(config: ServerConfig) -> None:
    """Raises OSError for settings that several workers cannot serve."""
    if config.server.shared_memory is not None:
        raise OSError(
            "server.shared_memory: expected null while server.workers is above 1: a region that one worker knows is "
            "unknown to the others"
        )
