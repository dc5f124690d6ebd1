"""The client's tokens: read from a file, read again when it changes, never sent over a network without encryption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.client import FakeServer, rows

from inferd.client import AsyncClient, Client, InvalidInput, Tls
from inferd.client._shared.credentials import TokenFile, is_local

TOKEN = "canary-token-of-the-client"


def test_a_token_file_is_sent_and_read_again(connect, server: FakeServer, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("inferd.client._shared.credentials._PAUSE", 0.0)
    file = tmp_path / "token"
    file.write_text("one\n")
    client = connect(server.address, token_file=file)
    client.predict("m", {"x": rows()})
    (tmp_path / "new").write_text("two\n")
    (tmp_path / "new").replace(file)
    client.predict("m", {"x": rows()})
    file.unlink()
    client.predict("m", {"x": rows()})
    assert [sent["authorization"] for sent in server.script.metadata] == ["Bearer one", "Bearer two", "Bearer two"]


def test_the_token_file_is_checked_at_most_once_a_second(tmp_path: Path):
    file, now = tmp_path / "token", [0.0]
    file.write_text("one")
    token = TokenFile(file, clock=lambda: now[0])
    file.write_text("second")
    now[0] = 0.9
    assert token() == "one"
    now[0] = 1.0
    assert token() == "second"
    file.write_text("")  # the state while it is being written
    now[0] = 2.0
    assert token() == "second"
    file.write_text("third one's not a token")
    now[0] = 3.0
    assert token() == "second"
    file.write_text("fourth")
    now[0] = 4.0
    assert token() == "fourth"


@pytest.mark.parametrize("content", ["", " \n", "two words", "a\nb", "näh", b"\xff\xfe"])
def test_the_error_for_a_wrong_token_does_not_contain_it(tmp_path: Path, content: str | bytes):
    (tmp_path / "token").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match="token_file") as caught:
        Client("localhost:1", token_file=tmp_path / "token")
    assert "words" not in str(caught.value)
    with pytest.raises(InvalidInput, match="cannot read"):
        Client("localhost:1", token_file=tmp_path / "gone")


def test_token_and_token_file_exclude_each_other(tmp_path: Path):
    with pytest.raises(InvalidInput, match="both given"):
        Client("localhost:1", token=TOKEN, token_file=tmp_path)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("shown", [{"token": TOKEN}, {"metadata": {"authorization": f"Bearer {TOKEN}"}}])
def test_a_token_is_not_sent_unencrypted(kind: type, shown: dict[str, Any]):
    with pytest.raises(InvalidInput, match="would travel in clear") as caught:
        kind("models.example:8001", **shown)
    assert TOKEN not in str(caught.value)
    kind("models.example:8001", tls=Tls(), **shown)
    kind("models.example:8001", allow_plaintext_token=True, **shown)
    kind("127.0.0.1:8001", **shown)
    kind("models.example:8001")


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("unix:/run/s.sock", True),
        ("unix-abstract:x", True),
        ("ipv4:127.0.0.1:8001", True),
        ("ipv4:127.0.0.1:1,127.8.0.1:2", True),
        ("ipv6:[::1]:8001", True),
        ("ipv6:[::1]:1,[::1]:2", True),
        ("dns:///localhost:8001", True),
        ("dns:///LOCALHOST.:8001", True),
        ("dns:localhost:8001", True),
        ("dns://8.8.8.8/localhost:1", True),
        ("dns:///localhost.evil.example:1", False),
        ("dns:///127.evil.example:1", False),
        ("dns:///models:8001", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("ipv4:10.0.0.1:1", False),
        ("ipv6:[fe80::1]:1", False),
        ("xds:///localhost", False),
        ("vsock:1:2", False),
    ],
)
def test_local_addresses_are_recognised(target: str, local: bool):
    assert is_local(target) is local
