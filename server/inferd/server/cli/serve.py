"""`inferd serve`: serves a repository until it is stopped."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from inferd.server.allocator import set_up_heap
from inferd.server.cli.errors import CommandError
from inferd.server.cli.flags import tfs, triton
from inferd.server.cli.flags.settings import FlagSettings
from inferd.server.cli.health import CONFIG_VARIABLE, default_config, note_addresses
from inferd.server.cli.process_end import end_process
from inferd.server.cli.signals import ends_with_signals

if TYPE_CHECKING:
    from inferd.server.app import App
    from inferd.server.config.schema import ServerConfig
    from inferd.server.observability.logs import Logs
    from inferd.server.work_dir import WorkDir

# Triton serves its metrics on port 8002. Here every HTTP address serves metrics, too.
COMPATIBLE = {"triton": ("0.0.0.0:8000", "0.0.0.0:8002"), "tfserving": ("0.0.0.0:8501",)}


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = subparsers.add_parser("serve", help="serve a model repository until stopped (SIGTERM drains)")
    add_configuration(parser)
    parser.set_defaults(run=run)


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that make up a configuration. `serve` and `check` share them."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=default_config(),
        help=f"settings (YAML); without this flag the file that {CONFIG_VARIABLE} names",
    )
    parser.add_argument(
        "--model-repository",
        "--model-store",
        action="append",
        metavar="DIR",
        help="where models come from; may be repeated",
    )
    parser.add_argument(
        "--model-name", dest="model_name", metavar="NAME", help="the model's name, if DIR itself is one model"
    )
    parser.add_argument(
        "--listen", action="append", metavar="HOST:PORT", help="gRPC address or unix:PATH; may be repeated"
    )
    parser.add_argument("--http", action="append", metavar="HOST:PORT", help="HTTP address; may be repeated")
    parser.add_argument(
        "--compat",
        metavar="SYSTEMS",
        help="also listen where the clients of other systems look: triton (8000, 8002), tfserving (8501)",
    )
    parser.add_argument("--state-dir", metavar="DIR", help="where operators' wishes are kept over restarts")
    parser.add_argument("--workers", type=int, metavar="N", help="serving processes on the same ports (1)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting, such as batching.max_batch_size=8; may be repeated",
    )
    tfs.add_flags(parser)
    triton.add_flags(parser)


def configuration(args: argparse.Namespace) -> ServerConfig:
    """The configuration from flags, environment and file. Raises CommandError with every problem found."""
    try:
        from inferd.backends.registry import Registry
        from inferd.server.compat.model_server_config import read_models_file
        from inferd.server.config.errors import ConfigError
        from inferd.server.config.load import load_config
        from inferd.server.config.preload import check_preload
    except ImportError as error:
        raise CommandError(missing(error)) from None
    given = {
        "repository.roots": args.model_repository,
        "server.listen": args.listen,
        "server.http": args.http,
        "server.state_dir": args.state_dir,
        "server.workers": args.workers,
    }
    foreign = FlagSettings()
    tfs.translate(args, foreign)
    triton.translate(args, foreign)
    flags = {key: value for key, value in given.items() if value is not None} | foreign.flags
    try:
        config = load_config(args.config, os.environ, args.set, flags=flags, defaults=foreign.defaults)
        more = [address for address in compatible(args.compat) if address not in config.server.http]
        if more:
            flags["server.http"] = [*config.server.http, *more]
            config = load_config(args.config, os.environ, args.set, flags=flags, defaults=foreign.defaults)
        check_preload(config, Registry().names() if config.server.preload else ())
        if config.repository.models_file is not None:
            foreign.notes += read_models_file(Path(config.repository.models_file)).notes
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    for note in foreign.notes:
        print(f"inferd: note: {note}", file=sys.stderr)
    return config


def compatible(systems: str | None) -> list[str]:
    """The HTTP addresses that the clients of these systems use by default. `systems`: names, separated by commas.
    Raises CommandError for an unknown system.

    The gRPC ports of both systems (8001, 8500) are among the defaults of `--listen`.
    """
    addresses: list[str] = []
    for system in (systems or "").split(","):
        if system.strip() and system.strip() not in COMPATIBLE:
            raise CommandError(f"--compat: expected {' or '.join(COMPATIBLE)}, got {system.strip()!r}", exit_code=2)
        addresses += COMPATIBLE.get(system.strip(), ())
    return addresses


def run(args: argparse.Namespace) -> int:
    """Serves until stopped, and ends the process: with 0 after a clean drain, 1 if requests were cut off or the server
    failed. Returns an exit code only if it never served, or if it supervises workers."""
    set_up_heap()  # before there is a second thread
    # Before everything else: the kernel drops a SIGTERM to a container's process 1 that has no handler, and the imports
    # below take seconds.
    stop = threading.Event()
    signals = ends_with_signals(stop)
    config = configuration(args)
    _claim_state_dir(config)
    with private_directory(config) as work:
        if config.server.workers > 1:
            from inferd.server.cli.serve_workers import serve_with_workers

            return serve_with_workers(config, signals, work)
        return _serve(config, stop, work)


def _serve(config: ServerConfig, stop: threading.Event, work: WorkDir) -> int:
    try:
        from inferd.server.app import App
        from inferd.server.config.errors import ConfigError
        from inferd.server.lifecycle.operations.overrides import OverridesError
        from inferd.server.observability import logs
    except ImportError as error:
        raise CommandError(missing(error)) from None
    from inferd.server import __version__

    try:
        log = logs.start(config.log)
    except OSError as error:
        raise CommandError(f"log.file: cannot open {config.log.file}: {error.strerror or error}") from None
    try:
        try:
            app = App(config)
            started = app.start() if config.server.open == "at_start" else app.start_late(stop)
        except ConfigError as error:
            raise CommandError(str(error), exit_code=2) from None
        except (OSError, OverridesError) as error:
            raise CommandError(str(error.strerror or error) if isinstance(error, OSError) else str(error)) from None

        if started is None:  # a signal came before the ports were open
            return _ended(app, log, work)
        note_addresses(work, config, started.grpc, started.http, started.metrics)

        def ready() -> None:
            grpc, http = ", ".join(started.grpc) or "off", ", ".join(started.http) or "off"
            metrics = f"; metrics {', '.join(started.metrics)}" if started.metrics else ""
            # A single write. With an unbuffered stdout, print() writes the line's end separately, and a line of the log
            # could come between.
            sys.stdout.write(f"inferd {__version__} ready: grpc {grpc}; http {http}{metrics}; {app.summary()}\n")
            sys.stdout.flush()

        app.wait(stop, ready)
        return _ended(app, log, work)
    finally:
        log.close()


def _ended(app: App, log: Logs, work: WorkDir) -> NoReturn:
    """Stops the server and ends the process, with 0 after a clean drain and else 1."""
    code = 0 if app.stop() else 1
    log.close()
    work.close()
    end_process(code)


def private_directory(config: ServerConfig) -> WorkDir:
    """This process's own directory, made the place of all temporary files. Raises CommandError."""
    from inferd.server.work_dir import WorkDir, WorkDirError

    try:
        work = WorkDir(Path(config.server.work_dir) if config.server.work_dir is not None else None)
    except WorkDirError as error:
        raise CommandError(str(error)) from None
    work.use(os.environ)
    return work


def _claim_state_dir(config: ServerConfig) -> None:
    """Claims server.state_dir for this process, until it ends. Raises CommandError."""
    from inferd.server.lifecycle.operations.overrides import OverridesError
    from inferd.server.lifecycle.operations.state_dir import claim

    if config.server.state_dir is not None:
        try:
            claim(Path(config.server.state_dir))
        except OverridesError as error:
            raise CommandError(str(error)) from None


def missing(error: ImportError) -> str:
    """Says which package to install. Raises the error again if the missing module is one of inferd's own."""
    if error.name and not error.name.startswith("inferd"):
        return (
            f"the server needs {error.name}, which is not installed: pip install 'inferd[server]' with the frameworks"
            " you serve, such as 'inferd[onnx]'"
        )
    raise error
