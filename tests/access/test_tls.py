"""TLS of the gRPC port, and admin calls from local and remote peers."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from support.client import make_chain
from support.rpc import PREDICT, Served, refused, request

from inferd.server.access.locality import local_address, readable
from inferd.server.config.schema import Admin, Server, ServerConfig, Tls
from inferd.v1 import model_service_pb2 as pb

SERVICE = "/inferd.v1.ModelService/"
ADMIN = {
    "LoadModel": pb.LoadModelRequest(name="digits"),
    "UnloadModel": pb.UnloadModelRequest(name="digits"),
    "SetLabel": pb.SetLabelRequest(name="digits", label="stable", version=1),
    "Rollback": pb.RollbackRequest(name="digits"),
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_chain(tmp_path_factory.mktemp("tls"))


def tls(chain: dict[str, Path], **kwargs: str) -> ServerConfig:
    settings = {"certificate": str(chain["server.pem"]), "key": str(chain["server.key"]), **kwargs}
    return ServerConfig(server=Server(tls=Tls(**settings)))


def trusting(chain: dict[str, Path], *, client: bool = False) -> grpc.ChannelCredentials:
    pair = (chain["client.key"].read_bytes(), chain["client.pem"].read_bytes()) if client else (None, None)
    return grpc.ssl_channel_credentials(chain["ca.pem"].read_bytes(), *pair)


def test_tls_serves_and_plain_text_does_not(serve, chain):
    server = serve(config=tls(chain))
    assert server.channel(trusting(chain)).unary_unary(PREDICT)(request(), timeout=30)
    error = refused(lambda: server.channel().unary_unary(PREDICT)(request(), timeout=30))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    stranger = grpc.ssl_channel_credentials()
    error = refused(lambda: server.channel(stranger).unary_unary(PREDICT)(request(), timeout=30))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert server.channel(trusting(chain)).unary_unary(PREDICT)(request(), timeout=30)


def test_mutual_tls_refuses_clients_without_a_certificate(serve, chain):
    server = serve(config=tls(chain, client_ca=str(chain["ca.pem"])))
    assert server.channel(trusting(chain, client=True)).unary_unary(PREDICT)(request(), timeout=30)
    error = refused(lambda: server.channel(trusting(chain)).unary_unary(PREDICT)(request(), timeout=30))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_an_unusable_tls_file_is_named(serve, chain, tmp_path, key: str):
    with pytest.raises(OSError, match=rf"server.tls.{key}: cannot read .*gone.pem: no such file"):
        serve(config=tls(chain, **{key: str(tmp_path / "gone.pem")}))
    (tmp_path / "odd.pem").write_text("hello")
    with pytest.raises(OSError, match=rf"server.tls.{key}: expected PEM"):
        serve(config=tls(chain, **{key: str(tmp_path / "odd.pem")}))


def test_a_key_of_another_certificate_is_an_error_at_start(serve, chain):
    with pytest.raises(OSError, match=r"server\.tls: key values mismatch"):
        serve(config=tls(chain, key=str(chain["client.key"])))


@pytest.mark.parametrize("method", ADMIN)
def test_admin_calls_are_for_local_peers(server: Served, method: str):
    call = server.channel().unary_unary(SERVICE + method)
    assert call(ADMIN[method].SerializeToString(), timeout=30)
    done = len(server.manager.asked)
    for key in (
        "x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto", "x-forwarded-host",
        "x-forwarded-client-cert", "x-envoy-attempt-count", "cf-connecting-ip", "true-client-ip", "origin",
        "sec-fetch-site",
    ):  # fmt: skip
        error = refused(lambda k=key: call(ADMIN[method].SerializeToString(), metadata=[(k, "127.0.0.1")], timeout=30))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "admin.allow" in error.details()
    # Refused before the message is decoded: the refusal reveals nothing about it.
    error = refused(lambda: call(b"\xff", metadata=[("via", "proxy")], timeout=30))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(server.manager.asked) == done


@pytest.mark.parametrize("method", ADMIN)
def test_admin_calls_may_be_opened_to_anyone(serve, method: str):
    server = serve(config=ServerConfig(admin=Admin(allow="anyone")))
    call = server.channel().unary_unary(SERVICE + method)
    assert call(ADMIN[method].SerializeToString(), metadata=[("via", "proxy")], timeout=30)


def test_admin_over_a_unix_socket(serve, tmp_path):
    server = serve(addresses=[f"unix:{tmp_path}/s.sock"])
    assert server.channel().unary_unary(SERVICE + "LoadModel")(ADMIN["LoadModel"].SerializeToString(), timeout=30)


def test_other_calls_are_open_to_remote_peers(server: Served):
    channel = server.channel()
    for method, message in {
        PREDICT: request(),
        f"{SERVICE}ListModels": b"",
        f"{SERVICE}GetModelStatus": pb.GetModelStatusRequest(name="digits").SerializeToString(),
        f"{SERVICE}GetModelMetadata": pb.GetModelMetadataRequest(name="digits").SerializeToString(),
        "/grpc.health.v1.Health/Check": b"",
    }.items():
        assert channel.unary_unary(method)(message, metadata=[("via", "proxy")], timeout=30)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:5000", True),
        ("ipv4:127.8.9.1:5000", True),
        ("ipv6:[::1]:5000", True),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:[::ffff:127.0.0.1]:5000", True),
        ("unix:/tmp/x.sock", True),
        ("unix:", True),
        ("unix-abstract:x", True),
        ("ipv4:10.0.0.1:5000", False),
        ("ipv4:128.127.0.1:5000", False),
        ("ipv6:[::2]:5000", False),
        ("ipv6:[fe80::1%25eth0]:5000", False),
        ("ipv6:[::ffff:10.0.0.1]:5000", False),
        ("ipv6:[127::1]:1", False),
        ("ipv4:127.evil.example:1", False),
        ("", False),
        ("vsock:127.0.0.1:1", False),
    ],
)
def test_local_addresses(peer: str, local: bool):
    assert local_address(peer) is local


def test_peers_are_shown_in_readable_form():
    assert readable("ipv6:%5B::1%5D:5000") == "ipv6:[::1]:5000"
    assert readable("ipv4:127.0.0.1:5000") == "ipv4:127.0.0.1:5000"
    assert readable("ipv6:%0A") == "ipv6:%0A", "nothing else is decoded: it could forge lines"
