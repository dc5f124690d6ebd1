import pytest
from support.settings import config_of

from inferd.server.config.document import parse_document
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config, model_config
from inferd.server.config.schema import ModelConfig, ServerConfig


def test_without_settings_the_defaults_hold():
    assert config_of(ServerConfig(), "m") == ModelConfig()


def test_each_layer_overrides_the_one_below():
    server = load_config(
        None, {}, ["queue.requests=1", "queue.bytes=1KiB", "batching.max_queue_delay=1ms", "models.m.stateful=true"]
    )
    pbtxt = {
        "max_batch_size": 2,
        "dynamic_batching": {},
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 2}},
    }
    yaml = {"batching": {"max_batch_size": 3}, "queue": {"requests": 4}}
    config = config_of(server, "m", yaml, pbtxt)
    assert (config.queue.requests, config.queue.bytes) == (4, 1024)
    assert (config.batching.max_batch_size, config.batching.mode, config.batching.max_queue_delay) == (
        3,
        "trusted",
        0.001,
    )
    assert (config.backend, config.version_policy.latest, config.stateful) == ("onnx", 2, True)
    assert config_of(server, "other", yaml, None).stateful is None
    over = load_config(None, {"INFERD_MODELS__m__BATCHING__MAX_BATCH_SIZE": "9"})
    assert config_of(over, "m", yaml, pbtxt).batching.max_batch_size == 9


def test_a_version_policy_replaces_that_of_a_lower_layer():
    server = load_config(None, {}, ["models.m.version_policy.specific=[4]"])
    policy = config_of(
        server, "m", {"version_policy": {"all": True}}, {"version_policy": {"latest": {}}}
    ).version_policy
    assert (policy.latest, policy.all, policy.specific) == (None, False, (4,))


def test_the_servers_preferred_batch_size_is_limited_to_the_models_maximum():
    server = load_config(None, {}, ["batching.preferred_batch_size=16"])
    assert config_of(server, "m").batching.preferred_batch_size == 16
    assert config_of(server, "m", {"batching": {"max_batch_size": 4}}).batching.preferred_batch_size == 4
    with pytest.raises(ConfigError, match="preferred_batch_size of at most"):
        config_of(server, "m", {"batching": {"max_batch_size": 4, "preferred_batch_size": 8}})


def test_a_value_that_needs_model_yaml_to_be_valid_is_no_error_at_start():
    server = load_config(None, {}, ["models.m.batching.preferred_batch_size=64"])
    assert config_of(server, "m", {"batching": {"max_batch_size": 128}}).batching.preferred_batch_size == 64
    with pytest.raises(ConfigError):
        config_of(server, "m")


def test_errors_name_the_file_and_the_line():
    document = parse_document("backend: onnx\nbatching:\n  max_batch_sise: 3\n", "models/m/model.yaml")
    with pytest.raises(ConfigError) as caught:
        config_of(ServerConfig(), "m", document)
    assert str(caught.value) == (
        "models/m/model.yaml:3: batching.max_batch_sise: expected a known key, got an unknown one; did you mean batching.max_batch_size?"  # noqa: E501
    )


@pytest.mark.parametrize(
    "yaml", [{"queue": {"bytes": 5}}, {"batching": {"max_queue_delay": 3}}, {"labels": {"x": "3"}}, {"batching": []}]
)
def test_model_yaml_is_validated_like_config_yaml(yaml):
    with pytest.raises(ConfigError, match=r"model\.yaml: "):
        config_of(ServerConfig(), "m", yaml)


def test_an_empty_section_of_model_yaml_changes_nothing():
    assert (
        config_of(ServerConfig(), "m", parse_document("batching:\nlabels:\nsignatures:\nversion_policy:\n", "f"))
        == ModelConfig()
    )


def test_notes_on_config_pbtxt_are_returned_with_the_settings():
    _, notes = model_config(ServerConfig(), "m", None, {"dynamic_batching": {}, "optimization": {"x": 1}})
    assert notes == (
        "config.pbtxt: dynamic_batching declares that rows are independent: batched without proof",
        "config.pbtxt: optimization.x is not honoured",
    )


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("instances: {count: 1000000000}", "256"),
        ("instances: {count: 100, device: [cpu, auto, 'cuda:0']}", "256 copies on all devices together, got 300"),
        ("instances: {threads: 1000000}", "1024"),
        ("instances: {count: 100, threads: 100}", "4096 threads of all copies together, got 10000"),
        ("queue: {requests: 1000000000}", "1000000"),
        ("batching: {max_batch_size: 1000000000}", "65536"),
        ("batching: {preferred_batch_size: 1000000000}", "65536"),
        ("batching: {padding: {x: [1000000000]}}", "65536"),
        ("version_policy: {latest: 1000000000}", "10000"),
        ("warmup: {runs: 1000000000000}", "100000"),
        ("warmup: {samples: [{inputs: {x: {dtype: FP32}}, runs: 1000000000}]}", "100000"),
        (f"instances: {{device: [{','.join(['cpu'] * 100)}]}}", "at most 64 items, got 100"),
        (f"signatures: [{{inputs: [{{name: x, dtype: FP32, shape: [{','.join('1' * 40)}]}}]}}]", "32 items"),
        (f"ensemble: [{','.join(['{model: m, inputs: {a: b}, outputs: {a: b}}'] * 200)}]", "at most 100 items"),
        ("worker: {hang: 99999999999h}", "sensible magnitude"),
    ],
)
def test_every_number_has_a_bound_that_is_named(text: str, bound: str) -> None:
    with pytest.raises(ConfigError, match=bound):
        config_of(ServerConfig(), "m", parse_document(text, "model.yaml"))


def test_many_names_take_linear_time() -> None:
    """With a quadratic check this would take an hour."""
    tensors = [{"name": f"x{number}", "dtype": "FP32"} for number in range(100_000)]
    with pytest.raises(ConfigError, match="at most 4096 items"):
        config_of(ServerConfig(), "m", {"signatures": [{"inputs": tensors}]})
    with pytest.raises(ConfigError, match=r"x0, x1, .* and 992 more more than once"):
        config_of(ServerConfig(), "m", {"signatures": [{"inputs": tensors[:1000] * 2}]})
