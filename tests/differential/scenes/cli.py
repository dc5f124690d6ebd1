"""The command line: help, settings, checks, and every command against the side's own server."""

from __future__ import annotations

from functools import partial

from differential import models
from differential.commands import Commands, file
from differential.scene import Notes

_COMMANDS = (
    "serve", "check", "config", "models", "predict", "load", "unload", "label", "rollback", "publish", "bench",
)  # fmt: skip
_SETTINGS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "one": ("--set", "batching.max_batch_size=8"),
    "several": ("--set", "queue.timeout=250ms", "--set", "grpc.max_message=1GiB", "--set", "models.m.labels={a: 1}"),
    "later wins": ("--set", "log.level=debug", "--set", "log.level=error"),
    "quoted": ("--set", 'models."a.b".stateful=true'),
    "flags": ("--model-repository", "here", "--listen", "127.0.0.1:1", "--http", "127.0.0.1:2", "--state-dir", "s"),
    "compat": ("--compat", "triton,tfserving"),
    "compat that there is not": ("--compat", "torchserve"),
    "tensorflow's flags": ("--port", "8500", "--rest_api_port", "8501", "--model_base_path", "/m", "--model_name", "m"),
    "tensorflow's batching": ("--enable_batching", "--batching_parameters_file", "nowhere.txt"),
    "tensorflow's other flags": ("--tensorflow_intra_op_parallelism", "2", "--enable_batching=false"),
    "unknown key": ("--set", "batching.max_batch_sise=8"),
    "unknown section": ("--set", "batchin.max_batch_size=8"),
    "wrong type": ("--set", "batching.max_batch_size=many"),
    "no unit": ("--set", "queue.timeout=5"),
    "wrong unit": ("--set", "queue.bytes=5 furlongs"),
    "negative": ("--set", "queue.requests=-1"),
    "no value": ("--set", "queue.requests"),
    "not yaml": ("--set", "queue.requests=[1"),
    "keys that disagree": ("--set", "batching.preferred_batch_size=64"),
    "many wrong": ("--set", "queue.requests=x", "--set", "log.level=loud", "--set", "nothing=1"),
    "no such file": ("--config", "nowhere.yaml"),
    "unknown flag": ("--nothing",),
    "authenticated without auth": ("--set", "admin.allow=authenticated"),
    "secrets": ("--set", "auth.tokens_file=t.yaml", "--set", "auth.jwt={jwks_file: k, issuer: i, audience: a}"),
}  # fmt: skip
_FILES = {
    "good": "batching: {max_batch_size: 4}\nlog: {level: warning}\nmodels:\n  digits: {labels: {stable: 2}}\n",
    "empty": "",
    "unknown key": "batching:\n  max_batch_size: 4\n  max_batch_sise: 4\n",
    "twice": "log: {level: info}\nlog: {level: error}\n",
    "no yaml": "log: [\n",
    "a list": "- log\n",
    "wrong values": "queue:\n  requests: 0\n  bytes: 1\n  timeout: soon\n",
    "yes and no": "queue: {fair: yes}\n",
    "anchors": "queue: &q {requests: 7}\nmodels: {m: {queue: *q}}\n",
    "not utf-8": "log: {level: \udcff}\n",
}
_VARIABLES = {
    "one": {"INFERD_LOG__LEVEL": "debug"},
    "a section": {"INFERD_LOG": "{level: error, format: json}"},
    "a model": {"INFERD_MODELS__digits__BATCHING__MAX_BATCH_SIZE": "8"},
    "unknown": {"INFERD_LOG__LEVLE": "debug"},
    "left alone": {"INFERD_PORT": "tcp://10.0.0.1"},
    "wrong": {"INFERD_QUEUE__REQUESTS": "many"},
}


