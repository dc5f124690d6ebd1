"""The command line in this process, against a scriptable server on a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.client import FakeServer, Script

from inferd.server.cli.main import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def script(server: FakeServer) -> Script:
    return server.script


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        try:
            code = main(arguments)
        except SystemExit as error:  # argparse ends the process itself
            code = int(error.code or 0)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err + printed.out
        return Ran(code, printed.out, printed.err)

    return run


@pytest.fixture
def inferd(cli: Callable[..., Ran], server: FakeServer) -> Callable[..., Ran]:
    """The command line against the scriptable server."""
    return lambda *arguments: cli(*arguments, "--address", server.address)
