"""`--compat`: the default ports of other systems' clients."""

from __future__ import annotations

import argparse

import pytest

from inferd.server.cli.errors import CommandError
from inferd.server.cli.serve import add_configuration, configuration


def http(*flags: str) -> tuple[str, ...]:
    parser = argparse.ArgumentParser()
    add_configuration(parser)
    return configuration(parser.parse_args([*flags])).server.http


def test_ports_are_added_once_to_the_given_ones() -> None:
    assert http() == ("0.0.0.0:8000",)
    assert http("--compat", "triton") == ("0.0.0.0:8000", "0.0.0.0:8002")
    assert http("--compat", "triton,tfserving") == ("0.0.0.0:8000", "0.0.0.0:8002", "0.0.0.0:8501")
    assert http("--http", "127.0.0.1:9000", "--compat", "tfserving") == ("127.0.0.1:9000", "0.0.0.0:8501")


def test_an_unknown_system_is_named() -> None:
    with pytest.raises(CommandError, match="expected triton or tfserving, got 'torchserve'") as caught:
        http("--compat", "torchserve")
    assert caught.value.exit_code == 2
