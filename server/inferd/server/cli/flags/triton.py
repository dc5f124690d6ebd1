"""The flags of tritonserver on `inferd serve` and `inferd check`, translated to inferd's settings.

A flag that is known but not honoured is accepted with a note. A flag whose absence would change answers, or make the
server less safe than its command line looks, is an error that names what to do instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from inferd.server.cli.errors import usage
from inferd.server.cli.flags.settings import FlagSettings, boolean, whole_number

_TITLE: Final = "Triton's flags"
_ABOUT: Final = "as tritonserver takes them; others of its flags are accepted with a note"

_BY_ITSELF: Final = "the server sees to that by itself"
_WORKERS: Final = "see server.workers in config.yaml: several processes on the same ports"
_NO_TRACES: Final = "see the access log and /metrics"
_NO_CACHE: Final = "there is no response cache: every request is run"
# Flags without effect here, and why.
_NOT_HONOURED: Final[Mapping[str, str]] = {
    "id": "the server is named by its host",
    "log-error": "errors are always logged",
    "log-format": "see log.format in config.yaml: text or json",
    "disable-auto-complete-config": "what config.pbtxt leaves out is read from the model",
    "strict-model-config": "what config.pbtxt leaves out is read from the model",
    "model-load-retry-count": "a failed load is tried again for ever, see load.retry_max",
    "enable-peer-access": _BY_ITSELF,
    "http-thread-count": _BY_ITSELF,
    "http-header-forward-pattern": "headers do not become parameters of requests",
    "reuse-http-port": _WORKERS,
    "grpc-header-forward-pattern": "metadata does not become parameters of requests",
    "reuse-grpc-port": _WORKERS,
    "grpc-infer-thread-count": _BY_ITSELF,
    "grpc-infer-allocation-pool-size": _BY_ITSELF,
    "grpc-max-response-pool-size": "see inflight.bytes in config.yaml",
    "grpc-infer-response-compression-level": "answers are not compressed",
    "grpc-keepalive-permit-without-calls": "connections are pinged with and without calls",
    "grpc-http2-max-pings-without-data": _BY_ITSELF,
    "grpc-http2-min-recv-ping-interval-without-data": _BY_ITSELF,
    "grpc-http2-max-ping-strikes": _BY_ITSELF,
    "grpc-max-connection-age-grace": "calls on an ageing connection are finished",
    "allow-gpu-metrics": "metrics of GPUs come from NVIDIA's DCGM exporter",
    "allow-cpu-metrics": "metrics of the machine come from Prometheus' node exporter",
    "metrics-interval-ms": "metrics are up to date when they are read",
    "metrics-config": "histograms are always there",
    "trace-config": _NO_TRACES,
    "trace-file": _NO_TRACES,
    "trace-level": _NO_TRACES,
    "trace-rate": _NO_TRACES,
    "trace-count": _NO_TRACES,
    "trace-log-frequency": _NO_TRACES,
    "cache-config": _NO_CACHE,
    "cache-directory": _NO_CACHE,
    "response-cache-byte-size": _NO_CACHE,
    "pinned-memory-pool-byte-size": "pinned memory grows with need",
    "cuda-memory-pool-byte-size": "GPU memory grows with need",
    "cuda-virtual-address-size": "GPU memory grows with need",
    "min-supported-compute-capability": "the frameworks decide which devices they use; see instances.device",
    "buffer-manager-thread-count": _BY_ITSELF,
    "host-policy": "start the server with numactl or taskset",
    "model-load-gpu-limit": "see memory.models in config.yaml, which bounds host memory",
    "backend-directory": "a backend is a Python package with an entry point in the group inferd.backends",
    "repoagent-directory": "there are no repository agents",
    "sagemaker-port": "there is no SageMaker endpoint",
    "sagemaker-safe-port-range": "there is no SageMaker endpoint",
    "sagemaker-thread-count": "there is no SageMaker endpoint",
    "vertex-ai-port": "there is no Vertex AI endpoint",
    "vertex-ai-thread-count": "there is no Vertex AI endpoint",
    "vertex-ai-default-model": "there is no Vertex AI endpoint",
}
_CREDENTIALS: Final = "set auth in config.yaml: tokens with scopes for patterns of models"
# Flags that are errors unless they have one of these harmless values: a user must not believe that they are in force.
_REFUSED: Final[Mapping[str, str]] = {
    "grpc-restricted-protocol": _CREDENTIALS,
    "http-restricted-api": _CREDENTIALS,
    "model-namespacing": "a model's name is unique over all repositories",
    "model-config-name": "a model has one config.pbtxt; models.<name> in config.yaml overrides it for this server",
    "rate-limit": "there is no rate limiter; instances.count and server.cpu_threads bound what runs at a time",
    "rate-limit-resource": "there is no rate limiter; instances.count and server.cpu_threads bound what runs at a time",
    "allow-sagemaker": "there is no SageMaker endpoint",
    "allow-vertex-ai": "there is no Vertex AI endpoint",
}
_OFF: Final = (None, "", "false", "0", "off")
_MODES: Final = ("none", "poll", "explicit")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Registers the flags."""
    group = parser.add_argument_group(_TITLE, _ABOUT)

    def add(name: str, metavar: str, text: str, kind: Callable[[str], Any] = str, **more: Any) -> None:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text, **more)

    add("model-control-mode", "MODE", "none: loads once; poll: follows the disk (default); explicit", choices=_MODES)
    add("repository-poll-secs", "N", "looks for changes every N seconds, with poll", whole_number)
    add("load-model", "NAME", "a model to load, with explicit; * is all; may be repeated", action="append")
    add("strict-readiness", "BOOL", "ready only when every model is served", boolean)
    add("exit-on-error", "BOOL", "only false: a model that fails never ends the server", boolean)
    add("exit-timeout-secs", "N", "longest time for running requests when the server stops", whole_number)
    add("model-load-thread-count", "N", "versions that load at the same time", whole_number)
    add("http-port", "PORT", "HTTP port", whole_number)
    add("http-address", "HOST", "address of the HTTP port")
    add("allow-http", "BOOL", "false: no HTTP", boolean)
    add("http-max-input-size", "BYTES", "largest body of a request", whole_number)
    add("grpc-port", "PORT", "gRPC port", whole_number)
    add("grpc-address", "HOST", "address of the gRPC port")
    add("allow-grpc", "BOOL", "only true: gRPC is always there", boolean)
    add("grpc-use-ssl", "BOOL", "TLS on the gRPC port", boolean)
    add("grpc-use-ssl-mutual", "BOOL", "the same, and clients need a certificate", boolean)
    add("grpc-server-cert", "PEM", "the server's certificate")
    add("grpc-server-key", "PEM", "and its key")
    add("grpc-root-cert", "PEM", "authorities of clients' certificates, with --grpc-use-ssl-mutual")
    add("grpc-keepalive-time", "MS", "a silent connection is pinged after this time", whole_number)
    add("grpc-keepalive-timeout", "MS", "and closed when it does not answer for this time", whole_number)
    add("grpc-max-connection-age", "MS", "age at which a connection is asked to end", whole_number)
    add("metrics-port", "PORT", "a port for /metrics alone; it is on the HTTP port, too", whole_number)
    add("metrics-address", "HOST", "address of the port for metrics")
    add("allow-metrics", "BOOL", "false: no port for metrics alone", boolean)
    add("log-verbose", "N", "1 or more: debug messages are logged", whole_number)
    add("log-info", "BOOL", "false: only warnings and errors are logged", boolean)
    add("log-warning", "BOOL", "false: only errors are logged", boolean)
    add("log-file", "FILE", "file for the log")
    add("allow-client-shm", "BOOL", "clients may register any POSIX shared memory", boolean)
    text = "default-max-batch-size=N: rows of a batch where a model does not say; may be repeated"
    add("backend-config", "[NAME,]KEY=VALUE", text, action="append")
    for name in (*_NOT_HONOURED, *_REFUSED):
        group.add_argument(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)


