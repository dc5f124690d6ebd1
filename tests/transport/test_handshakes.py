"""Connections that say nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.client import make_chain
from support.http2 import RawClient
from support.rpc import PREDICT, request

from inferd.server.config.schema import Server, ServerConfig, Tls
from inferd.server.transport import listen


def test_a_silent_handshake_is_cut_off(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HANDSHAKE", 0.5)
    chain = make_chain(tmp_path)
    tls = Tls(certificate=str(chain["server.pem"]), key=str(chain["server.key"]))
    server = serve(config=ServerConfig(server=Server(tls=tls)))
    for start in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
            silent.sendall(start)
            try:
                assert silent.recv(1) == b""
            except ConnectionResetError:
                pass


def test_a_connection_without_a_preface_is_cut_off(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HANDSHAKE", 0.5)
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
        while silent.recv(4096):  # the server's settings come first
            pass
    assert server.predict()


def test_an_idle_connection_is_ended_and_a_client_connects_anew(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE", 0.5)
    server = serve()
    call = server.channel().unary_unary(PREDICT)
    assert call(request(), timeout=30)
    with RawClient(server.port) as idle:
        while not idle.closed:  # its pings are answered, and do not count
            idle.read(60)
    assert call(request(), timeout=30, wait_for_ready=True)
