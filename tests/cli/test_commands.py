"""models, predict, load, unload, label, rollback: output, exit codes, and errors as one line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.client import Failure, FakeServer, Script, f32_signature, make_chain, rows

from inferd.v1 import tensor_pb2


def test_models_shows_states_reasons_and_overrides(inferd):
    done = inferd("models")
    assert done.code == 0
    head, first, second, *_ = done.out.splitlines()
    assert head.split() == ["MODEL", "VERSION", "STATE", "LABELS", "BACKEND", "DEVICES", "BATCHING", "ORIGIN", "REASON"]
    assert first.split("  ")[0] == "a"
    for part in ("3", "AVAILABLE", "stable", "onnx", "cpu", "up to 32 rows", "a note"):
        assert part in first
    assert "FAILED" in second
    assert "truncated file" in second
    assert "a: pinned 3 by op at" in done.out
    assert "in memory only" in done.out


def test_models_as_json(inferd):
    found = inferd("models", "--json", "--signatures").json
    assert [model["name"] for model in found] == ["a", "b"]
    version = found[0]["versions"][0]
    assert (version["state"], version["batching"], version["labels"]) == ("AVAILABLE", "up to 32 rows", ["stable"])
    assert found[0]["metadata"]["3"]["signatures"][0]["inputs"][0] == {
        "name": "x",
        "dtype": "FP32",
        "shape": [-1, 2],
        "optional": False,
    }


def test_one_model_and_its_signatures(inferd):
    done = inferd("models", "m", "--signatures")
    assert "m:3 serving_default" in done.out
    assert "in  x  FP32 [-1, 2]" in done.out


def test_watching_prints_a_line_for_every_change(inferd):
    done = inferd("models", "m", "--watch")
    assert [line.split()[-1] for line in done.out.splitlines()] == ["AVAILABLE", "file", "LOADING"]
    lines = [json.loads(line) for line in inferd("models", "m", "--watch", "--json").out.splitlines()]
    assert [(line["version"], line["state"], line["initial"]) for line in lines] == [
        (3, "AVAILABLE", True),
        (2, "FAILED", True),
        (4, "LOADING", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("load", "m"), "LoadModelRequest"),
        (("load", "m", "--version", "2"), "LoadModelRequest"),
        (("unload", "m"), "UnloadModelRequest"),
        (("label", "m", "canary", "2"), "SetLabelRequest"),
        (("label", "m", "canary", "--remove"), "SetLabelRequest"),
        (("rollback", "m"), "RollbackRequest"),
        (("rollback", "m", "--to", "2"), "RollbackRequest"),
    ],
)
def test_operators_requests_reach_the_server(inferd, script: Script, arguments, kind):
    done = inferd(*arguments)
    assert done.code == 0
    assert script.calls == [kind]
    assert "AVAILABLE" in done.out
    assert "in memory only" in done.err
    script.persistent = True
    again = inferd(*arguments, "--json")
    assert again.json["persistent"] is True
    assert again.json["model"]["versions"][0]["state"] == "AVAILABLE"


def test_a_label_needs_a_version_or_remove(inferd):
    for wrong in (("label", "m", "x"), ("label", "m", "x", "2", "--remove")):
        done = inferd(*wrong)
        assert (done.code, done.err.count("\n")) == (2, 1)


# -- predict


def test_predict_prints_the_outputs(inferd):
    done = inferd("predict", "m", "-i", "x=[[1, 2]]")
    assert done.code == 0
    assert done.out.splitlines() == ["m version 3, signature serving_default", "y  FP32 [1, 2]", "  [[1. 2.]]"]


def test_predict_as_json(inferd, script: Script):
    done = inferd(
        "predict", "m", "-i", "[[1, 2]]", "--json", "--version", "7", "--request-id", "r", "--priority", "2",
        "--queue-timeout", "0.5", "-o", "y", "--signature", "serving_default",
    )  # fmt: skip
    assert done.json == {
        "model": "m",
        "version": 7,
        "signature": "serving_default",
        "request_id": "r",
        "outputs": {"y": {"dtype": "FP32", "shape": [1, 2], "data": [[1.0, 2.0]]}},
    }
    (request,) = script.requests
    assert (request.priority, request.queue_timeout_us, list(request.outputs)) == (2, 500_000, ["y"])


def test_strings_are_sent_and_shown_as_json(inferd, script: Script):
    script.signatures = [f32_signature(dtype=tensor_pb2.DATA_TYPE_STRING)]
    assert inferd("predict", "m", "-i", "x=hello", "--json").json["outputs"]["y"]["data"] == "hello"
    assert inferd("predict", "m", "-i", 'x=["é"]', "--json").json["outputs"]["y"]["data"] == ["é"]
    assert "hello" in inferd("predict", "m", "-i", "hello").out


def test_inputs_are_read_from_files(inferd, tmp_path: Path):
    np.save(tmp_path / "x.npy", rows(2))
    np.savez(tmp_path / "both.npz", x=rows(2), z=rows(1))
    np.savez(tmp_path / "one.npz", whatever=rows(2))
    (tmp_path / "all.json").write_text('{"x": [[0, 1], [2, 3]]}')
    (tmp_path / "x.json").write_text("[[0, 1], [2, 3]]")
    for given in ("x=@x.npy", "x=@both.npz", "x=@one.npz", "@both.npz", "@all.json", "x=@x.json", "@x.npy"):
        name, sign, file = given.rpartition("@")
        done = inferd("predict", "m", "--json", "-i", f"{name}{sign}{tmp_path / file}")
        assert done.code == 0, (given, done.err)
        assert done.json["outputs"]["y"]["data"] == rows(2).tolist(), given


@pytest.mark.parametrize("suffix", ["npy", "npz", "json"])
def test_an_empty_file_is_an_error_without_traceback(inferd, tmp_path: Path, suffix: str):
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    for name in ("x=", ""):
        done = inferd("predict", "m", "-i", f"{name}@{tmp_path}/a.{suffix}")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"inferd: cannot read {tmp_path}/a.{suffix}: ")


def test_saved_outputs_can_be_loaded_without_pickle(inferd, tmp_path: Path):
    assert inferd("predict", "m", "-i", "x=[[1, 2]]", "--save", str(tmp_path / "out.npz")).code == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["y"], [[1, 2]])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([-1, 3, 4, 6], (1, 3, 4, 6)),
        ([-1, 4, 6, 3], (1, 4, 6, 3)),
        ([3, 4, 6], (3, 4, 6)),
        ([-1, 1, 4, 6], (1, 1, 4, 6)),
        ([-1, 3, -1, -1], (1, 3, 10, 12)),
        ([-1, 4, 6], (1, 4, 6)),
    ],
)
def test_images_take_layout_and_size_from_the_signature(inferd, script: Script, tmp_path: Path, shape, expected):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (12, 10), (255, 0, 51)).save(tmp_path / "a.png")
    signature = f32_signature()
    del signature.inputs[0].shape[:]
    signature.inputs[0].shape.extend(shape)
    script.signatures = [signature]
    done = inferd("predict", "m", "-i", f"@{tmp_path}/a.png", "--scale", "1/255", "--json")
    assert done.code == 0, done.err
    values = np.asarray(done.json["outputs"]["y"]["data"], np.float32)
    assert values.shape == expected
    if expected == (1, 3, 4, 6):
        np.testing.assert_allclose(values[0, :, 0, 0], [1.0, 0.0, 0.2], rtol=1e-6)


def test_image_options_override_the_signature(inferd, script: Script, tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (8, 8), 100).save(tmp_path / "a.jpg")
    script.signatures = [f32_signature(dtype=tensor_pb2.DATA_TYPE_UINT8)]
    unclear = inferd("predict", "m", "-i", f"@{tmp_path}/a.jpg")
    assert unclear.code == 2
    assert "give --layout" in unclear.err
    done = inferd("predict", "m", "-i", f"@{tmp_path}/a.jpg", "--layout", "NHWC", "--resize", "4x2", "--json")
    output = done.json["outputs"]["y"]
    assert (output["dtype"], output["shape"]) == ("UINT8", [1, 2, 4, 3])
    normed = inferd(
        "predict", "m", "-i", f"x=@{tmp_path}/a.jpg", "--layout", "CHW", "--mean", "50", "--std", "2,2,5", "--json"
    )
    assert {row[0][0] for row in normed.json["outputs"]["y"]["data"]} == {25, 10}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict", "m"), 2, "no --input"),
        (("predict", "m", "-i", "x=[1,"), 2, "no valid JSON"),
        (("predict", "m", "-i", "x=1", "-i", "x=2"), 2, "'x' is given twice"),
        (("predict", "m", "-i", "[1]", "-i", "[2]"), 2, "needs its name"),
        (("predict", "m", "-i", "x=@nope.npy"), 1, "cannot read nope.npy: No such file"),
        (("predict", "m", "-i", "x="), 2, "takes FP32, the list holds text"),
        (("predict", "m", "-i", ""), 2, "takes FP32, the list holds text"),
        (("predict", "m", "-i", "x=@a.tar"), 2, "expected a file that ends in"),
        (("predict", "m", "-i", "x=text"), 2, "takes FP32, the list holds text"),
        (("predict", "m", "-i", "x=[[1.0]]", "--save", "a.txt"), 2, "ends in .npz"),
        (("predict", "m", "-i", "x=" + "[" * 100_000), 2, "fewer levels of nesting"),
        (("predict", "m", "-i", "x=[[1e39, 1]]"), 2, "1e+39 does not fit into FP32"),
        (("bench", "m", "--shape", "x=-1,2"), 2, "expected NAME=SIZE,SIZE"),
        (("bench", "m", "--shape", "z=1,2"), 2, "the model has no such input, only x"),
        (("models", "--metadata", "two words=a"), 2, "a key is made of"),
        (("models", "missing"), 1, "NOT_FOUND: no model 'missing'"),
        (("models", "--tls-ca", "nope.pem"), 2, "cannot read 'nope.pem'"),
        (("models", "--tls-cert", "a"), 2, "belong together"),
        (("models", "--metadata", "novalue"), 2, "expected KEY=VALUE"),
        (("models", "--token-file", "nope"), 1, "cannot read nope"),
        (("models", "--timeout", "0"), 2, "no number of seconds"),
        (("nonsense",), 2, "unknown command"),
        (("load",), 2, "required: model"),
        (("unload", "m", "--outputs"), 2, "inferd: unload: unknown option --outputs"),
    ],
)
def test_every_error_is_one_line_with_its_exit_code(inferd, arguments, code, message):
    done = inferd(*arguments)
    assert done.code == code
    assert message in done.err
    assert done.out == ""
    if "usage:" not in done.err:
        assert done.err.startswith("inferd: ")
        assert done.err.count("\n") == 1


def test_the_version_is_printed(cli):
    from inferd.server import __version__

    done = cli("--version")
    assert (done.code, done.out) == (0, f"inferd {__version__}\n")


def test_the_schema_has_units_and_models(cli):
    schema = cli("config", "schema").json
    assert schema["properties"]["models"]["additionalProperties"] == {"$ref": "#/$defs/ModelConfig"}
    assert schema["$defs"]["Grpc"]["properties"]["max_message"]["default"] == "64MiB"
    model = cli("config", "schema", "--model").json
    assert model["properties"]["default_priority"]["default"] == 1
    assert model["$defs"]["Batching"]["properties"]["max_queue_delay"]["default"] == "0s"


def test_every_wrong_setting_has_a_line_of_its_own(cli, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("log: {level: loud}\nbatchin: {}\n")
    done = cli("config", "show", "--config", str(tmp_path / "config.yaml"), "--set", "server.workers=0")
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 3, done.err
    assert all(line.startswith("inferd: ") for line in lines)
    assert lines[0].startswith(f"inferd: {tmp_path}/config.yaml:") or "--set" in lines[0]


def test_a_refusal_of_the_server_is_one_line(inferd, script: Script):
    script.refuse = lambda request: Failure(grpc.StatusCode.INVALID_ARGUMENT, "expected [8, 8],\n  got [1, 2]")
    done = inferd("predict", "m", "-i", "x=[[1, 2]]")
    assert (done.code, done.err) == (1, "inferd: INVALID_ARGUMENT: model 'm': expected [8, 8], got [1, 2]\n")


def test_a_failed_connection_names_the_address(cli):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = cli("models", "-a", address, "--no-retries")
    assert done.code == 1
    assert done.err == f"inferd: no connection to {address}: connection refused\n"
    assert cli("models", "-a", "http://x:1").code == 2


def test_tls_and_tokens_are_read_from_files(cli, tmp_path: Path):
    chain = make_chain(tmp_path)
    (tmp_path / "token").write_text("secret\n")
    credentials = grpc.ssl_server_credentials([(chain["server.key"].read_bytes(), chain["server.pem"].read_bytes())])
    with FakeServer(credentials=credentials) as server:
        flags = ("-a", server.address, "--tls-ca", str(chain["ca.pem"]), "--tls-name", "models.test")
        done = cli("predict", "m", "-i", "[[1, 2]]", *flags, "--token-file", str(tmp_path / "token"))
        assert done.code == 0
        assert server.script.metadata[0]["authorization"] == "Bearer secret"


def test_short_tls_flags_and_the_token_file_variable_work(cli, tmp_path: Path, monkeypatch):
    chain = make_chain(tmp_path)
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("INFERD_TOKEN_FILE", str(tmp_path / "token"))
    credentials = grpc.ssl_server_credentials(
        [(chain["server.key"].read_bytes(), chain["server.pem"].read_bytes())], chain["ca.pem"].read_bytes(), True
    )
    with FakeServer(credentials=credentials) as server:
        own = ("--cert", str(chain["client.pem"]), "--key", str(chain["client.key"]))
        done = cli("predict", "m", "-i", "[[1, 2]]", "-a", server.address, "--ca", str(chain["ca.pem"]), *own)
        assert done.code == 0, done.err
        assert server.script.metadata[0]["authorization"] == "Bearer secret"


def test_a_token_is_not_sent_in_plain_text(cli, tmp_path: Path):
    (tmp_path / "token").write_text("canary-token\n")
    done = cli("models", "-a", "models.example:8001", "--token-file", str(tmp_path / "token"))
    assert done.code == 2
    assert "would travel in clear" in done.err
    assert "canary" not in done.err + done.out


def test_the_client_commands_need_the_base_install_only(server: FakeServer):
    program = f"""
