"""The flags of tensorflow_model_server on `inferd serve` and `inferd check`, translated to inferd's settings.

A flag that is known but not honoured is accepted with a note. A flag that the user relies on for security is an error.
argparse refuses unknown flags.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from inferd.server.cli.errors import usage
from inferd.server.cli.flags.settings import FlagSettings, boolean, whole_number

_TITLE: Final = "TensorFlow Serving's flags"
_ABOUT: Final = "as tensorflow_model_server takes them; others of its flags are accepted with a note"

_BY_ITSELF: Final = "the server sees to that by itself"
# Flags without effect here, and why.
_NOT_HONOURED: Final[Mapping[str, str]] = {
    "rest_api_num_threads": _BY_ITSELF,
    "rest_api_enable_cors_support": "a proxy adds such headers",
    "grpc_max_threads": f"{_BY_ITSELF}; inflight.calls bounds calls",
    "grpc_channel_arguments": "see grpc.* in docs/reference/settings.md",
    "num_unload_threads": _BY_ITSELF,
    "max_num_load_retries": "a failed load is tried again for ever, see load.retry_max",
    "load_retry_interval_micros": "see load.retry_min and load.retry_max",
    "flush_filesystem_caches": "files are read into memory",
    "tensorflow_inter_op_parallelism": "see instances.threads",
    "tensorflow_session_config_file": "see instances and a model's options",
    "platform_config_file": "see docs/reference/settings.md",
    "per_process_gpu_memory_fraction": "GPU memory grows with need",
    "num_request_iterations_for_warmup": "see a model's warmup.runs",
    "monitoring_config_file": "metrics are at /metrics on the HTTP port",
    "remove_unused_fields_from_bundle_metagraph": _BY_ITSELF,
    "prefer_tflite_model": "the SavedModel is served",
    "use_tflite_model": "the SavedModel is served",
    "num_tflite_pools": "see instances of a model",
    "num_tflite_interpreters": "see instances of a model",
    "num_tflite_interpreters_per_pool": "see instances of a model",
    "enable_signature_method_name_check": "method names are not checked",
    "xla_cpu_compilation_enabled": "graphs run as they are",
    "mixed_precision": "graphs run as they are",
    "enable_profiler": "there is no profiler service",
    "thread_pool_factory_config_file": _BY_ITSELF,
    "enable_per_model_batching_parameters": "see batching in a model's model.yaml",
    "enable_serialization_as_tensor_content": "answers are in typed fields",
    "skip_initialize_tpu": "there is no TPU",
    "total_model_memory_limit_bytes": "memory is watched while models load",
    "allow_version_labels_for_unavailable_models": "labels of a file always wait for their version",
}
# Flags that are errors: a user must not believe that they are in force.
_REFUSED: Final[Mapping[str, str]] = {
    "ssl_config_file": "set server.tls in config.yaml: certificate, key and client_ca are files there",
    "use_alts_credentials": "ALTS is not offered; server.tls is",
}
_ALWAYS_ON: Final = ("enable_model_warmup", "enable_grpc_healthcheck_service")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Registers the flags."""
    group = parser.add_argument_group(_TITLE, _ABOUT)

    def add(name: str, metavar: str, text: str, kind: Callable[[str], Any] = str) -> None:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)

    add("model_base_path", "DIR", "serves the versions in this directory")
    add("model_name", "NAME", 'as the model of this name ("default")')
    add("model_config_file", "FILE", "serves the models of a ModelServerConfig, with their policies and labels")
    add("model_config_file_poll_wait_seconds", "N", "reads that file again every N seconds", whole_number)
    add("port", "PORT", "gRPC port", whole_number)
    add("grpc_socket_path", "PATH", "gRPC over a unix socket, too")
    add("rest_api_port", "PORT", "HTTP port; 0: none", whole_number)
    add("rest_api_timeout_in_ms", "N", "longest time for a request over REST", whole_number)
    add("file_system_poll_wait_seconds", "N", "looks for versions every N seconds; 0: once", whole_number)
    add("num_load_threads", "N", "versions that load at the same time", whole_number)
    add("tensorflow_session_parallelism", "N", "CPU threads of a model", whole_number)
    add("tensorflow_intra_op_parallelism", "N", "CPU threads of a model", whole_number)
    add("batching_parameters_file", "FILE", "settings of batches; needs --enable_batching")
    add("saved_model_tags", "TAGS", "tags of the graph to serve, with --model_base_path")
    flag = "declares that rows are independent, and puts requests into batches; false: never"
    group.add_argument("--enable_batching", nargs="?", const=True, type=boolean, metavar="BOOL", help=flag)
    for name in (*_NOT_HONOURED, *_REFUSED, *_ALWAYS_ON):
        group.add_argument(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)


