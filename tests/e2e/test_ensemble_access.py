"""A caller of some models reaches no other model: not through ensembles, those that he loads himself included, and not
through what the server tells of them. A real server, on both transports and over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from support.ensembles import write_ensemble
from support.marked import prepare_model, publish
from support.security import entry, write_tokens
from support.server import FAST, Served
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, InferdError, PermissionDenied
from inferd.oip.v1 import control_pb2 as oip

pytestmark = pytest.mark.timeout(180)

OPERATOR, ROOT = "operator-0123456789abcdef0123456789abcdef", "root-0123456789abcdef0123456789abcdef"
ONE = {"x": np.zeros((1, 4), np.float32)}
OVER = """
platform: "ensemble"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
ensemble_scheduling {{ step [ {{
  model_name: "{model}" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }}
}} ] }}
"""


def over(model: str, **more: Any) -> str:
    """The settings of an ensemble over one model, for a load."""
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    step = {"model_name": model, "model_version": -1, "input_map": {"x": "x"}, "output_map": {"y": "y"}}
    return json.dumps(
        {
            "platform": "ensemble",
            "max_batch_size": 8,
            "input": [{"name": "x", **tensor}],
            "output": [{"name": "y", **tensor}],
            "ensemble_scheduling": {"step": [step]},
            **more,
        }
    )


@pytest.fixture(scope="module", params=["cq", "public"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("access")
    models = base / "models"
    for name, marker in (("secret", 7.0), ("fraud-base", 1.0), ("fraud-evil", 2.0)):
        publish("onnx", prepare_model("onnx", models, name), 1, marker)
    steps = {"fraud-own": "fraud-base", "fraud-bridge": "secret", "fraud-trusted": "secret", "fraud-broken": "hidden"}
    for name, model in steps.items():
        write_ensemble(models, name, OVER.format(model=model))
    write_ensemble(models, "fraud-nested", OVER.format(model="fraud-bridge"))
    tokens = write_tokens(
        base / "tokens.yaml",
        {"op": entry(OPERATOR, ("admin", "predict"), models=["fraud-*"]), "root": entry(ROOT, ("admin", "predict"))},
    )
    config = {
        "auth": {"tokens_file": str(tokens)},
        "admin": {"allow": "authenticated"},
        "models": {"fraud-trusted": {"trusted_steps": True}},
    }
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    sets = (*FAST, f"server.transport={request.param}")
    with Served(models, "--config", str(base / "config.yaml"), sets=sets) as server:
        yield server


def call(served: Served, path: str, body: Any = None, token: str = OPERATOR) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{served.http}{path}", data, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def infer(served: Served, model: str, token: str = OPERATOR) -> tuple[int, str]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}
    return call(served, f"/v2/models/{model}/infer", {"inputs": [tensor]}, token)


def load(served: Served, model: str, config: str, token: str = OPERATOR) -> tuple[int, str]:
    return call(served, f"/v2/repository/models/{model}/load", {"parameters": {"config": config}}, token)


def test_steps_need_the_callers_own_rights(served: Served) -> None:
    with Client(served.address, token=OPERATOR, retry=NO_RETRIES) as client:
        assert client.predict("fraud-own", ONE)["y"][0, 0] == 1
        assert client.predict("fraud-trusted", ONE)["y"][0, 0] == 7
        for model in ("secret", "fraud-bridge", "fraud-nested"):
            with pytest.raises(PermissionDenied) as error:
                client.predict(model, ONE)
            assert model == "secret" or "secret" not in str(error.value)
        with client.stream() as stream:
            answer = stream.submit("fraud-bridge", ONE)
            assert isinstance(answer.exception(60), PermissionDenied)
            assert "secret" not in str(answer.exception(60))
    with Client(served.address, token=ROOT) as client:
        for model, marker in (("secret", 7), ("fraud-bridge", 7), ("fraud-nested", 7), ("fraud-own", 1)):
            assert client.predict(model, ONE)["y"][0, 0] == marker


def test_steps_need_the_callers_own_rights_over_http(served: Served) -> None:
    assert infer(served, "fraud-own")[0] == 200
    assert infer(served, "fraud-trusted")[0] == 200
    for model in ("secret", "fraud-bridge", "fraud-nested"):
        status, text = infer(served, model)
        assert status == 403
        assert model == "secret" or "secret" not in text
    for model in ("secret", "fraud-bridge", "fraud-nested"):
        assert infer(served, model, ROOT)[0] == 200
    rows = {"instances": [[0, 0, 0, 0]]}
    status, text = call(served, "/v1/models/fraud-bridge:predict", rows)
    assert (status, "secret" in text) == (403, False)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/sec%72et/infer", "/v2/models/%73ecret/infer", "/v2/models/secret%00/infer",
        "/v2/models/fraud-base%2F..%2Fsecret/infer", "/v2/models/fraud-base/../secret/infer",
        "/v2/models//secret/infer",
        "/v2/models/SECRET/infer", "/v2/models/secret%20/infer", "/v2/models/sec%2572et/infer",
        "/v2/models/secret%2Finfer", "/v2/models/fraud-base%3Bsecret/infer", "/v2/models/fraud-%E2%80%A5/infer",
        "/v1/models/sec%72et:predict", "/v1/models/secret%3Apredict", "/v1/models/fraud-base:predict/../secret:predict",
    ],
)  # fmt: skip
def test_a_name_in_a_url_is_read_once(served: Served, path: str) -> None:
    """The rules and the handler read one name: no spelling of it reaches another model than the rules have seen."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}
    body = {"inputs": [tensor]} if path.startswith("/v2") else {"instances": [[0, 0, 0, 0]]}
    status, text = call(served, path, body)
    assert status in (400, 403, 404)
    assert "7.0" not in text