import sys
for name in ("pydantic", "yaml", "rich", "PIL", "prometheus_client", "watchfiles", "grpc_health", "grpc_reflection"):
    sys.modules[name] = None
from inferd.server.cli.main import main
commands = (["predict", "m", "-i", "[[1, 2]]"], ["models"], ["bench", "m", "-n", "20"])
sys.exit(max(main([*command, "-a", "{server.address}"]) for command in commands))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[[1. 2.]]" in done.stdout
    assert "20 answered" in done.stdout


def test_images_without_pillow_say_what_to_install(inferd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    done = inferd("predict", "m", "-i", f"@{tmp_path}/a.png", "--layout", "NCHW")
    assert done.code == 1
    assert "pip install 'inferd[cli]'" in done.err


def test_an_image_that_would_fill_the_memory_is_refused(inferd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 100)
    done = inferd("predict", "m", "-i", f"x=@{tmp_path}/a.png", "--layout", "NCHW")
    assert done.code == 1
    assert "exceeds limit" in done.err


def test_a_closed_pipe_is_no_traceback(server: FakeServer):
    program = f"from inferd.server.cli.main import main; main(['models', '-a', '{server.address}'])"
    done = subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -c "{program}" | true'], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_on_a_terminal_tables_and_the_live_display_work(server: FakeServer):
    import os
    import pty

    pytest.importorskip("rich")

    def on_terminal(*arguments: str) -> tuple[int, str]:
        leader, follower = pty.openpty()
        environment = os.environ | {"COLUMNS": "160", "TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-m", "inferd.server.cli.main", *arguments, "-a", server.address],
            stdin=follower, stdout=follower, stderr=follower, env=environment,
        )  # fmt: skip
        os.close(follower)
        seen = bytearray()
        try:
            while chunk := os.read(leader, 65536):
                seen += chunk
        except OSError:  # on Linux: the other side has closed
            pass
        os.close(leader)
        return process.wait(30), seen.decode()

    code, seen = on_terminal("models")
    assert code == 0
    assert "up to 32 rows" in seen
    code, seen = on_terminal("bench", "m", "-n", "300")
    assert code == 0
    assert "requests/s" in seen
    assert "in flight" in seen
    assert "300 answered" in seen
