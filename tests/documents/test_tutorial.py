"""Every command and every program of the tutorial, in its order, against the server that it starts."""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import urllib.request
from pathlib import Path

import pytest
from support.documents import ROOT, blocks
from support.server import INFERD, Served

PAGE = "docs/tutorial.md"


def run(command: str, work: Path, server: Served | None) -> str:
    """Runs one command of the page in `work`, and returns what it prints."""
    words = shlex.split(command, comments=True)
    if words[0] == "mkdir":
        subprocess.run(words, cwd=work, check=True)
        return ""
    if words[0] == "curl":
        assert server is not None
        with urllib.request.urlopen(words[1].replace("localhost:8000", server.http), timeout=30) as answer:
            return answer.read().decode()
    assert words[0] == "inferd", command
    if server is not None:
        words += ["--address", server.address]
    done = subprocess.run([INFERD, *words[1:]], cwd=work, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.timeout(400)
def test_the_tutorial(tmp_path: Path) -> None:
    for name in ("model_repository", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    found = [block for block in blocks(PAGE) if not block.reason]
    start = next(number for number, block in enumerate(found) if "inferd serve" in block.text)
    for block in found[:start]:
        for command in block.commands():
            run(command, tmp_path, None)
    assert (tmp_path / "models" / "digits" / "1" / "model.onnx").is_file()
    said: dict[str, str] = {}
    with Served(tmp_path / "models") as server, contextlib.chdir(tmp_path):
        for block in found[start + 1 :]:
            if block.language == "python":
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(block.text.replace("localhost:8001", server.address), PAGE, "exec"), {})
                assert "[0] from version 1" in printed.getvalue()
            for command in block.commands():
                said[command] = run(command, tmp_path, server)
    predicted = [text for command, text in said.items() if command.startswith("inferd predict")]
    assert len(predicted) == 2
    assert all("[0]" in text for text in predicted)
    assert "digits version 1" in predicted[1], "label stable"
    assert "AVAILABLE" in said["curl http://localhost:8000/v1/models/digits"]
    assert "inferd_requests_total" in said["curl http://localhost:8000/metrics"]
