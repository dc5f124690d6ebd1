"""The commands `inferd compare` and `inferd optimise`, as a user types them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.digits_models import write_digits, write_sample
from support.server import INFERD


def inferd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(INFERD), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.timeout(300)
def test_the_commands_tell_it_in_tables_json_and_a_page(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_digits(repository / "digits" / "1" / "model.onnx")
    write_sample(tmp_path / "sample.npz")
    sample, where = ("--sample", tmp_path / "sample.npz"), ("-r", repository)
    done = inferd("optimise", "digits", *where, *sample, "--as", "int8", "--publish", "--report", tmp_path / "o.html")
    assert done.returncode == 0, done.stderr
    assert "int8 of digits:1" in done.stdout
    assert "passed" in done.stdout
    assert "<svg" in (tmp_path / "o.html").read_text()
    found = inferd("compare", "digits", 1, 2, *where, *sample, "--json", "--report", tmp_path / "c.html")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["versions"] == ["digits:1", "digits:2"]
    assert told["agreement"] > 0.99
    assert len(told["latency_ms"]["1"]) == 2
    assert told["bytes"][1] < told["bytes"][0]
    assert sorted(path.name for path in (repository / "digits").iterdir()) == ["1", "2"]
    wrong = inferd("compare", "digits", 1, 9, *where, *sample)
    assert (wrong.returncode, wrong.stderr) == (1, "inferd: there is no version 9 of digits; there are 1, 2\n")
