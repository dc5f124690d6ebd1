"""Turning addresses and settings into gRPC's arguments. No connection is made."""

from __future__ import annotations

import json

import pytest

from inferd.client import InvalidInput, KeepAlive
from inferd.client._shared.channel import parse_address, plan_channel


def plan(address="localhost:1", **changes):
    settings = {
        "tls": None,
        "keepalive": KeepAlive(),
        "load_balancing": "round_robin",
        "health_check": False,
        "compression": None,
        "options": {},
    }
    return plan_channel(address, **(settings | changes))


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("localhost", "dns:///localhost:8001"),
        ("localhost:1", "dns:///localhost:1"),
        ("models.example:8500", "dns:///models.example:8500"),
        ("127.0.0.1:5", "ipv4:127.0.0.1:5"),
        ("127.0.0.1", "ipv4:127.0.0.1:8001"),
        ("[::1]:5", "ipv6:[::1]:5"),
        ("::1", "ipv6:[::1]:8001"),
        ("unix:/run/inferd.sock", "unix:/run/inferd.sock"),
        ("dns:///models:1", "dns:///models:1"),
        (["10.0.0.1:1", "10.0.0.2"], "ipv4:10.0.0.1:1,10.0.0.2:8001"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["[::1]:1", "[::2]:2"], "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_addresses(address, target):
    assert parse_address(address)[0] == target


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "empty"),
        ([], "empty"),
        ("a:1,,b:1", "empty part"),
        ("http://a:1", "is a URL"),
        ("grpc://a:1", "is a URL"),
        ("a:b", "not understood"),
        ("a:99999", "port 99999"),
        ("a:0", "port 0"),
        ("unix:/a,b:1", ""),
        (["unix:/a", "b:1"], "stand alone"),
        ("a b:1", "not understood"),
        (None, "is empty"),
        (b"a:1", "no text"),
        (["a:1", 5], "no text"),
        (["127.0.0.1:1", "[::1]:1"], "IPv4 or IPv6"),
        (["127.0.0.1:1", "no-such-host.invalid:1"], "'no-such-host.invalid' is unknown"),
    ],
)
def test_invalid_addresses_are_refused(address, told):
    if address == "unix:/a,b:1":
        assert parse_address(address)[0] == address  # a path may contain commas
        return
    with pytest.raises(InvalidInput, match=told):
        parse_address(address)


def test_answers_have_no_size_limit_and_options_override_the_defaults():
    options = dict(plan(options={"grpc.max_send_message_length": 7}).options)
    assert options["grpc.max_receive_message_length"] == -1
    assert options["grpc.max_send_message_length"] == 7


def test_the_default_keepalive_is_longer_than_servers_require():
    options = dict(plan().options)
    assert options["grpc.keepalive_time_ms"] > 300_000
    assert "grpc.keepalive_time_ms" not in dict(plan(keepalive=None).options)
    assert dict(plan(keepalive=KeepAlive(1.5, 2.0, True)).options)["grpc.keepalive_time_ms"] == 1500


def test_the_service_config_names_the_policy():
    config = json.loads(dict(plan(health_check=True).options)["grpc.service_config"])
    assert config == {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"load_balancing": "random"}, "'round_robin' or 'pick_first'"),
        ({"compression": "zip"}, "'gzip', 'deflate'"),
        ({"channels": 0}, "channels is 0; expected 1 or more"),
    ],
)
def test_wrong_settings_are_refused(wrong, told):
    with pytest.raises(InvalidInput, match=told):
        plan(**wrong)
