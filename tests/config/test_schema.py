import pytest
from pydantic import ValidationError

from inferd.server.config.fields import split_host_port
from inferd.server.config.schema import (
    Batching,
    DeclaredSignature,
    Instances,
    Load,
    ModelConfig,
    Policy,
    Server,
    ServerConfig,
    Tensor,
)


def test_the_documented_defaults():
    config = ServerConfig()
    assert config.grpc.max_message == 64 * 2**20
    assert (config.queue.requests, config.queue.bytes) == (1024, 256 * 2**20)
    assert (config.batching.max_batch_size, config.batching.max_queue_delay) == (32, 0)
    assert config.batching.preferred_batch_size is None
    assert (config.repository.poll, config.repository.settle) == (1, 2)
    assert (config.drain.grace, config.drain.pre_stop) == (30, 0)
    assert (config.load.threads, config.load.retry_min, config.load.retry_max) == (2, 1, 60)
    assert config.admin.allow == "local_peer"
    assert config.server.listen == ("0.0.0.0:8001", "0.0.0.0:8500")
    assert config.server.http == ("0.0.0.0:8000",)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        ServerConfig().queue.requests = 3


@pytest.mark.parametrize("policy", [{"latest": 2}, {"all": True}, {"specific": [3, 1]}, {}])
def test_a_policy_is_one_choice_and_survives_a_round_trip(policy):
    made = Policy(**policy)
    assert Policy.model_validate(made.model_dump()) == made
    assert sum([made.latest is not None, made.all, made.specific is not None]) == 1


def test_without_a_policy_the_newest_version_is_served():
    assert Policy().latest == ModelConfig().version_policy.latest == 1


@pytest.mark.parametrize(
    "policy", [{"latest": 1, "all": True}, {"all": True, "specific": [1]}, {"latest": 1, "specific": [1]}]
)
def test_two_choices_of_policy_are_refused(policy):
    with pytest.raises(ValidationError, match="exactly one of latest, all, specific"):
        Policy(**policy)


@pytest.mark.parametrize(
    "policy", [{"latest": 0}, {"latest": True}, {"specific": []}, {"specific": [-1]}, {"all": 1}, {"newest": 1}]
)
def test_a_wrong_policy_is_refused(policy):
    with pytest.raises(ValidationError):
        Policy(**policy)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.0.0.0:8001", ("0.0.0.0", 8001)),
        ("[::]:0", ("::", 0)),
        ("localhost:1", ("localhost", 1)),
        ("[fe80::1%eth0]:5", ("fe80::1%eth0", 5)),
    ],
)
def test_host_and_port_are_split(text, parts):
    assert split_host_port(text) == parts


@pytest.mark.parametrize(
    "text",
    ["8001", ":8001", "host", "host:", "host:65536", "host:-1", "::1:80", "[]:80", "a b:80", "host:8x", "http://h:80"],
)
def test_an_address_without_host_and_port_is_refused(text):
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        split_host_port(text)
    with pytest.raises(ValidationError, match="expected HOST:PORT"):
        Server(listen=(text,))


def test_one_address_is_a_list_of_one_and_unix_sockets_are_for_grpc_only():
    assert Server(listen="[::]:8001").listen == ("[::]:8001",)
    assert Server(listen=("unix:/run/inferd.sock",)).listen == ("unix:/run/inferd.sock",)
    with pytest.raises(ValidationError, match="HOST:PORT"):
        Server(http=("unix:/run/x",))
    with pytest.raises(ValidationError, match="more than once"):
        Server(listen=("a:1", "a:1"))


def test_a_misspelt_readiness_is_not_read_as_a_model():
    assert Server(readiness=("a", "b")).readiness == ("a", "b")
    with pytest.raises(ValidationError):
        Server(readiness="strcit")


@pytest.mark.parametrize("label", ["stable", "canary-2", "a.b_c", "_x"])
def test_valid_labels(label):
    assert ModelConfig(labels={label: 3}).labels == {label: 3}


@pytest.mark.parametrize("label", ["", "1", "2x", "a b", "a/b", "x" * 200])
def test_a_label_that_could_be_a_version_or_breaks_a_path_is_refused(label):
    with pytest.raises(ValidationError, match="expected a label"):
        ModelConfig(labels={label: 3})


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "auto", ("cpu", "cuda:1")])
def test_valid_devices(device):
    assert Instances(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:x", "", ()])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValidationError):
        Instances(device=device)


def test_tensors_take_both_names_of_strings_and_refuse_unknown_types():
    assert Tensor(name="x", dtype="BYTES").dtype == Tensor(name="x", dtype="STRING").dtype == "STRING"
    with pytest.raises(ValidationError, match="expected one of BOOL"):
        Tensor(name="x", dtype="FLOAT")
    with pytest.raises(ValidationError):
        Tensor(name="x", dtype="FP32", shape=(-2,))


def test_duplicate_names_are_refused():
    x = Tensor(name="x", dtype="FP32")
    with pytest.raises(ValidationError, match="different names"):
        DeclaredSignature(inputs=(x, x))
    with pytest.raises(ValidationError, match="different names"):
        ModelConfig(signatures=(DeclaredSignature(inputs=(x,)), DeclaredSignature(inputs=(x,))))


def test_contradictory_settings_are_refused():
    with pytest.raises(ValidationError, match="preferred_batch_size of at most"):
        Batching(max_batch_size=4, preferred_batch_size=5)
    with pytest.raises(ValidationError, match="retry_max of at least"):
        Load(retry_min=5.0, retry_max=1.0)


@pytest.mark.parametrize("value", [True, "8", 8.0, 0])
def test_a_count_that_is_no_positive_integer_is_refused(value):
    with pytest.raises(ValidationError):
        Batching(max_batch_size=value)
