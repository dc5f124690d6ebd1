import pytest
from support.settings import config_of

from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ServerConfig
from inferd.server.config.triton import translate


def config(**pbtxt):
    return config_of(ServerConfig(), "m", None, pbtxt)


def x(**fields):
    return {"name": "x", "data_type": "TYPE_FP32", "dims": [3, -1], **fields}


def test_an_empty_config_pbtxt_sets_nothing():
    assert translate("m", {}).values == {}
    assert translate("m", {}).notes == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("onnxruntime", "onnx"),
        ("pytorch", "torch"),
        ("tensorflow", "tensorflow"),
        ("python", "python"),
        ("tensorrt", "tensorrt"),
    ],
)
def test_backend_names_are_translated(kind, name):
    assert config(backend=kind).backend == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [("onnxruntime_onnx", "onnx"), ("pytorch_libtorch", "torch"), ("tensorflow_savedmodel", "tensorflow")],
)
def test_platform_names_are_translated(kind, name):
    assert config(platform=kind).backend == name
    assert config(platform=kind, backend="").backend == name


def test_the_name_must_be_that_of_the_directory():
    assert config(name="m") == config()
    with pytest.raises(
        ConfigError, match=r"config\.pbtxt: name: expected the name of the model's directory, 'm', got 'other'"
    ):
        config(name="other")


def test_dims_leave_the_batch_axis_out_when_the_model_batches():
    batched = config(max_batch_size=8, input=[x()], output=[{"name": "y", "data_type": "TYPE_STRING", "dims": [1]}])
    assert batched.signatures[0].inputs[0].shape == (-1, 3, -1)
    assert (batched.signatures[0].outputs[0].shape, batched.signatures[0].outputs[0].dtype) == ((-1, 1), "STRING")
    assert (batched.batching.mode, batched.batching.max_batch_size) == ("auto", 8)


@pytest.mark.parametrize(
    ("given", "mode", "rows"),
    [
        ({"max_batch_size": 8}, "auto", 8),
        ({"max_batch_size": 8, "dynamic_batching": {}}, "trusted", 8),
        ({"dynamic_batching": {}}, "trusted", 32),
        ({"max_batch_size": 0, "dynamic_batching": {}}, "off", 32),
        ({}, "auto", 32),
        ({"max_batch_size": 8, "platform": "ensemble"}, "trusted", 8),
    ],
    ids=str,
)
def test_only_dynamic_batching_declares_that_rows_are_independent(given, mode, rows):
    step = {"model_name": "a", "input_map": {"x": "x"}, "output_map": {"y": "y"}}
    steps = {"ensemble_scheduling": {"step": [step]}, "output": [x()]} if "platform" in given else {}
    found = config(**given, **steps, input=[x()]).batching
    assert (found.mode, found.max_batch_size) == (mode, rows)


def test_max_batch_size_zero_turns_batching_off_and_without_it_the_default_holds():
    off = config(max_batch_size=0, input=[x()])
    assert off.batching.mode == "off"
    assert off.signatures[0].inputs[0].shape == (3, -1)
    assert config(input=[x()]).batching.mode == "auto"


def test_reshape_gives_the_models_own_shape():
    translation = translate("m", {"max_batch_size": 2, "input": [x(dims=[1], reshape={"shape": []}, optional=True)]})
    tensor = translation.values["signatures"][0]["inputs"][0]
    assert (tensor["shape"], tensor["reshape"], tensor["optional"]) == ([-1, 1], [-1], True)
    assert not any("reshape" in note for note in translation.notes)


def test_dynamic_batching_is_translated():
    found = config(
        max_batch_size=16,
        dynamic_batching={
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 150,
            "default_priority_level": 2,
            "default_queue_policy": {"max_queue_size": 10},
        },
    )
    assert (found.batching.preferred_batch_size, found.batching.max_queue_delay) == (8, 0.00015)
    assert (found.default_priority, found.queue.requests) == (2, 10)


