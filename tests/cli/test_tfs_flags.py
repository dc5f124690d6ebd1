"""The flags of tensorflow_model_server: the settings that they set, notes on the others, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd.server.cli.errors import CommandError
from inferd.server.cli.main import build_parser
from inferd.server.cli.serve import configuration
from inferd.server.compat.batching_parameters import parse_batching_parameters
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ServerConfig

CONFIG = 'model_config_list { config { name: "a" base_path: "/models/a" logging_config { } } }'


def settings(*flags: str) -> ServerConfig:
    return configuration(build_parser().parse_args(["serve", *flags]))


def refusal(*flags: str) -> str:
    with pytest.raises(CommandError) as refused:
        settings(*flags)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_without_these_flags_the_defaults_hold() -> None:
    assert settings() == ServerConfig()


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--model_base_path=/m/a", "--model_name=a"], "repository.models", {"a": "/m/a"}),
        (["--model_base_path", "file:///m/a"], "repository.models", {"default": "/m/a"}),
        (["--model_base_path=/m/a"], "repository.roots", ()),
        (["--model_base_path=/m/a", "--model-repository=r"], "repository.roots", ("r",)),
        (["--model_base_path=/m/a", "--set", "repository.roots=[r]"], "repository.roots", ("r",)),
        (
            ["--model_base_path=/m", "--saved_model_tags=serve,gpu"],
            "models",
            {"default": {"options": {"tags": ["serve", "gpu"]}}},
        ),
        (["--port=8500"], "server.listen", ("0.0.0.0:8500",)),
        (["--port=8500", "--listen=h:1"], "server.listen", ("h:1", "0.0.0.0:8500")),
        (["--port=9", "--grpc_socket_path=/s"], "server.listen", ("0.0.0.0:9", "unix:/s")),
        (["--grpc_socket_path=/s"], "server.listen", ("0.0.0.0:8500", "unix:/s")),
        (["--rest_api_port=8501"], "server.http", ("0.0.0.0:8501",)),
        (["--rest_api_port=0"], "server.http", ()),
        (["--rest_api_timeout_in_ms=1500"], "http.timeout", 1.5),
        (["--file_system_poll_wait_seconds=7"], "repository.poll", 7.0),
        (["--file_system_poll_wait_seconds=0"], "repository.mode", "explicit"),
        (["--file_system_poll_wait_seconds=0"], "repository.load", ("*",)),
        (["--num_load_threads=4"], "load.threads", 4),
        (["--tensorflow_session_parallelism=3"], "instances.threads", 3),
        (["--tensorflow_intra_op_parallelism=2"], "instances.threads", 2),
        (["--enable_batching"], "batching.mode", "trusted"),
        (["--enable_batching=true"], "batching.mode", "trusted"),
        (["--enable_batching=false"], "batching.mode", "off"),
        ([], "batching.mode", "auto"),
        (["--enable_batching"], "batching.max_batch_size", 1000),
        (["--enable_batching", "--set=batching.max_batch_size=8"], "batching.max_batch_size", 8),
    ],
)
def test_each_flag_sets_its_setting(flags: list[str], key: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found: Any = settings(*flags)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert capsys.readouterr().err == ""


def test_a_models_file_is_parsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.config"
    file.write_text(CONFIG)
    found = settings(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=5", "--model_name=x"
    ).repository
    assert (found.models_file, found.models_file_poll, found.roots) == (str(file), 5.0, ())
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        "inferd: note: --model_name is ignored: --model_config_file names the models",
        "inferd: note: model a: logging_config is not honoured",
    ]
    file.write_text("model_config_list { config { } }")
    assert str(file) in refusal(f"--model_config_file={file}")


def test_flags_that_are_not_honoured_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    settings("--grpc_max_threads=4", "--flush_filesystem_caches", "--enable_model_warmup=false")
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 3
    assert all(note.startswith("inferd: note: --") and "is not honoured: " in note for note in notes)
    settings("--enable_model_warmup=true")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--ssl_config_file=f"], "--ssl_config_file is not supported: set server.tls"),
        (["--use_alts_credentials=true"], "ALTS is not offered"),
        (["--model_base_path=s3://bucket/m"], "expected a directory on this machine"),
        (["--model_name=a"], "expected --model_base_path"),
        (["--model_config_file_poll_wait_seconds=5"], "expected --model_config_file"),
        (["--batching_parameters_file=f"], "expected --enable_batching"),
        (["--enable_batching", "--batching_parameters_file=/nowhere"], "/nowhere: expected a readable file"),
        (["--model_config_file=/nowhere"], "/nowhere: expected a readable file"),
        (["--port=99999"], "99999"),
    ],
)
def test_flags_that_are_refused(flags: list[str], text: str) -> None:
    assert text in refusal(*flags)


@pytest.mark.parametrize("flags", [["--enable_batching=maybe"], ["--port=-1"], ["--rest_api_port=x"]])
def test_values_of_the_wrong_type_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings(*flags)
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err


# Batching parameters

BATCHING = """
max_batch_size { value: 128 }
batch_timeout_micros { value: 500 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 64
allowed_batch_sizes: 128
mystery { value: 1 }
"""


def test_batching_parameters_are_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "batching.txt"
    file.write_text(BATCHING)
    found = settings("--enable_batching=true", f"--batching_parameters_file={file}")
    assert (found.batching.max_batch_size, found.batching.max_queue_delay) == (128, 0.0005)
    assert (found.queue.requests, found.instances.count) == (12800, 2)
    assert capsys.readouterr().err.splitlines() == [
        f"inferd: note: {file}: allowed_batch_sizes is not honoured: a batch runs with the rows that it has",
        f"inferd: note: {file}: mystery is not honoured: unknown",
    ]


def test_the_smaller_of_two_batch_sizes_counts() -> None:
    text = "max_batch_size { value: 64 } max_execution_batch_size { value: 16 } enable_large_batch_splitting {}"
    assert parse_batching_parameters(text, "f").settings == {"batching.max_batch_size": 16}
    assert parse_batching_parameters("batch_timeout_micros {}", "f").settings == {"batching.max_queue_delay": "0us"}
    assert parse_batching_parameters("", "f").settings == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size: expected { value: N }"),
        ("max_batch_size {}", "at least 1, got 0"),
        ("num_batch_threads { value: 'x' }", "num_batch_threads: expected"),
        ("max_batch_size { value: 1", "line 1"),
    ],
)
def test_wrong_batching_parameters_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_batching_parameters(text, "f")
    assert expected in str(refused.value)
