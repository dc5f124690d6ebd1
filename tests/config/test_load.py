import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferd.server.config.errors import ConfigError
from inferd.server.config.keys import all_keys
from inferd.server.config.load import load_config
from inferd.server.config.schema import ServerConfig


def errors(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_without_settings_the_defaults_hold():
    assert load_config() == load_config(None, {}, []) == ServerConfig()


def test_flags_over_sets_over_environment_over_file(file):
    path = file("log: {level: error}\ndrain: {grace: 1s, pre_stop: 1s}\nserver: {listen: [a:1]}\nload: {threads: 7}\n")
    environ = {"INFERD_DRAIN__GRACE": "2s", "INFERD_DRAIN__PRE_STOP": "2s", "INFERD_SERVER__LISTEN": "b:1"}
    sets = ["drain.pre_stop=3s", "server.listen=c:1"]
    config = load_config(path, environ, sets, flags={"server.listen": ("d:1", "e:1")})
    assert config.load.threads == 7
    assert config.log.level == "error"
    assert (config.drain.grace, config.drain.pre_stop) == (2, 3)
    assert config.server.listen == ("d:1", "e:1")


def test_a_later_set_wins():
    assert load_config(None, {}, ["load.threads=3", "load.threads=4"]).load.threads == 4


@pytest.mark.parametrize(
    "key", [key for key in all_keys(ServerConfig) if key.section is None], ids=lambda k: ".".join(k.path)
)
def test_every_key_can_be_set_by_environment_and_by_flag(key):
    values = {
        "server.transport": "public", "server.work_dir": "w",
        "server.tls.certificate": "c.pem", "server.tls.key": "k.pem", "server.http": "[]",
        "server.listen": "h:1", "server.readiness": "[a]", "server.open": "when_ready", "server.cpu_threads": "3",
        "repository.mode": "explicit",
        "load.retry_max": "90s", "admin.allow": "anyone", "log.format": "json", "log.level": "debug",
        "batching.mode": "off", "batching.padding": "{x: [8, 16]}", "batching.preferred_batch_size": "2",
        "queue.timeout": "3s", "grpc.max_connection_age": "3s", "grpc.compression": "refuse",
        "queue.admission": "bounds", "batching.size": "largest", "instances.on_loop": "never",
        "instances.device": "cpu", "instances.threads": "2", "models": "{m: {stateful: true}}",
        "repository.models": "{M: /models/m}", "repository.allow": "aoti",
        "server.metrics": "h:1", "auth.certificates": "{c: {scopes: admin}}",
        "auth.anonymous.scopes": "predict", "auth.open": "metrics", "limits.clients.rate": "5",
        "limits.clients.burst": "3", "limits.clients.concurrency": "3", "auth.jwt.scopes_claim": "s",
        "auth.jwt.models_claim": "m", "isolation": "process", "batching.verify": "0.1%",
        "worker.memory": "64MiB", "memory.models": "4GiB", "server.interpreters": "/opt/v/bin/python",
        "worker.python": "/opt/v/bin/python",
    }  # fmt: skip
    dotted = ".".join(key.path)
    if dotted in values:
        text = values[dotted]
    elif isinstance(key.written, str):
        text = key.written.replace("0s", "3s").replace("1s", "1500ms").replace("2s", "4s").replace("iB", "B")
    elif isinstance(key.written, bool):
        text = str(not key.written).lower()
    elif isinstance(key.written, int):
        text = str(key.written + 1)
    else:
        text = "some text"
    section, _, name = dotted.rpartition(".")
    needed = {
        "server.tls": {"certificate": "c", "key": "k"},
        "http.tls": {"certificate": "c", "key": "k"},
        "auth.jwt": {"jwks_file": "j", "issuer": "i", "audience": "a"},
        "limits.clients": {"rate": "5"} if name == "burst" else {},
    }
    extra = [f"{section}.{each}={value}" for each, value in needed.get(section, {}).items() if each != name]
    extra += ["server.interpreters=/opt/v/bin/python"] if dotted == "worker.python" else []
    by_flag = load_config(None, {}, [*extra, f"{dotted}={text}"])
    by_environment = load_config(None, {"INFERD_" + "__".join(key.path).upper(): text}, extra)
    assert by_flag == by_environment != ServerConfig()
    value = by_flag
    for part in key.path:
        value = getattr(value, part)
    assert value != key.default


def test_a_key_that_takes_text_does_not_parse_it_as_yaml():
    config = load_config(
        None, {"INFERD_SERVER__STATE_DIR": "123", "INFERD_SERVER__LISTEN": "[::]:8001"}, ["repository.load=*"]
    )
    assert config.server.state_dir == "123"
    assert config.server.listen == ("[::]:8001",)
    assert config.repository.load == ("*",)
    assert load_config(None, {}, ["server.state_dir=null"]).server.state_dir is None
    assert load_config(None, {}, ["server.listen=[a:1, '[::]:2']"]).server.listen == ("a:1", "[::]:2")
    assert load_config(None, {}, ["log.file=a=b c"]).log.file == "a=b c"


def test_models_by_environment_and_set():
    config = load_config(
        None,
        {"INFERD_MODELS__My-Model__BATCHING__MAX_BATCH_SIZE": "8", "INFERD_MODELS__m__OPTIONS__intraOp": "3"},
        ['models."a.b".stateful=true', "models.m.labels={stable: 2}"],
    )
    assert config.models == {
        "My-Model": {"batching": {"max_batch_size": 8}},
        "m": {"options": {"intraOp": 3}, "labels": {"stable": 2}},
        "a.b": {"stateful": True},
    }


def test_an_empty_section_changes_nothing(file):
    assert load_config(file("server:\nmodels:\nqueue:\n  # requests: 3\n")) == ServerConfig()
    assert load_config(file("models: {m: {batching: }}\n")).models["m"]["batching"] in ({}, None)


def test_a_higher_layer_can_unset(file):
    path = file("server:\n  tls: {certificate: a, key: b}\n  state_dir: x\n")
    assert load_config(path).server.tls.key == "b"
    config = load_config(path, {}, ["server.tls=null", "server.state_dir=null"])
    assert config.server.tls is config.server.state_dir is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server:\n  lisen: [a:1]\n", "config.yaml:2: server.lisen: expected a known key, got an unknown one; did you mean server.listen?"),  # noqa: E501
        ("max_message: 1MiB\n", "did you mean grpc.max_message?"),
        ("zzz: 1\n", "expected one of server, grpc,"),
        ("\n\nlog: {level: debg}\n", "config.yaml:3: log.level: expected 'debug', 'info', 'warning' or 'error', got 'debg'; did you mean debug?"),  # noqa: E501
        ("grpc: {max_message: 5}\n", "grpc.max_message: expected a number with a unit"),
        ("server: 5\n", "server: expected a mapping (key: value), got 5"),
        ("server: {tls: {key: k}}\n", "server.tls.certificate: expected a value, got none"),
        ("server: {listen: [a]}\n", "server.listen[0]: expected HOST:PORT"),
        ("batching: {max_batch_size: 2, preferred_batch_size: 4}\n", "expected preferred_batch_size of at most max_batch_size (2), got 4"),  # noqa: E501
        ("models: {m: {batchin: {}}}\n", "did you mean models.m.batching?"),
        ("models: {m: {max_batch_size: 4}}\n", "did you mean models.m.batching.max_batch_size?"),
        ("models: {m: 3}\n", "models.m: expected a mapping"),
        ("models:\n  m:\n    version_policy: {latest: 1, all: true}\n", "config.yaml:3: models.m.version_policy: expected exactly one"),  # noqa: E501
        ("instances: {device: [cpu, gpu]}\n", "instances.device[1]: expected cpu, cuda:N or auto, got 'gpu'"),
    ],
)  # fmt: skip
def test_errors_name_place_key_expected_got_and_the_nearest_key(file, text, message):
    assert message in errors(file(text))