def play_settings(notes: Notes) -> None:
    """Help, schemas, and the settings that result from flags, variables and files."""
    place = notes.side.place
    with Commands(notes.side) as commands:
        run = partial(commands.run, times=False)
        for command in ((), ("--help",), ("--version",), *((each, "--help") for each in _COMMANDS)):
            notes.see(" ".join(command) or "no command", run(*command))
        for words in (
            ("config", "schema"),
            ("config", "schema", "--model"),
            ("config", "schema", "--help"),
            ("config", "show", "--help"),
            ("config",),
            ("nothing",),
            ("models", "--nothing"),
            ("label", "m"),
            ("label", "m", "l"),
            ("predict",),
            ("rollback", "m", "--to", "x"),
        ):
            notes.see(" ".join(words), run(*words))
        for name, flags in _SETTINGS.items():
            notes.see(f"show: {name}", run("config", "show", *flags))
        for name, text in _FILES.items():
            path = place / "settings.yaml"
            path.write_text(text, errors="surrogateescape")
            notes.see(f"show: file {name}", run("config", "show", "--config", str(path)))
        for name, variables in _VARIABLES.items():
            notes.see(f"show: variable {name}", run("config", "show", env=variables))
        over = file(place, "settings.yaml", _FILES["good"])
        answer = run(
            "config",
            "show",
            "--config",
            over,
            "--set",
            "log.level=error",
            env={"INFERD_BATCHING__MAX_BATCH_SIZE": "16"},
        )
        notes.see("show: all together", answer)


def play_checks(notes: Notes) -> None:
    """`inferd check` on right and wrong repositories, config.pbtxt and models.config included."""
    place = notes.side.place
    with Commands(notes.side) as commands:
        for name, flags in {"all": (), "json": ("--json",), "wrong settings": ("--set", "queue.requests=x")}.items():
            notes.see(name, commands.run("check", "--model-repository", str(notes.side.repository), *flags))
        notes.see("nowhere", commands.run("check", "--model-repository", str(place / "nowhere")))
        signature = models.signature([models.X], [models.Y])
        for name, text in _PBTXT.items():
            root = place / f"pbtxt-{name}"
            models.steps(root / "m", 1, signature)
            (root / "m" / "config.pbtxt").write_text(text)
            notes.see(f"config.pbtxt: {name}", commands.run("check", "--model-repository", str(root)))
        for name, text in _MODEL_YAML.items():
            root = place / f"yaml-{name}"
            models.steps(root / "m", 1, signature, yaml=text)
            notes.see(f"model.yaml: {name}", commands.run("check", "--model-repository", str(root)))
        for name, text in _MODELS_CONFIG.items():
            path = file(place, f"models-{name}.config", text.replace("PLACE", str(notes.side.repository)))
            notes.see(f"models.config: {name}", commands.run("check", "--model_config_file", path))


_PBTXT = {
    "plain": 'backend: "steps"\nmax_batch_size: 16\n',
    "dynamic": 'backend: "steps"\nmax_batch_size: 16\ndynamic_batching { preferred_batch_size: [4, 8] }\n',
    "dims": 'max_batch_size: 8\ninput [ { name: "x" data_type: TYPE_FP32 dims: [4] } ]\n',
    "other-dims": 'max_batch_size: 8\ninput [ { name: "x" data_type: TYPE_FP32 dims: [5] } ]\n',
    "other-name": 'max_batch_size: 8\ninput [ { name: "w" data_type: TYPE_FP32 dims: [4] } ]\n',
    "policy": "version_policy { all {} }\ninstance_group [ { count: 2 kind: KIND_CPU } ]\n",
    "gpu": "instance_group [ { kind: KIND_GPU gpus: [0] } ]\n",
    "sequence": "sequence_batching { max_sequence_idle_microseconds: 5 }\n",
    "unknown": "nothing_of_the_kind: 3\n",
    "broken": 'name: "m\n',
    "other-model": 'name: "other"\n',
    "other-backend": 'backend: "python"\n',
}
_MODEL_YAML = {
    "good": "batching: {mode: trusted}\nlabels: {stable: 1}\n",
    "label-of-nothing": "labels: {stable: 9}\n",
    "specific": "version_policy: {specific: [1, 9]}\n",
    "two-policies": "version_policy: {all: true, latest: 2}\n",
    "signature": "signatures:\n  - inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]\n",
    "other-signature": "signatures:\n  - inputs: [{name: x, dtype: FP64, shape: [-1, 4]}]\n",
    "backend": "backend: torch\n",
    "unknown-backend": "backend: tortch\n",
    "stateful": "stateful: true\n",
    "warm-up": "warmup: {samples: [{inputs: {x: {dtype: FP32, shape: [1, 4]}}}]}\n",
    "wrong-warm-up": "warmup: {samples: [{inputs: {x: {dtype: FP32, shape: [1, 5]}}}]}\n",
    "padding": "batching: {padding: {x: [4, 8]}}\n",
}
_MODELS_CONFIG = {
    "good": 'model_config_list { config { name: "m" base_path: "PLACE/rows" model_platform: "tensorflow" } }\n',
    "labels": (
        'model_config_list { config { name: "m" base_path: "PLACE/rows" model_version_policy { all {} } '
        'version_labels { key: "stable" value: 1 } } }\n'
    ),
    "nowhere": 'model_config_list { config { name: "m" base_path: "PLACE/nobody" } }\n',
    "twice": 'model_config_list { config { name: "m" base_path: "/a" } config { name: "m" base_path: "/b" } }\n',
    "broken": "model_config_list {\n",
    "empty": "",
    "unknown": 'model_config_list { config { name: "m" base_path: "/a" nothing: 1 } }\n',
}


