"""Why there is no connection: what answers at each address, in words, with both clients and the command line."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.client import FakeServer, make_chain, rows

from inferd.client import NO_RETRIES, Tls, Unavailable
from inferd.client._shared.diagnosis import Diagnosis

ASK_FOR_TLS = "it speaks TLS, and this client does not: pass tls=Tls(...), on the command line --tls"
LEAVE_OUT_TLS = "it does not speak TLS, and this client does: leave out tls=Tls(...), on the command line --tls"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_chain(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def secure(chain: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    credentials = grpc.ssl_server_credentials(
        [(chain["server.key"].read_bytes(), chain["server.pem"].read_bytes())],
        root_certificates=chain["ca.pem"].read_bytes() if request.param else None,
        require_client_auth=request.param,
    )
    with FakeServer(credentials=credentials) as server:
        yield server


@contextlib.contextmanager
def other_server(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server of something else: it reads a little, says `answer` and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                opened, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), opened:
                opened.settimeout(30)
                with context.wrap_socket(opened, server_side=True) if context is not None else opened as end:
                    end.recv(10)
                    end.sendall(answer)
                    end.shutdown(socket.SHUT_WR)
                    end.recv(100_000)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(30)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def reason(client: object, **options: object) -> str:
    with pytest.raises(Unavailable) as caught:
        client.predict("m", {"x": rows()}, **options)  # type: ignore[attr-defined]
    assert caught.value.accepted is False
    return caught.value.message


def test_a_plain_client_of_a_tls_server(connect, secure: FakeServer) -> None:
    assert reason(connect(secure.address)) == f"no connection to {secure.address}: {ASK_FOR_TLS}"


def test_a_tls_client_of_a_plain_server(connect, server: FakeServer, chain: dict[str, Path]) -> None:
    found = reason(connect(server.address, tls=Tls(ca=chain["ca.pem"])))
    assert found == f"no connection to {server.address}: {LEAVE_OUT_TLS}"


@pytest.mark.parametrize(
    ("other_name", "words"),
    [("", "its certificate is not accepted: "), ("other.test", "not valid for 'other.test'")],
)
def test_a_certificate_that_is_not_accepted(
    connect, secure: FakeServer, chain: dict[str, Path], other_name: str, words: str
) -> None:
    tls = Tls(ca=chain["ca.pem"] if other_name else None, override_name=other_name)
    found = reason(connect(secure.address, tls=tls))
    assert words in found
    assert "--tls-ca and --tls-name" in found


@pytest.mark.parametrize("secure", [True], indirect=True)
def test_a_server_that_asks_for_a_certificate(secure: FakeServer, chain: dict[str, Path]) -> None:
    found = Diagnosis(f"ipv4:{secure.address}", Tls(ca=chain["ca.pem"])).text()
    assert "it asks for a client's certificate: Tls(cert=..., key=...)" in found


def test_every_address_is_named(connect, secure: FakeServer, nobody: str) -> None:
    found = reason(connect([nobody, secure.address]))
    assert found == (
        f"no connection to {nobody},{secure.address}: {nobody}: connection refused; {secure.address}: {ASK_FOR_TLS}"
    )


def test_something_else_at_the_address(connect) -> None:
    with other_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "it speaks no gRPC, but HTTP/1: is that the HTTP port?" in reason(connect(address))
    with other_server(b"SSH-2.0-OpenSSH_9.2\r\n") as address:
        assert "it speaks no gRPC: is that the port of something else?" in reason(connect(address))
        assert "it speaks no gRPC" in reason(connect(address, tls=Tls()))


def test_tls_without_http2(chain: dict[str, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain["server.pem"], chain["server.key"])
    with other_server(b"hello", context) as address:
        found = Diagnosis(f"ipv4:{address}", Tls(ca=chain["ca.pem"])).text()
    assert "it speaks TLS and no HTTP/2: is that a gRPC port?" in found


def test_names_and_paths_that_are_not_there(connect, tmp_path: Path) -> None:
    path = tmp_path / "no.sock"
    assert reason(connect(f"unix:{path}")) == f"no connection to unix:{path}: no such file or directory"
    unknown = connect("no-such-host.invalid:8001", retry=NO_RETRIES)
    assert "no connection to no-such-host.invalid:8001: the name is unknown" in reason(unknown)


@pytest.mark.parametrize("secure", [False], indirect=True)
def test_waiting_for_a_server_says_why_it_was_not_reached(connect, secure: FakeServer) -> None:
    with pytest.raises(TimeoutError, match=r"the server was not ready in time: no connection to .*it speaks TLS"):
        connect(secure.address).wait_ready(timeout=1.0)


def test_nothing_is_told_behind_a_proxy(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    assert Diagnosis(f"ipv4:{nobody}", None).text() == ""


def test_the_addresses_are_looked_at_once_in_a_while(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = Diagnosis(f"ipv4:{nobody}", None)
    first = diagnosis.text()
    assert "connection refused" in first
    monkeypatch.setattr(socket, "getaddrinfo", None)  # a second look would fail
    assert diagnosis.text() == first


def test_the_command_line_says_it_in_one_line(secure: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    from inferd.server.cli.main import main

    assert main(["models", "-a", secure.address, "--no-retries"]) == 1
    assert capsys.readouterr().err == f"inferd: no connection to {secure.address}: {ASK_FOR_TLS}\n"
