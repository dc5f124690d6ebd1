"""A real server that requires credentials over TLS, set up as in docs/security.md. No secret appears in any output."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.client import make_chain
from support.marked import prepare_model, publish
from support.security import AUDIENCE, ISSUER, SECRET, Keys, entry, write_tokens
from support.server import FAST, INFERD, Served
from support.waiting import eventually

from inferd.client import Client, NotFound, PermissionDenied, Tls, Unauthenticated

CANARY = "canary-9f8b7c6d5e4f3a2b1c0d"
ONE = {"x": np.ones((1, 4), np.float32)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    publish("onnx", prepare_model("onnx", root, "m"), 1, marker=1)
    return root


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [str(INFERD), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


def fetch(url: str, ca: Path, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl.create_default_context(cafile=ca)
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20, context=context
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.timeout(300)  # six processes, one after the other
def test_tokens_over_tls_from_setup_to_rotation_without_a_leaked_secret(models: Path, tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    keys = Keys()
    tokens, jwks, log = tmp_path / "tokens.yaml", tmp_path / "jwks.json", tmp_path / "audit.log"
    operator, old = f"{CANARY}-operator", f"{CANARY}-old"
    write_tokens(tokens, {"operator": entry(operator, ["admin"]), "app": entry(old, ["predict"], ["m"])})
    keys.write(jwks)
    pair = f"{{certificate: {chain['server.pem']}, key: {chain['server.key']}}}"
    sets = (
        *FAST,
        f"auth={{tokens_file: {tokens}, poll: 100ms}}",
        f"auth.jwt={{jwks_file: {jwks}, issuer: {ISSUER}, audience: {AUDIENCE}}}",
        f"server.tls={pair}",
        f"http.tls={pair}",
        "server.metrics=127.0.0.1:0",
        "admin.allow=authenticated",
        f"log={{file: {log}, format: json, level: debug}}",
    )  # fmt: skip
    said: list[str] = []
    with Served(models, sets=sets) as server:
        tls = Tls(ca=chain["ca.pem"])
        with Client(server.address, tls=tls, token=old) as client:
            assert client.predict("m", ONE)["y"].tolist() == [[2.0] * 4]
            for call in (lambda: client.load("m"), lambda: client.metadata("m"), lambda: client.predict("other", ONE)):
                with pytest.raises(PermissionDenied) as denied:
                    call()
                said.append(str(denied.value))
        for bad in (None, f"{CANARY}-unknown", keys.token(exp=1000), keys.token("es", aud="x")):
            with Client(server.address, tls=tls, token=bad) as client, pytest.raises(Unauthenticated) as refused:
                client.predict("m", ONE)
            said.append(str(refused.value))
        signed = keys.token("rs", scope="predict", models=["m"])
        with Client(server.address, tls=tls, token=signed) as client:
            assert client.predict("m", ONE)

        file = tmp_path / "operator.token"
        file.write_text(operator)
        own = ("-a", server.address, "--ca", str(chain["ca.pem"]))
        done = run("load", "m", *own, INFERD_TOKEN_FILE=str(file))
        assert done.returncode == 0, done.stderr
        said += [done.stdout, done.stderr]
        done = run("unload", "m", *own)
        assert done.returncode == 1
        assert "UNAUTHENTICATED" in done.stderr
        with Client(server.address, tls=tls, token_file=file) as client, pytest.raises(NotFound):
            client.load("no-such-model")

        rest = f"https://{server.http}"
        assert fetch(f"{rest}/healthz", chain["ca.pem"])[0] == 200
        for path in ("/metrics", "/v2", "/docs"):
            status, body = fetch(rest + path, chain["ca.pem"])
            assert status == 401
            said.append(body)
            assert fetch(rest + path, chain["ca.pem"], operator)[0] == 200
        alone = server.ready_line.partition("metrics ")[2].partition(";")[0]
        with urllib.request.urlopen(f"http://{alone}/metrics", timeout=20) as answer:
            page = answer.read().decode()
        assert 'code="UNAUTHENTICATED"' in page
        said.append(page)

        write_tokens(tokens, {"operator": entry(operator, ["admin"]), "app": entry(f"{CANARY}-new", ["predict"])})
        with Client(server.address, tls=tls, token=f"{CANARY}-new") as client:
            eventually(lambda: _works(client), "the new token counts")
        with Client(server.address, tls=tls, token=old) as client, pytest.raises(Unauthenticated):
            client.predict("m", ONE)
        tokens.write_text(f"app: {{sha256: {CANARY}-put-in-the-wrong-place}}\n")
        eventually(lambda: "not taken over" in log.read_text(), "the broken file is told", log.read_text)
        said += [server.ready_line, server.tail(100_000)]

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    audit = [
        (line["who"], line["model"], line["outcome"])
        for line in lines
        if line["logger"] == "inferd.audit" and "who" in line
    ]
    assert audit == [
        ("app", "m", "PERMISSION_DENIED"),
        ("operator", "m", "OK"),
        ("operator", "no-such-model", "NOT_FOUND"),
    ]
    for check in (("check",), ("config", "show")):
        done = run(*check, "--model-repository", str(models), *(part for item in sets for part in ("--set", item)))
        said += [done.stdout, done.stderr]
        assert done.returncode == (2 if check == ("check",) else 0), done.stderr
    assert "expected the SHA-256 of the token" in said[-4 + 1]
    secrets = [CANARY, SECRET.decode(), keys.public["hs"]["k"], signed, signed.split(".")[2]]
    everything = "\n".join([*said, log.read_text()])
    assert len(everything) > 10_000
    assert [secret for secret in secrets if secret in everything] == []


def _works(client: Client) -> bool:
    try:
        client.predict("m", ONE)
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize(
    ("command", "settings", "told"),
    [
        (
            "check",
            ("auth.tokens_file=gone.yaml", "auth.jwt={jwks_file: gone.json, issuer: i, audience: a}"),
            ("gone.yaml: expected a readable file", "gone.json: expected a readable file"),
        ),
        ("serve", ("auth.tokens_file=gone.yaml",), ("gone.yaml: expected a readable file",)),
        ("serve", ("http.tls={certificate: gone.pem, key: gone.key}",), ("http.tls.key: cannot read gone.key",)),
    ],
)
def test_unusable_credential_files_are_reported_before_serving(
    models: Path, command: str, settings: tuple[str, ...], told: tuple[str, ...]
) -> None:
    listen = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0") if command == "serve" else ()
    sets = [part for setting in settings for part in ("--set", setting)]
    done = run(command, "--model-repository", str(models), *listen, *sets)
    assert done.returncode in (1, 2)
    assert [text for text in told if text not in done.stderr] == []
    assert "Traceback" not in done.stderr


def test_no_error_names_models_that_the_caller_may_not_see(models: Path, tmp_path: Path) -> None:
    """Errors for a name that matches the caller's patterns, but does not exist, do not reveal the other models."""
    publish("onnx", prepare_model("onnx", models, "secret"), 1, marker=1)
    tokens = write_tokens(tmp_path / "tokens.yaml", {"app": entry("app", ["predict", "metadata", "admin"], ["m*"])})
    said: list[str] = []
    with Served(models, sets=(*FAST, f"auth.tokens_file={tokens}")) as server:
        with Client(server.address, token="app") as client:
            for call in (
                lambda: client.predict("m2", ONE),
                lambda: client.status("m2"),
                lambda: client.metadata("m2"),
                lambda: client.load("m2"),
                lambda: client.rollback("m2"),
            ):
                with pytest.raises(NotFound) as refused:
                    call()
                said.append(str(refused.value))
        infer = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
        for path, body in (
            ("/v2/models/m2", None),
            ("/v1/models/m2", None),
            ("/v1/models/m2/metadata", None),
            ("/v2/models/m2/infer", infer.encode()),
            ("/v1/models/m2:predict", b'{"instances": [[1, 2, 3, 4]]}'),
        ):
            url = f"http://{server.http}{path}"
            asked = urllib.request.Request(url, body, {"Authorization": "Bearer app"})
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(asked, timeout=20)
            said.append(error.value.read().decode())
            error.value.close()
    assert all("m2" in words for words in said)
    assert "secret" not in str(said)
