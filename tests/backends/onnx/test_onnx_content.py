"""The bytes of a large model are kept in a private file and are read back completely."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from inferd.backends.onnx import content as onnx_content
from inferd.backends.onnx.content import SPOOLED_FROM, ModelContent

PARTS = (b"model" * 10, {"w.bin": bytes(range(256)) * 8, "empty.bin": b"", "sub/v.bin": b"v"})


@pytest.fixture
def spooled_from_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_content, "SPOOLED_FROM", 1)


def test_a_small_model_stays_in_memory() -> None:
    content = ModelContent(*PARTS, nested=False)
    assert not content.spooled
    assert content.read() == PARTS
    assert content.read() == PARTS


def test_a_large_model_is_kept_in_an_unnamed_file(
    spooled_from_little: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(onnx_content, "_CHUNK", 100)
    content = ModelContent(*PARTS, nested=True)
    assert content.spooled
    assert content.nested
    assert list(tmp_path.iterdir()) == []
    assert content.read() == PARTS
    assert content.read() == PARTS
    assert open_below(tmp_path) == 1
    content.close()
    assert open_below(tmp_path) == 0


def open_below(folder: Path) -> int:
    """The number of this process's descriptors that refer to files of this folder, including unnamed files."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(entry).startswith(f"{folder}/")
    return found


def test_the_limit_is_the_sum_of_all_parts() -> None:
    half = bytes(SPOOLED_FROM // 2)
    content = ModelContent(half, {"w": half}, nested=False)
    assert content.spooled
    content.close()
    assert not ModelContent(half, {"w": half[1:]}, nested=False).spooled


@pytest.mark.parametrize("broken", ["no folder", "full disk"])
def test_without_a_writable_disk_the_model_stays_in_memory(
    spooled_from_little: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    if broken == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    else:
        full: Any = lambda **_: open("/dev/full", "w+b", buffering=0)  # noqa: E731, SIM115
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    content = ModelContent(*PARTS, nested=False)
    assert not content.spooled
    assert content.read() == PARTS


@pytest.mark.parametrize("size", [1, SPOOLED_FROM])
def test_a_closed_content_cannot_be_read(size: int) -> None:
    content = ModelContent(bytes(size), {}, nested=False)
    content.close()
    content.close()
    with pytest.raises(ValueError, match="closed"):
        content.read()