def test_errors_name_the_variable_or_the_flag():
    assert errors(None, {"INFERD_LOG__LEVEL": "loud"}).startswith(
        "environment variable INFERD_LOG__LEVEL: log.level: expected"
    )
    assert errors(None, {}, ["log.level=loud"]).startswith("--set log.level: expected")
    assert errors(None, {}, flags={"server.http": ["x"]}).startswith("--http: server.http[0]: expected HOST:PORT")
    assert "did you mean server.listen?" in errors(None, {"INFERD_SERVR__LISTEN": "a:1", "INFERD_SERVER__LISTN": "a:1"})


def test_a_wrong_environment_variable_is_an_error_though_the_file_is_right(file):
    assert errors(file("log: {level: info}\n"), {"INFERD_LOG__LEVEL": "loud"}).startswith("environment variable")


def test_all_problems_are_reported_together(file):
    text = errors(file("a: 1\nlog: {level: x}\nmodels: {m: {foo: 1}}\n"), {"INFERD_DRAIN__GRACE": "5"}, ["nonsense"])
    assert len(text.splitlines()) == 5


def test_a_missing_underscore_is_reported_and_foreign_variables_are_ignored():
    kubernetes = {
        "INFERD_PORT": "tcp://10.0.0.1:8001",
        "INFERD_SERVICE_HOST": "10.0.0.1",
        "INFERD_PORT_8001_TCP_ADDR": "x",
    }
    assert load_config(None, kubernetes) == ServerConfig()
    assert "did you mean INFERD_LOG__LEVEL?" in errors(None, {"INFERD_LOG_LEVEL": "debug"})