def translate(args: argparse.Namespace, found: FlagSettings) -> None:
    """Translates the flags into `found`, which holds what other flags have set. Raises CommandError."""
    for name, instead in _REFUSED.items():
        if _value(args, name) not in _OFF:
            raise usage(f"--{name} is not supported: {instead}")
    _models(args, found)
    _ports(args, found)
    _tls(args, found)
    _limits(args, found)
    _log(args, found)
    for setting in args.backend_config or ():
        _backend(setting, found)
    for name, reason in _NOT_HONOURED.items():
        if _value(args, name) is not None:
            found.notes.append(f"--{name} is not honoured: {reason}")


def _value(args: argparse.Namespace, name: str) -> Any:
    return getattr(args, name.replace("-", "_"))


def _models(args: argparse.Namespace, found: FlagSettings) -> None:
    mode, poll, named = args.model_control_mode, args.repository_poll_secs, args.load_model
    if named and mode != "explicit":
        raise usage("--load-model: expected --model-control-mode=explicit with it")
    if named and "*" in named and len(named) > 1:
        raise usage("--load-model: * is all models; expected no other name with it")
    if mode in ("none", "explicit"):
        found.flags["repository.mode"] = "explicit"
        found.flags["repository.load"] = named or ([] if mode == "explicit" else ["*"])
        if poll is not None:
            found.notes.append("--repository-poll-secs is ignored: expected --model-control-mode=poll with it")
    elif poll == 0:
        raise usage("--repository-poll-secs: expected at least 1; --model-control-mode=none looks only once")
    else:
        if mode == "poll":
            found.flags["repository.mode"] = "watch"
        if poll:
            found.flags["repository.poll"] = f"{poll}s"
    if mode == "none":
        found.defaults["admin.allow"] = "none"  # nobody may load or unload, unless the configuration says so
    if args.strict_readiness is not None:
        found.flags["server.readiness"] = "strict" if args.strict_readiness else "settled"
    if args.exit_on_error:
        found.notes.append(
            "--exit-on-error is not honoured: a model that cannot be loaded never ends the server; with "
            "--strict-readiness=true the server is not ready while one is missing"
        )
    if args.model_load_thread_count:
        found.flags["load.threads"] = args.model_load_thread_count