def translate(args: argparse.Namespace, found: FlagSettings) -> None:
    """Translates the flags into `found`. Raises CommandError."""
    _models(args, found)
    _ports(args, found)
    _poll_and_threads(args, found)
    _batching(args, found)
    for name, instead in _REFUSED.items():
        if getattr(args, name) not in (None, "", "false"):
            raise usage(f"--{name} is not supported: {instead}")
    for name, reason in _NOT_HONOURED.items():
        if getattr(args, name) is not None:
            found.notes.append(f"--{name} is not honoured: {reason}")
    for name in _ALWAYS_ON:
        if getattr(args, name) in ("false", "0"):
            found.notes.append(f"--{name}=false is not honoured: it is always on")


def _models(args: argparse.Namespace, found: FlagSettings) -> None:
    tags = [tag for tag in (args.saved_model_tags or "").split(",") if tag]
    if args.model_config_file:
        found.flags["repository.models_file"] = args.model_config_file
        if args.model_config_file_poll_wait_seconds:
            found.flags["repository.models_file_poll"] = f"{args.model_config_file_poll_wait_seconds}s"
        found.notes += [
            f"--{name} is ignored: --model_config_file names the models"
            for name in ("model_base_path", "model_name", "saved_model_tags")
            if getattr(args, name)
        ]
    elif args.model_base_path:
        name, path = args.model_name or "default", args.model_base_path.removeprefix("file://")
        if "://" in path:
            raise usage(f"--model_base_path: expected a directory on this machine (or mounted here), got {path!r:.200}")
        found.flags["repository.models"] = {name: path}
        if tags:
            found.flags["models"] = {name: {"options": {"tags": tags}}}
    elif args.model_name and (args.model_repository or args.config):
        found.flags["repository.model_name"] = args.model_name
    elif args.model_name:
        raise usage("--model_name: expected --model_base_path (or --model-repository) with it")
    elif args.model_config_file_poll_wait_seconds:
        raise usage("--model_config_file_poll_wait_seconds: expected --model_config_file with it")
    if args.model_config_file or args.model_base_path:
        found.defaults["repository.roots"] = []


def _ports(args: argparse.Namespace, found: FlagSettings) -> None:
    listen = list(args.listen or ())
    if args.port:
        listen.append(f"0.0.0.0:{args.port}")
    if args.grpc_socket_path:
        if not listen:
            listen.append("0.0.0.0:8500")
        listen.append(f"unix:{args.grpc_socket_path}")
    if listen:
        found.flags["server.listen"] = listen
    http = list(args.http or ())
    if args.rest_api_port:
        http.append(f"0.0.0.0:{args.rest_api_port}")
    if http or args.rest_api_port == 0:
        found.flags["server.http"] = http
    if args.rest_api_timeout_in_ms:
        found.flags["http.timeout"] = f"{args.rest_api_timeout_in_ms}ms"


def _poll_and_threads(args: argparse.Namespace, found: FlagSettings) -> None:
    poll = args.file_system_poll_wait_seconds
    if poll:
        found.flags["repository.poll"] = f"{poll}s"
    elif poll == 0:
        found.flags["repository.mode"] = "explicit"
        found.flags["repository.load"] = ["*"]
    if args.num_load_threads:
        found.flags["load.threads"] = args.num_load_threads
    threads = args.tensorflow_intra_op_parallelism or args.tensorflow_session_parallelism
    if threads:
        found.flags["instances.threads"] = threads


def _batching(args: argparse.Namespace, found: FlagSettings) -> None:
    if args.enable_batching:
        # TensorFlow Serving's flag says that rows are independent, and its batches hold 1,000 rows by default.
        found.flags["batching.mode"] = "trusted"
        found.defaults["batching.max_batch_size"] = 1000
    if args.batching_parameters_file:
        from inferd.server.compat.batching_parameters import read_batching_parameters
        from inferd.server.config.errors import ConfigError

        if not args.enable_batching:
            raise usage("--batching_parameters_file: expected --enable_batching with it")
        try:
            parameters = read_batching_parameters(Path(args.batching_parameters_file))
        except ConfigError as error:
            raise usage(str(error)) from None
        found.flags.update(parameters.settings)
        found.notes += parameters.notes
    elif args.enable_batching is False:
        found.flags["batching.mode"] = "off"
