"""What is shown of a version's provenance is short and harmless, whatever the file holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from inferd.backends.files import FileRule
from inferd.server.cli.models import origin as in_few_words
from inferd.server.publishing.record import Provenance, git_of
from inferd.server.repository.provenance import origin_of, read_provenance


def write(version: Path, text: str | bytes) -> None:
    (version / ".inferd").mkdir(exist_ok=True)
    (version / ".inferd" / "provenance.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def read(version: Path):
    return read_provenance(version, FileRule(str(version)))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    made = Provenance(
        source={"kind": "mlflow", "uri": "models:/digits@champion", "run_id": "3b64"},
        git={"commit": "3f2c1ab8" * 5, "dirty": True},
        metrics={"accuracy": 0.97222},
        parity={"rows": 540, "agreeing": 540, "max_abs_diff": 4.2e-7},
        checked={"backend": "onnx"},
    )
    made.write(tmp_path)
    origin = origin_of(read(tmp_path))
    published = origin.pop("published")
    assert published.startswith("20")
    assert origin == {
        "commit": "3f2c1ab8" * 5,
        "dirty": "true",
        "source": "mlflow models:/digits@champion",
        "run": "3b64",
        "parity": "540 rows, largest difference 4.2e-07",
        "metric.accuracy": "0.9722",
    }
    assert in_few_words(origin) == "git 3f2c1ab* · mlflow models:/digits@champion · accuracy 0.9722"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '"text"',
        b"\xff\xfe",
        '{"git": 1, "source": [], "metrics": "x", "parity": {"rows": "x"}}',
    ],
)
def test_a_file_that_is_none_tells_nothing(tmp_path: Path, text: str | bytes) -> None:
    write(tmp_path, text)
    assert set(origin_of(read(tmp_path))) <= {"unchecked"}


def test_only_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".inferd").mkdir()
    os.mkfifo(tmp_path / ".inferd" / "provenance.json")
    assert read(tmp_path) == {}
    (tmp_path / ".inferd" / "provenance.json").unlink()
    (tmp_path / ".inferd" / "provenance.json").symlink_to("/etc/passwd")
    assert read(tmp_path) == {}
    (tmp_path / ".inferd" / "provenance.json").unlink()
    write(tmp_path, json.dumps({"forced": "x" * (1 << 20)}))
    assert read(tmp_path) == {}


def test_hostile_values_are_short_and_escaped(tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\u202e\ud800" + "x" * 100_000
    write(
        tmp_path,
        json.dumps(
            {
                "git": {"commit": hostile},
                "source": {"kind": hostile, "uri": hostile, "run_id": hostile},
                "metrics": {f"{hostile}{i}": 10**400 if i % 2 else hostile for i in range(1000)},
                "forced": hostile,
                "made_at": {"a": 1},
            }
        ),
    )
    origin = origin_of(read(tmp_path))
    assert "commit" not in origin
    assert len(origin) <= 24
    for key, value in origin.items():
        assert len(key) <= 60
        assert len(value) <= 120
        assert key.isprintable()
        assert value.isprintable()
        value.encode()
    assert len(in_few_words(origin)) < 200


def test_the_commit_of_the_code_is_told(tmp_path: Path) -> None:
    import subprocess

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, timeout=30)

    assert git_of(tmp_path) == {}
    git("init", "-q")
    (tmp_path / "train.py").write_text("")
    git("add", ".")
    git("commit", "-qm", "first")
    git("remote", "add", "origin", "https://user:secret@example.org/a.git")
    # A repository's own settings may name a program: it is not run.
    git("config", "core.fsmonitor", f"touch {tmp_path}/owned; false")
    found = git_of(tmp_path)
    assert found["dirty"] is False
    assert found["remote"] == "https://example.org/a.git"
    (tmp_path / "train.py").write_text("x = 1")
    assert git_of(tmp_path)["dirty"] is True
    assert not (tmp_path / "owned").exists()