def _ports(args: argparse.Namespace, found: FlagSettings) -> None:
    if args.allow_grpc is False:
        raise usage("--allow-grpc=false is not supported: gRPC is always there; listen on 127.0.0.1 to keep it local")
    _listen(found, "server.listen", args.listen, (args.grpc_address, args.grpc_port), 8001)
    _listen(found, "server.http", args.http, (args.http_address, args.http_port), 8000)
    if args.allow_http is False:
        found.flags["server.http"] = []
    if args.allow_metrics is not False:
        given = args.metrics_port is not None or args.metrics_address is not None
        place = (args.metrics_address or args.http_address, args.metrics_port) if given else (None, None)
        _listen(found, "server.metrics", None, place, 8002)
    elif args.allow_http is not False:
        found.notes.append("--allow-metrics=false closes the port for metrics; /metrics stays on the HTTP port")


def _listen(
    found: FlagSettings, key: str, given: list[str] | None, place: tuple[str | None, int | None], default: int
) -> None:
    """Adds an address to the setting `key`, besides those of other flags. `place`: host and port."""
    host, port = place
    if host is None and port is None:
        return
    host = host or "0.0.0.0"
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"{shown}:{default if port is None else port}"
    found.flags[key] = [*found.flags.get(key, given or ()), address]


def _tls(args: argparse.Namespace, found: FlagSettings) -> None:
    files = {"grpc-server-cert": args.grpc_server_cert, "grpc-server-key": args.grpc_server_key}
    if not (args.grpc_use_ssl or args.grpc_use_ssl_mutual):
        for name, file in {**files, "grpc-root-cert": args.grpc_root_cert}.items():
            if file:
                raise usage(f"--{name}: expected --grpc-use-ssl=true with it; without, the port is in plain text")
        return
    for name, file in files.items():
        if not file:
            raise usage(f"--grpc-use-ssl: expected --{name}=FILE with it")
    tls = {"certificate": args.grpc_server_cert, "key": args.grpc_server_key}
    if args.grpc_use_ssl_mutual:
        if not args.grpc_root_cert:
            raise usage("--grpc-use-ssl-mutual: expected --grpc-root-cert=FILE with it")
        tls["client_ca"] = args.grpc_root_cert
    elif args.grpc_root_cert:
        found.notes.append("--grpc-root-cert is ignored: clients need no certificate without --grpc-use-ssl-mutual")
    found.flags["server.tls"] = tls


def _limits(args: argparse.Namespace, found: FlagSettings) -> None:
    times = {
        "drain.grace": (args.exit_timeout_secs, "s"),
        "grpc.keepalive_time": (args.grpc_keepalive_time, "ms"),
        "grpc.keepalive_timeout": (args.grpc_keepalive_timeout, "ms"),
        "grpc.max_connection_age": (args.grpc_max_connection_age, "ms"),
    }
    for key, (number, unit) in times.items():
        if number is not None:
            found.flags[key] = f"{number}{unit}"
    if args.http_max_input_size is not None:
        found.flags["http.max_body"] = f"{args.http_max_input_size}B"
    if args.allow_client_shm is not None:
        found.flags["server.shared_memory"] = "/" if args.allow_client_shm else None


def _log(args: argparse.Namespace, found: FlagSettings) -> None:
    if args.log_verbose:
        found.flags["log.level"] = "debug"
    elif args.log_warning is False:
        found.flags["log.level"] = "error"
    elif args.log_info is False:
        found.flags["log.level"] = "warning"
    if args.log_file:
        found.flags["log.file"] = args.log_file


def _backend(setting: str, found: FlagSettings) -> None:
    key, sign, value = setting.rpartition(",")[2].partition("=")
    if key != "default-max-batch-size":
        found.notes.append(f"--backend-config={setting} is not honoured: see a model's options")
        return
    if not (sign and value.isascii() and value.isdigit() and len(value) < 10):
        raise usage(f"--backend-config={setting}: expected default-max-batch-size=N with a whole number")
    if int(value):
        found.defaults["batching.max_batch_size"] = int(value)
    else:
        found.defaults["batching.mode"] = "off"