@pytest.mark.parametrize("item", ["", "x", "=1", "a..b=1", ".a=1", "a.=1", 'a."b=1', "a b=1", "a[0]=1"])
def test_a_set_flag_without_key_and_value_is_refused(item):
    assert "expected KEY=VALUE" in errors(None, {}, [item])


def test_secrets_are_never_shown(file):
    secret = "hunter2"
    texts = [
        errors(None, {}, [f"log.api_token={secret}"]),
        errors(None, {}, [f"a..password={secret}"]),
        errors(None, {"INFERD_ADMIN__PASSWORD": secret, "INFERD_ADMIN__TOKEN": f"[{secret}"}),
        errors(file(f"models: {{m: {{batching: {{token: {secret}}}}}}}\nlog: {{file: {{password: {secret}}}}}\n")),
        errors(file(f"server: {{listen: ['http://user:{secret}@host/']}}\n")),
        errors(file(f"queue: [{{api_key: {secret}}}]\n")),
    ]
    assert not any(secret in text for text in texts)


KEYS = [
    "log",
    "level",
    "server",
    "listen",
    "models",
    "m",
    "batching",
    "mode",
    "options",
    "tls",
    "version_policy",
    "latest",
]
parts = st.one_of(st.sampled_from(KEYS), st.text(max_size=8))
values = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["off", "[]", "{}", "null", "[[", "*", "&a", "1", "{a: b}", "- 1", "!!set {a}", "!!binary aa"]),
)


@given(
    st.lists(
        st.tuples(st.lists(parts, max_size=5).map(".".join), values).map("=".join) | st.text(max_size=30), max_size=3
    )
)
@example(["models.m=[1]"])
@example(["models=3"])
@example(["models.m.labels=null"])
def test_any_set_gives_a_configuration_or_a_config_error(sets):
    problems = ()
    try:
        load_config(None, {}, sets)
    except ConfigError as error:
        problems = error.problems
    assert all(problem.expected for problem in problems)


names = st.text(alphabet=string.ascii_letters + "_-.", max_size=12)


@given(
    st.dictionaries(
        st.lists(st.one_of(st.sampled_from([key.upper() for key in KEYS]), names), max_size=4).map(
            lambda p: "INFERD_" + "__".join(p)
        ),
        values,
        max_size=3,
    )
)
def test_any_environment_gives_a_configuration_or_a_config_error(environ):
    problems = ()
    try:
        load_config(None, environ)
    except ConfigError as error:
        problems = error.problems
    assert all(problem.expected for problem in problems)


def test_names_of_configured_models_keep_their_case():
    assert load_config(None, {"INFERD_REPOSITORY__MODELS__Half_Two": "/m"}).repository.models == {"Half_Two": "/m"}
    assert load_config(None, {}, ["repository.models.Half=/m"]).repository.models == {"Half": "/m"}


def test_everything_overrides_the_defaults():
    defaults = {"repository.roots": []}
    assert load_config(defaults=defaults).repository.roots == ()
    assert load_config(None, {"INFERD_REPOSITORY__ROOTS": "a"}, defaults=defaults).repository.roots == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unix:", "expected a path after unix:, got 'unix:'"),
        ("localhost:", "expected HOST:PORT"),
        ("[a:1, {}]", "text"),
    ],
)
def test_text_that_yaml_reads_as_a_mapping_is_text_for_a_key_that_takes_none(text, message):
    assert message in errors(None, {}, [f"server.listen={text}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_message=2GiB", "grpc.max_message: expected at most 2147483647B, which is gRPC's own bound, got"),
        ("max_metadata=3GiB", "at most 2147483647B"),
        ("keepalive_time=1000h", "at most 2147483s"),
        ("keepalive_timeout=1000h", "at most 2147483s"),
        ("max_connection_age=1000h", "at most 2147483s"),
        ("max_connections=9999999999", "at most 2147483647"),
        ("max_streams_per_connection=9999999999", "at most 2147483647"),
    ],
)
def test_values_beyond_32_bits_are_refused_for_grpc(setting, message):
    assert message in errors(None, {}, [f"grpc.{setting}"])


def test_a_refused_item_is_reported_once():
    shown = errors(None, {}, ["models.m.version_policy={specific: [-1]}"])
    assert shown.count("expected") == 1, shown
    assert "specific[0]: expected greater than or equal to 0, got -1" in shown
