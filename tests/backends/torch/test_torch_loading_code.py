"""TorchScript that loops while it is loaded: in the server's own process it would stop everything."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.torch_models import X, open_model, outputs_of, script, served

from inferd.backends.api import LoadError
from inferd.backends.torch.archive_names import check_directory
from inferd.backends.torch.script_content import check_script, tokens_of
from inferd.backends.torch.script_loading import LoadingCode

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy


class Counting(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Counts without end in a function that `__setstate__` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def count(self, turns: int) -> int:
        while turns > 0:
            turns += 1
        return turns

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = self.count(state) > 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Restored(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Has a `__setstate__` without a loop, and a loop elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.by = 2
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> int:
        return self.by

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.by = state
        self.training = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.by):
            x = x + 1
        return x


def test_a_loop_at_load_needs_a_process_of_its_own(version: Path) -> None:
    script(version, Counting())
    with pytest.raises(LoadError, match=r"runs a loop while it is loaded \(in count.*set isolation: process"):
        open_model(version)
    data = (version / "model.pt").read_bytes()
    check_script(torch, data, "model.pt", (), isolated=True)


def test_loops_elsewhere_are_no_obstacle(version: Path) -> None:
    script(version, Restored())
    with served(version) as (_, instance):
        np.testing.assert_array_equal(outputs_of(instance, x=X)["output__0"], X + 2)


@pytest.mark.parametrize(
    ("code", "loop"),
    [
        ("class A:\n  def __setstate__(self, s):\n    while True:\n      pass\n", "__setstate__"),
        ("def f(x):\n  return [i for i in x]\ndef __setstate__(s):\n  _0 = f(s)\n", "f"),
        ("def f(x):\n  g(x)\ndef g(x):\n  for i in x: pass\ndef __setstate__(s):\n  f(s)\n", "g"),
        ("def forward(x):\n  while True: pass\ndef __setstate__(s):\n  self.a = s\n", ""),
        ("def __setstate__(s):\n  self.a = 'while'\n  # for\n", ""),
        ("def f(x):\n  while True: pass\n", ""),
        ("", ""),
    ],
)
def test_what_setstate_calls_is_followed(code: str, loop: str) -> None:
    loading = LoadingCode()
    loading.add(tokens_of("def other(x):\n  return x\n"))
    loading.add(tokens_of(code))
    assert loading.loop() == loop


def test_functions_of_all_files_are_followed() -> None:
    loading = LoadingCode()
    loading.add(tokens_of("def __setstate__(s):\n  __torch__.there.turn(s)\n"))
    loading.add(tokens_of("def turn(s):\n  while s: pass\n"))
    assert loading.loop() == "turn"


def test_a_directory_of_too_many_entries_is_not_read(tmp_path: Path) -> None:
    """A file of a few kilobytes may announce a directory of any size; one that holds it takes minutes to read."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/code/a.py", "")
    data = bytearray(file.getvalue())
    at = data.rfind(b"PK\5\6")
    data[at + 12 : at + 16] = struct.pack("<I", 2**27)
    with pytest.raises(LoadError, match=r"m.pt: the directory of the archive takes 134217728 bytes"):
        check_directory("m.pt", io.BytesIO(data))
    data[at + 12 : at + 16] = b"\xff" * 4
    wide = bytes(data[:at]) + b"PK\6\6" + bytes(36) + struct.pack("<QQ", 2**40, 0) + bytes(data[at:])
    with pytest.raises(LoadError, match="takes 1099511627776 bytes"):
        check_directory("m.pt", io.BytesIO(wide))
    check_directory("m.pt", file)