@pytest.mark.parametrize(
    ("groups", "count", "device"),
    [
        ([{"count": 2, "kind": "KIND_CPU"}], 2, "cpu"),
        ([{"kind": "KIND_GPU", "gpus": [0, 1]}], 1, ("cuda:0", "cuda:1")),
        ([{"gpus": [1]}], 1, "cuda:1"),
        ([{"kind": "KIND_GPU"}], 1, "auto"),
        ([{"count": 1, "kind": "KIND_CPU"}, {"count": 3, "kind": "KIND_GPU", "gpus": [0]}], 3, ("cpu", "cuda:0")),
        ([{"count": 0, "kind": "KIND_AUTO"}], 1, "auto"),
    ],
)
def test_instance_groups_are_translated(groups, count, device):
    found = config(instance_group=groups).instances
    assert (found.count, found.device) == (count, device)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ({"latest": {"num_versions": 3}}, (3, False, None)),
        ({"latest": {}}, (1, False, None)),
        ({"all": {}}, (None, True, None)),
        ({"specific": {"versions": [1, 3]}}, (None, False, (1, 3))),
    ],
)
def test_version_policies_are_translated(policy, found):
    policy = config(version_policy=policy).version_policy
    assert (policy.latest, policy.all, policy.specific) == found


def test_the_thread_count_is_read_from_parameters():
    assert config(parameters={"intra_op_thread_count": {"string_value": "4"}}).instances.threads == 4
    assert config(parameters={"intra_op_thread_count": "4"}).instances.threads == 4


@pytest.mark.parametrize(
    ("pbtxt", "text"),
    [
        ({"sequence_batching": {"direct": {}}}, "sequence_batching"),
        ({"parameters": {"FOO": {"string_value": "1"}}}, "'FOO'"),
        ({"model_transaction_policy": {"decoupled": True}}, "decoupled"),
        ({"dynamic_batching": {"priority_queue_policy": {1: {"max_queue_size": 1}}}}, "priority_queue_policy"),
        ({"dynamic_batching": {"default_queue_policy": {"timeout_action": "DELAY"}}}, "timeout_action"),
        (
            {"dynamic_batching": {"default_queue_policy": {"default_timeout_microseconds": 5}}},
            "allow_timeout_override",
        ),
        ({"optimization": {"cuda": {"graphs": True}}}, "optimization.cuda"),
        ({"optimization": {"execution_accelerators": {"x_accelerator": [{"name": "tensorrt"}]}}}, "tensorrt"),
        ({"instance_group": [{"count": 1, "profile": ["a"]}]}, "profile"),
        ({"input": [x(allow_ragged_batch=True)]}, "allow_ragged_batch"),
        ({"output": [x()]}, "output is not honoured without input"),
    ],
)
def test_fields_that_are_not_honoured_are_noted(pbtxt, text):
    assert any(text in note for note in translate("m", pbtxt).notes)


@pytest.mark.parametrize(
    "quiet",
    [
        {"default_model_filename": "model.onnx"},
        {"model_transaction_policy": {"decoupled": False}},
        {"optimization": {}},
    ],
)
def test_fields_without_effect_are_not_noted(quiet):
    assert translate("m", quiet).notes == ()


@pytest.mark.parametrize(
    "bad",
    [
        {"max_batch_size": -1},
        {"max_batch_size": "8"},
        {"max_batch_size": True},
        {"input": [{"data_type": "TYPE_FP32"}]},
        {"input": ["x"]},
        {"input": [x(data_type="FP32")]},
        {"input": [x(data_type="TYPE_FLOAT")]},
        {"input": [x(dims=[-2])]},
        {"input": [x(dims="ab")]},
        {"input": [x(), x()]},
        {"dynamic_batching": []},
        {"version_policy": {"specific": {}}},
        {"instance_group": [{"gpus": ["a"]}]},
    ],
)
def test_wrong_fields_are_config_errors(bad):
    with pytest.raises(ConfigError, match=r"^config\.pbtxt: "):
        config(**bad)
