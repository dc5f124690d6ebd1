"""`inferd check` on repositories of other servers: versions that would be served, settings that differ or are
ignored."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from support.ensembles import CHAIN, write_ensemble
from support.marked import prepare_model, publish

TRITON = """
name: "prepare"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] allow_ragged_batch: true } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 2 kind: KIND_CPU rate_limiter { resources { name: "R1" count: 1 } } } ]
dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { timeout_action: DELAY } }
response_cache { enable: true }
parameters { key: "FORCE" value { string_value: "1" } }
version_policy: { all { } }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name, marker in (("prepare", 1.0), ("classify", 10.0), ("finish", 100.0)):
        publish("onnx", prepare_model("onnx", root, name), 1, marker)
    return root


def lines(text: str) -> list[str]:
    """The lines, with runs of blanks reduced to one."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_an_ensemble_and_its_models_are_checked(cli, repository: Path) -> None:
    write_ensemble(repository)
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 0, done.out + done.err
    assert "chain 1 ensemble each step's own x FP32[-1, 4] -> y FP32[-1, 4]" in lines(done.out)
    assert "chain:1 steps: prepare, classify, finish" in lines(done.out)
    assert "4 versions would be served, 0 problems" in done.out


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"classify"', '"nobody"', "step 2 (model 'nobody'): there is no such model in the repository"),
        ('key: "x" value: "prepared"', 'key: "in" value: "prepared"', "the model has no input 'in'; it has 'x'"),
        ("dims: [ 4 ]", "dims: [ 2 ]", "input 'x' takes FP32 [-1, 4], 'x' is FP32 [-1, 2]"),
        ('"classify"', '"chain"', "ensembles hold each other in a circle: chain needs chain"),
        ('model_name: "classify"', 'model_namespace: "a"', "step: expected a step with a model_name"),
    ],
)
def test_a_wrong_ensemble_is_a_problem(cli, repository: Path, before: str, after: str, message: str) -> None:
    write_ensemble(repository, text=CHAIN.replace(before, after, 1))
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 1
    assert f"PROBLEM: {message}" in done.out or message in done.out
    assert "3 versions would be served, 1 problems" in done.out


def test_ignored_and_different_settings_of_a_triton_configuration_are_shown(cli, repository: Path) -> None:
    (repository / "prepare" / "config.pbtxt").write_text(TRITON)
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 0, done.out + done.err
    shown = lines(done.out)
    assert "prepare 1 onnx up to 8 rows, declared x FP32[-1, 4] -> y FP32[-1, 4]" in shown
    for field in (
        "input.allow_ragged_batch",
        "instance_group.rate_limiter",
        "response_cache",
        "parameters 'FORCE'",
    ):
        assert f"prepare ignored config.pbtxt: {field}" in shown, field
    assert (
        "prepare differs config.pbtxt: dynamic_batching declares that rows are independent: batched without proof"
        in shown
    )
    assert any("timeout_action DELAY" in line and "ignored" in line for line in shown)
    assert "settings ignored" in shown[-1]


def test_findings_as_json(cli, repository: Path) -> None:
    (repository / "prepare" / "config.pbtxt").write_text(TRITON)
    write_ensemble(repository)
    done = cli("check", "--model-repository", str(repository), "--json")
    found = json.loads(done.out)
    assert found["ok"]
    by_model = {(f["model"], f["version"]): f for f in found["findings"]}
    assert by_model["chain", 1]["backend"] == "ensemble"
    assert any("response_cache" in note for note in by_model["prepare", None]["notes"])


@pytest.mark.heavy
def test_warm_up_requests_of_tensorflow_serving_are_checked(cli, tmp_path: Path) -> None:
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    root = tmp_path / "models"
    publish("tensorflow", prepare_model("tensorflow", root, "half_plus_two"), 123, 2.0)
    extra = root / "half_plus_two" / "123" / "assets.extra"
    extra.mkdir(exist_ok=True)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones((1, 4), np.float32)))
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    done = cli("check", "--model-repository", str(root))
    assert done.code == 0, done.out
    assert "half_plus_two 123 tensorflow up to 32 rows, proven x FP32[-1, 4] -> y FP32[-1, 4]" in lines(done.out)
    assert "half_plus_two:123 1 warm-up requests" in lines(done.out)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones((1, 5), np.float32)))
        writer.write(log.SerializeToString())
    done = cli("check", "--model-repository", str(root))
    assert done.code == 1
    assert "warm-up request 'record 1 of tf_serving_warmup_requests'" in done.out


@pytest.mark.heavy
def test_compiled_code_is_loaded_only_where_the_configuration_allows_it(cli, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    version = tmp_path / "models" / "m" / "1"
    version.mkdir(parents=True)
    with zipfile.ZipFile(version / "model.pt2", "w") as archive:
        for name in ("archive_format", "data/aotinductor/model/m.wrapper.so"):
            archive.writestr(f"archive/{name}", "pt2")
    (version.parent / "model.yaml").write_text("backend: torch\n")
    where = ("--model-repository", str(tmp_path / "models"))
    done = cli("check", *where)
    assert done.code == 1
    assert "repository.allow, in the server's own configuration, names aoti" in done.out
    done = cli("check", *where, "--set", f"repository.allow={{{tmp_path / 'other'}: [aoti]}}")
    assert "names aoti" in done.out
    done = cli("check", *where, "--set", "repository.allow=[aoti]")
    assert done.code == 1
    assert "names aoti" not in done.out
    assert "cannot read the package" in done.out


@pytest.mark.parametrize("file", ["model.py", "steps.py"])
def test_python_code_is_run_only_where_the_configuration_allows_it(cli, tmp_path: Path, file: str) -> None:
    root, trace = tmp_path / "models", tmp_path / "it-ran"
    version = root / "m" / "1"
    code = f"open({str(trace)!r}, 'w').close()\ndef predict(x): return {{'y': x}}\nbefore = predict\n"
    if file == "steps.py":
        publish("onnx", prepare_model("onnx", root, "m"), 1, 1.0)
        code = code.replace("before = predict", "def before(x): return {'x': x}")
    version.mkdir(parents=True, exist_ok=True)
    (version / file).write_text(code)
    tensor = "dtype: FP32, shape: [-1, 4]"
    (root / "m" / "model.yaml").write_text(
        f"signatures: [{{inputs: [{{name: x, {tensor}}}], outputs: [{{name: y, {tensor}}}]}}]\n"
    )
    done = cli("check", "--model-repository", str(root))
    assert done.code == 1
    assert (
        f"{file} is Python code, which is run only where repository.allow, in the server's own configuration, names "
        f"python, as in repository.allow: {{{root}: [python]}}"
    ) in " ".join(lines(done.out))
    done = cli(
        "check", "--model-repository", str(root), "--set", f"repository.allow={{{tmp_path / 'other'}: [python]}}"
    )
    assert done.code == 1
    assert not trace.exists(), "no line of it was executed"
    done = cli("check", "--model-repository", str(root), "--set", f"repository.allow={{{root}: [python]}}")
    assert done.code == 0, done.out
    assert f"runs Python code: {file}" in done.out
    assert "isolation: in process" in done.out
    assert trace.exists()


def test_a_repository_from_which_nothing_would_be_served_is_a_problem(cli, tmp_path: Path) -> None:
    done = cli("check", "--model-repository", str(tmp_path))
    assert done.code == 1
    assert f"nothing would be served: {tmp_path} holds no model" in done.out
    (tmp_path / "notes").mkdir()
    assert cli("check", "--model-repository", str(tmp_path)).code == 1
    found = cli("check", "--model-repository", str(tmp_path), "--json").json
    assert (found["ok"], len(found["findings"])) == (False, 1)


def test_misplaced_models_are_problems(cli, repository: Path) -> None:
    (repository / "prepare/1").rename(repository / "prepare/v1")
    shutil.copytree(repository / "finish/1", repository / "finish/1.1")
    shutil.copy(repository / "finish/1/model.onnx", repository / "extra.onnx")
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 1
    assert "prepare/v1 (with model.onnx) is no version" in done.out
    assert "finish/1.1 (with model.onnx) is no version" in done.out
    assert "extra.onnx lies directly in the repository" in done.out
    assert "2 versions would be served, 3 problems" in done.out


@pytest.mark.parametrize(("arguments", "name"), [((), "finish"), (("--model-name", "named"), "named")])
def test_a_directory_that_is_itself_one_model_is_checked(
    cli, repository: Path, arguments: tuple[str, ...], name: str
) -> None:
    done = cli("check", "--model-repository", str(repository / "finish"), *arguments)
    assert done.code == 0, done.out
    assert lines(done.out)[1].startswith(f"{name} 1 onnx")
    flat = cli("check", "--model-repository", str(repository / "finish/1"), *arguments)
    assert flat.code == 0, flat.out
    assert "1 versions would be served, 0 problems" in flat.out


def test_an_older_version_that_stands_in_for_a_broken_one_is_counted(cli, repository: Path) -> None:
    shutil.copytree(repository / "finish/1", repository / "finish/2")
    file = repository / "finish/2/model.onnx"
    file.write_bytes(file.read_bytes()[:-20])
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 1
    assert "finish 2 PROBLEM: model.onnx is cut short" in "\n".join(lines(done.out))
    assert "finish 1 onnx up to 32 rows, proven x FP32[-1, 4] -> y FP32[-1, 4]" in lines(done.out)
    assert "3 versions would be served, 1 problems" in done.out


def test_several_problems_of_a_model_have_a_line_each(cli, repository: Path) -> None:
    (repository / "prepare" / "model.yaml").write_text("batching: {mod: x}\nlables: {}\n")
    done = cli("check", "--model-repository", str(repository))
    assert done.code == 1
    shown = lines(done.out)
    assert "prepare PROBLEM: 2, see below" in shown
    block = shown[shown.index("prepare:") :]
    assert "batching.mod: expected a known key" in block[1]
    assert "did you mean batching.mode?" in block[1]
    assert "did you mean labels?" in block[2]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", "up to 32 rows, proven"),
        ("batching: {mode: trusted, max_batch_size: 8}", "up to 8 rows, declared"),
        ("batching: {mode: 'off'}", "unbatched: batching.mode is off"),
        ("batching: {max_batch_size: 1}", "unbatched: batching.max_batch_size is 1"),
        ("stateful: true", "unbatched: stateful"),
    ],
)
def test_the_verdict_on_batching_is_shown(cli, repository: Path, text: str, verdict: str) -> None:
    (repository / "prepare" / "model.yaml").write_text(text)
    where = ("--model-repository", str(repository))
    assert f"prepare 1 onnx {verdict} x FP32[-1, 4] -> y FP32[-1, 4]" in lines(cli("check", *where).out)
    found = {(f["model"], f["version"]): f for f in cli("check", *where, "--json").json["findings"]}
    assert found["prepare", 1]["batching"] == verdict
