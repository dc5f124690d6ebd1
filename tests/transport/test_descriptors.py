"""As many connections as the process may have descriptors for."""

from __future__ import annotations

import logging

import pytest

from inferd.server.config.schema import Grpc, Http, Server, ServerConfig
from inferd.server.transport import descriptors
from inferd.server.transport.descriptors import TooFewDescriptors, within_descriptors

CONFIG = ServerConfig(
    server=Server(listen=["127.0.0.1:1"], http=["127.0.0.1:2"]),
    grpc=Grpc(max_connections=3000),
    http=Http(connections=1000),
)


class Limits:
    """RLIMIT_NOFILE of the process."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = -1

    def __init__(self, soft: int, hard: int) -> None:
        self.soft, self.hard = soft, hard

    def getrlimit(self, _number: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, _number: int, limits: tuple[int, int]) -> None:
        self.soft, self.hard = limits


def test_the_limit_is_raised_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(1024, 1_000_000)
    monkeypatch.setattr(descriptors, "resource", limits)
    assert within_descriptors(CONFIG) is CONFIG
    assert limits.soft == 1_000_000


def test_connections_are_as_many_as_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(descriptors, "resource", Limits(512, 1200))
    with caplog.at_level(logging.WARNING):
        fitted = within_descriptors(CONFIG)
    assert 500 < fitted.grpc.max_connections + fitted.http.connections < 1200 - 192
    assert fitted.grpc.max_connections == pytest.approx(3 * fitted.http.connections, abs=4)
    assert "fewer connections than configured" in caplog.text


def test_too_few_descriptors_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "resource", Limits(32, 32))
    with pytest.raises(TooFewDescriptors, match="expected at least 1024 file descriptors, got a limit of 32"):
        within_descriptors(CONFIG)
