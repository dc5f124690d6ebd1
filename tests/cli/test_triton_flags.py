"""The flags of tritonserver: the settings that they set, notes on the others, and refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inferd.server.cli.errors import CommandError
from inferd.server.cli.flags import triton
from inferd.server.cli.main import build_parser
from inferd.server.cli.serve import configuration
from inferd.server.config.schema import ServerConfig

GUIDE = (Path(__file__).parents[2] / "docs" / "migration-triton.md").read_text()
TLS = ("--grpc-use-ssl=true", "--grpc-server-cert=c.pem", "--grpc-server-key=k.pem")
MUTUAL = ("--grpc-use-ssl-mutual=1", "--grpc-server-cert=c.pem", "--grpc-server-key=k.pem", "--grpc-root-cert=ca.pem")


def settings(*flags: str) -> ServerConfig:
    return configuration(build_parser("serve").parse_args(["serve", *flags]))


def setting(key: str, *flags: str) -> Any:
    found: Any = settings(*flags)
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--http-port=9000"], "server.http", ("0.0.0.0:9000",)),
        (["--http-port=9000", "--http-address=127.0.0.1"], "server.http", ("127.0.0.1:9000",)),
        (["--http-address=::1"], "server.http", ("[::1]:8000",)),
        (["--http-port=9000", "--http=h:1"], "server.http", ("h:1", "0.0.0.0:9000")),
        (["--http-port=9000", "--rest_api_port=8501"], "server.http", ("0.0.0.0:8501", "0.0.0.0:9000")),
        (["--allow-http=false"], "server.http", ()),
        (["--http-max-input-size=1024"], "http.max_body", 1024),
        (["--grpc-port=9001"], "server.listen", ("0.0.0.0:9001",)),
        (["--grpc-address", "127.0.0.1"], "server.listen", ("127.0.0.1:8001",)),
        (["--grpc-port=9001", "--port=8500"], "server.listen", ("0.0.0.0:8500", "0.0.0.0:9001")),
        (["--allow-grpc=true"], "server.listen", ("0.0.0.0:8001", "0.0.0.0:8500")),
        (["--metrics-port=9002"], "server.metrics", ("0.0.0.0:9002",)),
        (["--metrics-port=9002", "--http-address=127.0.0.1"], "server.metrics", ("127.0.0.1:9002",)),
        (["--metrics-address=127.0.0.1"], "server.metrics", ("127.0.0.1:8002",)),
        (["--metrics-port=9002", "--allow-metrics=0", "--allow-http=0"], "server.metrics", ()),
        (["--http-address=127.0.0.1"], "server.metrics", ()),
        (["--model-control-mode=none"], "repository.mode", "explicit"),
        (["--model-control-mode=none"], "repository.load", ("*",)),
        (["--model-control-mode=none"], "admin.allow", "none"),
        (["--model-control-mode=none", "--set=admin.allow=anyone"], "admin.allow", "anyone"),
        (["--model-control-mode=poll"], "repository.mode", "watch"),
        (["--model-control-mode=poll", "--repository-poll-secs=7"], "repository.poll", 7.0),
        (["--model-control-mode=explicit"], "repository.load", ()),
        (["--model-control-mode=explicit", "--load-model=a", "--load-model=b"], "repository.load", ("a", "b")),
        (["--model-control-mode=explicit", "--load-model=*"], "repository.load", ("*",)),
        (["--model-control-mode=explicit", "--load-model=a"], "admin.allow", "local_peer"),
        (["--strict-readiness=true"], "server.readiness", "strict"),
        (["--strict-readiness", "false", "--exit-on-error=false"], "server.readiness", "settled"),
        (["--exit-timeout-secs=5"], "drain.grace", 5.0),
        (["--model-load-thread-count=3"], "load.threads", 3),
        (["--grpc-keepalive-time=7200000"], "grpc.keepalive_time", 7200.0),
        (["--grpc-keepalive-timeout=20000"], "grpc.keepalive_timeout", 20.0),
        (["--grpc-max-connection-age=60000"], "grpc.max_connection_age", 60.0),
        ([*TLS], "server.tls.certificate", "c.pem"),
        ([*TLS], "server.tls.client_ca", None),
        ([*MUTUAL], "server.tls.client_ca", "ca.pem"),
        (["--log-verbose=1"], "log.level", "debug"),
        (["--log-verbose=0", "--log-info=false"], "log.level", "warning"),
        (["--log-info=false", "--log-warning=false"], "log.level", "error"),
        (["--log-file=x.log"], "log.file", "x.log"),
        (["--allow-client-shm=true"], "server.shared_memory", "/"),
        (["--allow-client-shm=false", "--set=server.shared_memory=/x"], "server.shared_memory", None),
        (["--backend-config=default-max-batch-size=4"], "batching.max_batch_size", 4),
        (["--backend-config", "onnxruntime,default-max-batch-size=0"], "batching.mode", "off"),
        (["--model-store=m", "--model-repository=n"], "repository.roots", ("m", "n")),
        (["--rate-limit=off", "--allow-sagemaker=false", "--model-namespacing=false"], "repository.mode", "watch"),
    ],
)
def test_each_flag_sets_its_setting(flags: list[str], key: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting(key, *flags) == value
    assert capsys.readouterr().err == ""


def test_flags_that_are_not_honoured_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    settings("--exit-on-error=true", "--cache-config=local,size=1", "--backend-config=tensorflow,version=2", "--id=a")
    settings(
        "--allow-metrics=false", "--model-control-mode=none", "--repository-poll-secs=5", "--grpc-root-cert=", *TLS
    )
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 6
    assert all(note.startswith("inferd: note: --") for note in notes)
    assert "inferd: note: --cache-config is not honoured: there is no response cache: every request is run" in notes


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--load-model=a"], "--load-model: expected --model-control-mode=explicit with it"),
        (["--model-control-mode=explicit", "--load-model=*", "--load-model=a"], "expected no other name with it"),
        (["--repository-poll-secs=0"], "--repository-poll-secs: expected at least 1"),
        (["--allow-grpc=false"], "gRPC is always there"),
        (["--grpc-server-cert=c.pem"], "--grpc-server-cert: expected --grpc-use-ssl=true with it"),
        (["--grpc-use-ssl=true"], "expected --grpc-server-cert=FILE with it"),
        ([*TLS, "--grpc-use-ssl-mutual=true"], "expected --grpc-root-cert=FILE with it"),
        (["--rate-limit=execution_count"], "--rate-limit is not supported: there is no rate limiter"),
        (["--rate-limit-resource=R1:4"], "there is no rate limiter"),
        (["--http-restricted-api=inference,key=value"], "set auth in config.yaml"),
        (["--grpc-restricted-protocol=inference:k=v"], "set auth in config.yaml"),
        (["--model-namespacing=true"], "unique"),
        (["--model-config-name=a"], "one config.pbtxt"),
        (["--allow-sagemaker=true"], "no SageMaker endpoint"),
        (["--allow-vertex-ai=true"], "no Vertex AI endpoint"),
        (["--backend-config=default-max-batch-size=x"], "expected default-max-batch-size=N"),
        (["--http-port=99999"], "99999"),
        (["--grpc-keepalive-time=0"], "keepalive_time"),
    ],
)
def test_flags_that_are_refused(flags: list[str], text: str) -> None:
    with pytest.raises(CommandError) as refused:
        settings(*flags)
    assert refused.value.exit_code == 2
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--model-control-mode=pol",
            "argument --model-control-mode: invalid choice 'pol'; did you mean poll? expected",
        ),
        ("--strict-readyness=true", "unknown option --strict-readyness; did you mean --strict-readiness?"),
        ("--exit_timeout_secs=3", "unknown option --exit_timeout_secs; did you mean --exit-timeout-secs?"),
        ("--http-port=x", "argument --http-port: expected a whole number of at least 0, got 'x'"),
        ("--strict-readiness=maybe", "argument --strict-readiness: expected true or false, got 'maybe'"),
    ],
)
def test_wrong_usage_is_one_line_with_the_nearest_word(cli, flag: str, line: str) -> None:
    done = cli("serve", flag)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"inferd: serve: {line}")
    assert done.err.count("\n") == 1


def test_the_guide_names_every_flag_that_is_honoured_or_refused() -> None:
    named = set(re.findall(r"`--([a-z][a-z-]+)", GUIDE))
    parser = build_parser("serve").parse_args(["serve"]).command
    (group,) = (group for group in parser._action_groups if group.title == "Triton's flags")
    honoured = {action.option_strings[0][2:] for action in group._group_actions if action.help != "==SUPPRESS=="}
    assert honoured
    assert honoured | triton._REFUSED.keys() <= named
    assert named <= {option[2:] for option in parser._option_string_actions} | {"json"}
