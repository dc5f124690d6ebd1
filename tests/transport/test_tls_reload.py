"""Certificates of the gRPC port are reloaded without a restart; unusable files leave the old ones in use."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import grpc
import pytest
from support.client import make_chain
from support.rpc import PREDICT, Served, refused, request

from inferd.server.access.file_watch import FileWatch
from inferd.server.access.tls import TlsFiles
from inferd.server.config.schema import ServerConfig, Tls


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """Two authorities, each with a server and a client."""
    return [make_chain(tmp_path_factory.mktemp("chain")) for _ in range(2)]


def put(chain: dict[str, Path], directory: Path) -> None:
    """The files in their places, each by a rename."""
    for name in ("server.pem", "server.key", "ca.pem"):
        shutil.copy(chain[name], directory / f"{name}.new")
        (directory / f"{name}.new").replace(directory / name)


def trusting(chain: dict[str, Path], *, shown: dict[str, Path] | None = None) -> grpc.ChannelCredentials:
    pair = (None, None) if shown is None else (shown["client.key"].read_bytes(), shown["client.pem"].read_bytes())
    return grpc.ssl_channel_credentials(chain["ca.pem"].read_bytes(), *pair)


def answers(server: Served, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a new connection is served. A connection that is not served fails before any call."""
    call = server.channel(credentials).unary_unary(PREDICT).future(request(), timeout=20)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return call.code() is grpc.StatusCode.OK


def test_a_new_certificate_serves_new_connections_on_every_address(serve, chains, tmp_path):
    put(chains[0], tmp_path)
    tls = TlsFiles(Tls(certificate=str(tmp_path / "server.pem"), key=str(tmp_path / "server.key")), "server.tls")
    files = FileWatch(3600)
    tls.watch(files)
    server = serve(config=ServerConfig(), tls=tls, addresses=["127.0.0.1:0", "127.0.0.1:0"])
    old = server.channel(trusting(chains[0])).unary_unary(PREDICT)
    old(request(), timeout=20)
    put(chains[1], tmp_path)
    files.look()
    for address in server.addresses:
        server.address = address
        assert answers(server, trusting(chains[1]))
        assert not answers(server, trusting(chains[0]))
    assert old(request(), timeout=20)  # its connection stands


def test_new_authorities_of_clients(serve, chains, tmp_path):
    put(chains[0], tmp_path)
    paths = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    tls = TlsFiles(Tls(**{key: str(tmp_path / name) for key, name in paths.items()}), "server.tls")
    files = FileWatch(3600)
    tls.watch(files)
    server = serve(config=ServerConfig(), tls=tls)
    assert answers(server, trusting(chains[0], shown=chains[0]))
    assert not answers(server, trusting(chains[0], shown=chains[1]))
    assert not answers(server, trusting(chains[0]))
    put(chains[1], tmp_path)
    files.look()
    assert answers(server, trusting(chains[1], shown=chains[1]))
    assert not answers(server, trusting(chains[1], shown=chains[0]))
    assert not answers(server, trusting(chains[1]))


@pytest.mark.parametrize("broken", ["server.pem", "server.key"])
def test_a_broken_file_leaves_what_was(serve, chains, tmp_path, broken: str, caplog):
    put(chains[0], tmp_path)
    tls = TlsFiles(Tls(certificate=str(tmp_path / "server.pem"), key=str(tmp_path / "server.key")), "server.tls")
    files = FileWatch(3600)
    tls.watch(files)
    server = serve(config=ServerConfig(), tls=tls)
    for content in (
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nrubbish\n",
        chains[1][broken].read_bytes(),
    ):
        (tmp_path / broken).write_bytes(content)
        files.look()
        assert answers(server, trusting(chains[0]))
    (tmp_path / broken).unlink()
    files.look()
    assert answers(server, trusting(chains[0]))
    assert caplog.messages.count("changed files are not taken over") == 4
    put(chains[1], tmp_path)  # and when they fit again they are taken
    files.look()
    assert answers(server, trusting(chains[1]))


def test_the_core_agrees_with_what_is_tried_beforehand(chains):
    """A key that belongs to another certificate is reported by the server's own check, before gRPC reads it."""
    chain = chains[0]
    with pytest.raises(OSError, match=r"server\.tls: key values mismatch"):
        TlsFiles(Tls(certificate=str(chain["server.pem"]), key=str(chain["client.key"])), "server.tls")
    made = TlsFiles(Tls(certificate=str(chain["server.pem"]), key=str(chain["server.key"])), "server.tls")
    assert made.server_context().minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_refused_stranger_leaves_the_server_as_it_was(serve, chains, tmp_path):
    put(chains[0], tmp_path)
    config = {"tls": {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}}
    server = serve(config=ServerConfig.model_validate({"server": config}))
    error = refused(lambda: server.channel().unary_unary(PREDICT)(request(), timeout=20))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert answers(server, trusting(chains[0]))
