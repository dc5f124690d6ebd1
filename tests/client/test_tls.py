"""TLS and mutual TLS, with certificates that the tests make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.client import FakeServer, make_chain, rows

from inferd.client import DeadlineExceeded, InvalidInput, Tls, Unavailable


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_chain(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def secure(chain: dict[str, Path], mutual: bool) -> Iterator[FakeServer]:
    credentials = grpc.ssl_server_credentials(
        [(chain["server.key"].read_bytes(), chain["server.pem"].read_bytes())],
        root_certificates=chain["ca.pem"].read_bytes() if mutual else None,
        require_client_auth=mutual,
    )
    with FakeServer(credentials=credentials) as server:
        yield server


def test_a_trusted_server_answers(connect, secure: FakeServer, chain, mutual):
    own = {"cert": chain["client.pem"], "key": chain["client.key"]} if mutual else {}
    client = connect(secure.address, tls=Tls(ca=chain["ca.pem"], **own))
    assert client.predict("m", {"x": rows()}).version == 3


def test_pem_text_and_another_name_work_too(connect, secure: FakeServer, chain, mutual):
    own = (
        {name: chain[f"client.{end}"].read_bytes() for name, end in (("cert", "pem"), ("key", "key"))} if mutual else {}
    )
    tls = Tls(ca=chain["ca.pem"].read_bytes(), override_name="models.test", **own)
    assert connect(secure.address, tls=tls).predict("m", {"x": rows()}).version == 3


def test_a_token_is_sent_over_tls(connect, secure: FakeServer, chain, mutual):
    own = {"cert": chain["client.pem"], "key": chain["client.key"]} if mutual else {}
    tokens = iter(["one", "two"])
    client = connect(secure.address, tls=Tls(ca=chain["ca.pem"], **own), token=lambda: next(tokens))
    client.predict("m", {"x": rows()})
    client.predict("m", {"x": rows()})
    assert [sent["authorization"] for sent in secure.script.metadata] == ["Bearer one", "Bearer two"]


def test_nothing_is_sent_to_a_server_that_is_not_trusted(connect, secure: FakeServer, chain):
    wrong = [Tls(), Tls(ca=chain["ca.pem"], override_name="other.test")]
    for tls in wrong:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            connect(secure.address, tls=tls).predict("m", {"x": rows()}, timeout=5.0)
    with pytest.raises((Unavailable, DeadlineExceeded)):
        connect(secure.address).predict("m", {"x": rows()}, timeout=5.0)
    assert secure.script.requests == []


@pytest.mark.parametrize("mutual", [True], indirect=True)
def test_a_client_without_a_certificate_is_refused(connect, secure: FakeServer, chain):
    with pytest.raises((Unavailable, DeadlineExceeded)):
        connect(secure.address, tls=Tls(ca=chain["ca.pem"])).predict("m", {"x": rows()}, timeout=5.0)
    assert secure.script.requests == []


def test_certificate_and_key_belong_together():
    with pytest.raises(InvalidInput, match="belong together"):
        Tls(cert=b"pem")


def test_an_unreadable_file_is_named(connect, tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"Tls\.ca: cannot read .*nope.pem.*No such file"):
        connect("127.0.0.1:1", tls=Tls(ca=tmp_path / "nope.pem"))