def test_a_load_brings_no_ensemble_over_other_models(served: Served) -> None:
    for model in ("secret", "hidden"):
        status, text = load(served, "fraud-evil", over(model))
        assert status == 403
        assert f"for model '{model}'" in text  # which the caller has named himself
    channel = grpc.insecure_channel(served.address)
    asked = oip.RepositoryModelLoadRequest(model_name="fraud-evil")
    asked.parameters["config"].string_param = over("secret")
    method = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
    with pytest.raises(grpc.RpcError) as error:
        method(asked.SerializeToString(), metadata=[("authorization", f"Bearer {OPERATOR}")], timeout=60)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    channel.close()
    assert json.loads(infer(served, "fraud-evil")[1])["outputs"][0]["data"][0] == 2


def test_a_trusted_name_does_not_trust_the_steps_of_a_load(served: Served) -> None:
    status, text = load(served, "fraud-trusted", over("secret"), ROOT)
    assert status == 200, text
    try:
        assert infer(served, "fraud-trusted")[0] == 403
        assert infer(served, "fraud-trusted", ROOT)[0] == 200
    finally:
        assert call(served, "/v2/repository/models/fraud-trusted/load", {}, ROOT)[0] == 200
    assert infer(served, "fraud-trusted")[0] == 200


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"default_model_filename": "../../secret/1/model.onnx"}, "default_model_filename"),
        ({"default_model_filename": "other.onnx"}, "default_model_filename"),
        ({"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4], "label_filename": "/etc/passwd"}]}, "label"),
        ({"model_repository_agents": {"agents": [{"name": "run"}]}}, "model_repository_agents"),
        ({"model_operations": {"op_library_filename": ["evil.so"]}}, "model_operations"),
        ({"runtime": "/bin/sh"}, "runtime"),
        ({"cc_model_filenames": {"8.0": "x.onnx"}}, "cc_model_filenames"),
        ({"defaultModelFilename": "other.onnx"}, "default_model_filename"),
        (
            {
                "model_warmup": [
                    {"name": "w", "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [4], "input_data_file": "f"}}}
                ]
            },
            "input_data_file",
        ),
    ],
)
def test_a_load_names_no_files_and_no_programs(served: Served, more: dict[str, Any], named: str) -> None:
    settings = {"backend": "onnxruntime", "max_batch_size": 8, **more}
    status, text = load(served, "fraud-evil", json.dumps(settings))
    assert status == 400
    assert "settings that name no files and no programs" in text
    assert named in text


@pytest.mark.parametrize(
    "text",
    [
        '{"platform": "onnxruntime_onnx", "platform": "ensemble"}',
        '{"max_batch_size": 1, "maxBatchSize": 2}',
        '{"isolation": "none", "trusted_steps": true}',
    ],
)
def test_a_load_with_two_meanings_or_other_keys_changes_nothing(served: Served, text: str) -> None:
    status, answer = load(served, "fraud-evil", text)
    if status == 200:  # keys that Triton does not have are no settings
        assert call(served, "/v2/repository/models/fraud-evil/load", {}, ROOT)[0] == 200
    else:
        assert status == 400, answer
        assert "twice" in answer
    assert infer(served, "secret")[0] == 403


def test_nothing_that_is_told_names_other_models(served: Served) -> None:
    """Metadata, ModelConfig, the index, statistics, states and errors, for an operator of some models."""
    assert call(served, "/v2/repository/models/secret/unload", {}, ROOT)[0] == 200
    try:
        eventually(lambda: infer(served, "fraud-trusted")[0] != 200, "the ensemble to go")
        told = [
            call(served, path, body)[1]
            for model in ("fraud-bridge", "fraud-trusted", "fraud-broken", "fraud-nested")
            for path, body in (
                (f"/v2/models/{model}", None),
                (f"/v2/models/{model}/config", None),
                (f"/v2/models/{model}/stats", None),
                (f"/v2/models/{model}/ready", None),
                (f"/v1/models/{model}", None),
                (f"/v1/models/{model}/metadata", None),
                (f"/v2/repository/models/{model}/load", {}),
            )
        ]
        told += [infer(served, model)[1] for model in ("fraud-bridge", "fraud-trusted", "fraud-broken", "fraud-nested")]
        told += [call(served, "/v2/repository/index", {})[1], call(served, "/v2/models/stats")[1]]
        with Client(served.address, token=OPERATOR, retry=NO_RETRIES) as client:
            told += [
                repr(client.list_models()),
                *(repr(client.status(m)) for m in ("fraud-bridge", "fraud-broken")),
            ]
            for model in ("fraud-trusted", "fraud-broken"):
                with pytest.raises(InferdError) as error:
                    client.predict(model, ONE)
                told.append(str(error.value))
        assert [text for text in told if "secret" in text or "hidden" in text] == []
        assert "step 1 is not available" in "".join(told)
    finally:
        assert call(served, "/v2/repository/models/secret/load", {}, ROOT)[0] == 200
    eventually(lambda: infer(served, "fraud-trusted")[0] == 200, "the ensemble to come back")


def test_a_load_of_an_ensemble_loads_no_models_of_others(served: Served) -> None:
    assert call(served, "/v2/repository/models/secret/unload", {}, ROOT)[0] == 200
    try:
        for model in ("fraud-bridge", "fraud-nested", "fraud-trusted"):
            status, text = call(served, f"/v2/repository/models/{model}/load", {})
            assert (status, "secret" in text) == (403, False)
            with Client(served.address, token=OPERATOR, retry=NO_RETRIES) as client, pytest.raises(PermissionDenied):
                client.load(model)
        assert infer(served, "secret", ROOT)[0] != 200
    finally:
        assert call(served, "/v2/repository/models/secret/load", {}, ROOT)[0] == 200
    eventually(lambda: infer(served, "fraud-trusted")[0] == 200, "the ensemble to come back")
    assert call(served, "/v2/repository/models/fraud-bridge/load", {})[0] == 200


def test_the_steps_of_an_ensemble_are_shown_to_those_who_may_see_them(served: Served) -> None:
    def steps(model: str, token: str) -> list[str]:
        config = json.loads(call(served, f"/v2/models/{model}/config", None, token)[1])
        return [step["model_name"] for step in config.get("ensemble_scheduling", {}).get("step", ())]

    assert steps("fraud-bridge", ROOT) == ["secret"]
    assert steps("fraud-bridge", OPERATOR) == []
    assert steps("fraud-own", OPERATOR) == ["fraud-base"]


def test_a_models_own_files_cannot_trust_its_steps(served: Served) -> None:
    directory = Path(served.repository) / "fraud-yaml"
    (directory / "1").mkdir(parents=True)
    (directory / "model.yaml").write_text(
        "trusted_steps: true\n"
        "signatures:\n"
        "  - inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]\n"
        "    outputs: [{name: y, dtype: FP32, shape: [-1, 4]}]\n"
        "ensemble: [{model: secret, inputs: {x: x}, outputs: {y: y}}]\n"
    )

    def reason() -> str:
        entries = json.loads(call(served, "/v2/repository/index", {})[1])
        return next((each.get("reason", "") for each in entries if each["name"] == "fraud-yaml"), "")

    told = eventually(reason, "the model's error")
    assert "trusted_steps" in told
    assert "server's own configuration" in told
    assert infer(served, "fraud-yaml")[0] != 200