def play_remote(notes: Notes) -> None:
    """The commands that talk to a server."""
    side = notes.side
    x = "[[1, 2, 3, 4]]"
    at = ("-a", side.grpc)
    with Commands(side) as commands:
        for words in (
            ("models",), ("models", "--json"), ("models", "--signatures"), ("models", "--json", "--signatures"),
            ("models", "rows"), ("models", "rows", "--signatures", "--json"), ("models", "nobody"),
            ("models", "failing"),
            ("predict", "rows", "-i", x), ("predict", "rows", "-i", f"x={x}", "--json"),
            ("predict", "rows", "-i", x, "-o", "y", "--version", "1", "--request-id", "r", "--json"),
            ("predict", "rows", "-i", x, "--label", "stable"), ("predict", "several", "-i", x, "--signature", "other"),
            ("predict", "several", "-i", '["one"]', "--signature", "classes"), ("predict", "chain", "-i", x),
            ("predict", "scalar", "-i", f"x={x}", "-i", "factor=3"), ("predict", "scalar", "-i", f"x={x}"),
            ("predict", "rows"), ("predict", "rows", "-i", "[[1, 2]]"), ("predict", "rows", "-i", "w=[[1]]"),
            ("predict", "rows", "-i", "[[1"), ("predict", "rows", "-i", "@nowhere.json"),
            ("predict", "nobody", "-i", x),
            ("predict", "rows", "-i", x, "-o", "yy"), ("predict", "rows", "-i", x, "--label", "none"),
            ("predict", "rows", "-i", x, "--version", "9"), ("predict", "failing", "-i", x),
            ("predict", "rows", "-i", x, "--version", "1", "--label", "stable"),
            ("unload", "counting"), ("unload", "counting"), ("models", "counting"), ("load", "counting"),
            ("load", "nobody"), ("load", "failing"), ("load", "rows", "--version", "1", "--json"),
            ("label", "rows", "new", "2"), ("label", "rows", "new", "9"), ("label", "rows", "new", "--remove"),
            ("label", "rows", "new", "--remove"), ("rollback", "rows"), ("rollback", "rows", "--to", "9"),
            ("load", "rows"), ("rollback", "several"), ("models", "--json"),
        ):  # fmt: skip
            case = f"{len(notes.seen)}: {' '.join(words)}"
            notes.see(case, commands.run(*words, *at))
        notes.see("nobody there", commands.run("models", "-a", "127.0.0.1:1", "--no-retries", "--timeout", "5"))
        notes.see("no address", commands.run("models", "-a", "nonsense:x:y", "--no-retries", "--timeout", "5"))
        token = file(side.place, "token", "abc")
        notes.see("token", commands.run("models", "rows", "--token-file", token, *at))
        notes.see("no token", commands.run("models", "rows", "--token-file", "nowhere", *at))
        version = side.place / "new-version"
        version.mkdir()
        (version / "model.steps").write_text((side.repository / "counting" / "1" / "model.steps").read_text())
        for words in (
            ("publish", "counting", str(version), "-r", str(side.repository), "--version", "4", "--wait", *at),
            ("publish", "counting", str(version), "-r", str(side.repository), "--version", "4"),
            ("publish", "counting", str(side.place / "nowhere"), "-r", str(side.repository)),
            ("publish", "a/b", str(version), "-r", str(side.repository)),
            ("models", "counting", *at),
        ):
            notes.see(f"{len(notes.seen)}: {' '.join(words[:2])}", commands.run(*words))
