"""TLS of the HTTP port, with REST and without: certificates of server and client, certificates replaced while the
server runs, and slow handshakes."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.access import WatchedManager, settings
from support.client import make_chain
from support.rest import Rest, tensor
from support.security import Keys

from inferd.server.access.authority import Authority
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.rules import AccessRules
from inferd.server.access.tls import TlsFiles
from inferd.server.config.schema import Admin, Auth, Tls
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.server import HttpLimits, HttpServer

Chain = dict[str, Path]
INFER = json.dumps({"inputs": [tensor("x", [[1.0]])]})


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> list[Chain]:
    return [make_chain(tmp_path_factory.mktemp("chain")) for _ in range(2)]


def put(chain: Chain, directory: Path) -> None:
    for name in ("server.pem", "server.key", "ca.pem"):
        shutil.copy(chain[name], directory / f"{name}.new")
        (directory / f"{name}.new").replace(directory / name)


def section(directory: Path, *, mutual: bool = False) -> dict[str, str]:
    found = {"certificate": str(directory / "server.pem"), "key": str(directory / "server.key")}
    return found | ({"client_ca": str(directory / "ca.pem")} if mutual else {})


def ask(address: str, trusted: Chain, path: str, body: str | None = None, shown: Chain | None = None) -> Any:
    """Status and body of a request over TLS. Raises the connection's errors."""
    context = ssl.create_default_context(cafile=trusted["ca.pem"])
    if shown is not None:
        context.load_cert_chain(shown["client.pem"], shown["client.key"])
    connection = http.client.HTTPSConnection(address, timeout=20, context=context)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


Start = Callable[..., tuple[str, TlsFiles]]


@pytest.fixture(params=["rest", "pages"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts the server with REST, or the one without; returns its address and its TLS files."""
    running: list[Any] = []

    def begin(directory: Path, *, mutual: bool = False, limits: HttpLimits | None = None, **more: Any) -> Any:
        if request.param == "rest":
            rest = Rest(limits, http={"tls": section(directory, mutual=mutual)}, **more)
            rest.__enter__()
            running.append(rest.server)
            return rest.address, rest.tls
        tls = TlsFiles(Tls(**section(directory, mutual=mutual)), "http.tls")
        authority = Authority(Auth.model_validate(more["auth"])) if "auth" in more else None
        server = HttpServer(
            ["127.0.0.1:0"], lambda: b"m 1\n", lambda: ReadinessLike(True), limits=limits, tls=tls,
            rules=AccessRules(Admin(), authority),
        )  # fmt: skip
        running.append(server)
        return server.start()[0], tls

    yield begin
    for server in running:
        server.stop()


def test_https_serves_and_plain_http_does_not(start: Start, chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    address, _ = start(tmp_path)
    assert ask(address, chains[0], "/healthz")[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(address, chains[1], "/healthz")
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(4096)
    assert ask(address, chains[0], "/healthz")[0] == 200


def test_inference_works_over_https(chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    with Rest(http={"tls": section(tmp_path)}) as rest:
        status, body = ask(rest.address, chains[0], "/v2/models/digits/infer", INFER)
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [2.0])


def test_a_long_response_over_https(chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    with Rest(http={"tls": section(tmp_path)}) as rest:
        body = json.dumps({"inputs": [tensor("x", [[1.5] * 300_000])]})
        status, answer = ask(rest.address, chains[0], "/v2/models/digits/infer", body)
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [3.0] * 300_000)


def test_mutual_tls_refuses_clients_without_a_certificate(start: Start, chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    address, _ = start(tmp_path, mutual=True)
    assert ask(address, chains[0], "/healthz", shown=chains[0])[0] == 200
    for stranger in (None, chains[1]):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            ask(address, chains[0], "/healthz", shown=stranger)


def test_new_certificate_files_serve_new_connections(start: Start, chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    address, tls = start(tmp_path, mutual=True)
    files = FileWatch(3600)
    tls.watch(files)
    assert ask(address, chains[0], "/healthz", shown=chains[0])[0] == 200
    put(chains[1], tmp_path)
    files.look()
    assert ask(address, chains[1], "/healthz", shown=chains[1])[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(address, chains[1], "/healthz", shown=chains[0])
    (tmp_path / "server.pem").write_text("rubbish")
    files.look()
    assert ask(address, chains[1], "/healthz", shown=chains[1])[0] == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_is_not_resumed_after_its_client_ca_was_replaced(
    start: Start, chains: list[Chain], tmp_path: Path, version: ssl.TLSVersion
):
    """A client that resumes a session sends no certificate, so the session must not be accepted after the change."""
    put(chains[0], tmp_path)
    address, tls = start(tmp_path, mutual=True)
    files = FileWatch(3600)
    tls.watch(files)
    context = ssl.create_default_context(cafile=chains[0]["ca.pem"])
    context.load_cert_chain(chains[0]["client.pem"], chains[0]["client.key"])
    context.minimum_version = context.maximum_version = version

    def asked(session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession | None]:
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=20)
        with context.wrap_socket(plain, server_hostname=host, session=session) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return connection.recv(15) == b"HTTP/1.1 200 OK", connection.session

    there, session = asked()
    assert there
    assert session is not None
    shutil.copy(
        chains[1]["ca.pem"], tmp_path / "ca.pem"
    )  # the CA for client certificates; the server's own certificate stays
    files.look()
    try:
        assert not asked(session)[0]
    except (ssl.SSLError, ConnectionError):
        pass


def test_a_client_certificate_authenticates_its_name(start: Start, chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    auth = {"certificates": {"caller": {"scopes": ["metadata"]}}}
    address, _ = start(tmp_path, mutual=True, auth=auth)
    assert ask(address, chains[0], "/metrics", shown=chains[0])[0] == 200
    servers = {"client.pem": chains[0]["server.pem"], "client.key": chains[0]["server.key"]}
    assert ask(address, chains[0], "/metrics", shown=servers)[0] == 401


def test_a_client_certificate_has_its_scopes_over_rest(chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    config = settings(tmp_path, Keys(), http={"tls": section(tmp_path, mutual=True)})
    config["auth"]["certificates"] = {"caller": {"scopes": ["predict"], "models": ["digits"]}}
    with Rest(manager=WatchedManager(), **config) as rest:
        asked = {
            model: ask(rest.address, chains[0], f"/v2/models/{model}/infer", INFER, shown=chains[0])[0]
            for model in ("digits", "secret")
        }
        assert asked == {"digits": 200, "secret": 403}
        assert ask(rest.address, chains[0], "/v2/models/digits", shown=chains[0])[0] == 403


def test_a_handshake_over_the_time_limit_is_cut_off(start: Start, chains: list[Chain], tmp_path: Path):
    put(chains[0], tmp_path)
    address, _ = start(tmp_path, limits=HttpLimits(head=0.3))
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20) as silent:
        assert silent.recv(1) == b""
