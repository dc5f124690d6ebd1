"""Runs every command of the migration guides, in a directory like the one that they describe."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.ensembles import CHAIN, write_ensemble
from support.marked import prepare_model, publish

ROOT = Path(__file__).parents[2]
CONFIG = """
platform: "{platform}"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
"""
ODD = "dynamic_batching { } instance_group { rate_limiter { } count: 1 kind: KIND_CPU } response_cache { enable: true }"
MODELS = 'model_config_list { config { name: "half_plus_two" base_path: "%s" model_platform: "tensorflow" } }'
BATCHING = "max_batch_size { value: 16 } batch_timeout_micros { value: 1000 }"


def commands(guide: str) -> list[str]:
    text = (ROOT / "docs" / guide).read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def output_of(guide: str, command: str) -> list[str]:
    """The output that the guide shows below a command."""
    shown = (ROOT / "docs" / guide).read_text().partition(f"$ {command}\n")[2].partition("```")[0]
    return [" ".join(line.split()) for line in shown.splitlines()]


def run(cli, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command. For `serve`, runs `check` with the same flags."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)
    assert arguments[0] == "inferd"
    assert arguments[1] in ("serve", "check")
    return cli("check", *arguments[2:])


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("triton") / "models"
    for number, (name, backend, platform) in enumerate(
        [
            ("prepare", "onnx", "onnxruntime_onnx"),
            ("classify", "torch", "pytorch_libtorch"),
            ("finish", "onnx", ""),
        ]
    ):
        directory = prepare_model(backend, root, name)
        publish(backend, directory, 1, float(number))
        (directory / "model.yaml").unlink(missing_ok=True)
        if platform:
            (directory / "config.pbtxt").write_text(
                CONFIG.format(platform=platform) + (ODD if name == "prepare" else "")
            )
    write_ensemble(root, "pipeline", CHAIN.replace('name: "chain"', 'name: "pipeline"'))
    return root.parent


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("serving")
    publish("tensorflow", prepare_model("tensorflow", top / "models", "half_plus_two"), 123, 2.0)
    (top / "models.config").write_text(MODELS % (top / "models" / "half_plus_two"))
    (top / "batching.config").write_text(BATCHING)
    return top


@pytest.mark.heavy
@pytest.mark.parametrize("command", commands("migration-triton.md"))
def test_from_triton(cli, triton: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(cli, command, triton, monkeypatch)
    assert done.code == 0, done.out + done.err
    if "check" in command:
        shown = [" ".join(line.split()) for line in done.out.splitlines()]
        assert sorted(shown) == sorted(output_of("migration-triton.md", command))


@pytest.mark.heavy
@pytest.mark.parametrize("command", commands("migration-tensorflow-serving.md"))
def test_from_tensorflow_serving(cli, serving: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(cli, command, serving, monkeypatch)
    assert done.code == 0, done.out + done.err
    if "check" in command:
        shown = [" ".join(line.split()) for line in done.out.splitlines()]
        assert shown == output_of("migration-tensorflow-serving.md", command)


def test_the_guides_contain_commands() -> None:
    assert len(commands("migration-triton.md")) == 5
    assert len(commands("migration-tensorflow-serving.md")) == 5


@pytest.mark.parametrize(
    ("field", "code", "shown"),
    [
        ("sequence_batching { }", 0, "ignored config.pbtxt: sequence_batching"),
        ("model_transaction_policy { decoupled: true }", 0, "ignored config.pbtxt: model_transaction_policy.decoupled"),
        ("instance_group { rate_limiter { } }", 0, "ignored config.pbtxt: instance_group.rate_limiter"),
        ("response_cache { enable: true }", 0, "ignored config.pbtxt: response_cache"),
        ('backend: "tensorrt"', 1, "PROBLEM"),
    ],
)
def test_what_the_guide_calls_not_there(cli, tmp_path: Path, field: str, code: int, shown: str) -> None:
    directory = prepare_model("onnx", tmp_path, "m")
    publish("onnx", directory, 1, 1.0)
    (directory / "config.pbtxt").write_text(field)
    done = cli("check", "--model-repository", str(tmp_path))
    assert done.code == code, done.out + done.err
    assert shown in " ".join(done.out.split())
