"""The ground stays as it was laid: one namespace in four pieces, generated code fresh, the client light."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIECES = ("proto", "server", "backends", "client")


def test_the_namespace_has_four_pieces_and_no_init() -> None:
    inferd = importlib.import_module("inferd")
    assert getattr(inferd, "__file__", None) is None, "an __init__.py in one inferd/ hides the other pieces"
    assert {Path(p) for p in inferd.__path__} >= {ROOT / piece / "inferd" for piece in PIECES}
    for piece in PIECES:
        assert not (ROOT / piece / "inferd" / "__init__.py").exists()
        assert not (ROOT / piece / "__init__.py").exists(), f"{piece}/ must not be importable itself"


@pytest.mark.parametrize(
    "package",
    [
        "inferd.v1",
        "inferd.oip.v1",
        "inferd.tfs.v1",
        "inferd.wire",
        "inferd.server",
        "inferd.backends",
        "inferd.client",
    ],
)
def test_every_piece_is_typed(package: str) -> None:
    module = importlib.import_module(package)
    assert (Path(next(iter(module.__path__))) / "py.typed").exists()


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    stamps = sorted(ROOT.glob(".venv-proto/.stamp-*"))
    if not stamps:
        pytest.fail("the pinned protoc is missing: run `make proto` (or `make test`, which sets it up)")
    done = subprocess.run(
        [ROOT / ".venv-proto" / "bin" / "python", ROOT / "tools" / "generate_stubs.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    generated = {p.relative_to(tmp_path) for p in tmp_path.rglob("*_pb2*")}
    committed = {
        p.relative_to(ROOT / "proto") for p in (ROOT / "proto").rglob("*_pb2*.py*") if "__pycache__" not in p.parts
    }
    assert generated == committed
    stale = [str(p) for p in generated if (tmp_path / p).read_bytes() != (ROOT / "proto" / p).read_bytes()]
    assert not stale, f"run `make proto`: {stale}"


def test_the_client_needs_numpy_grpc_and_protobuf_only() -> None:
    code = (
        "import sys, inferd.client\n"
        "heavy = {'torch', 'tensorflow', 'onnxruntime', 'pydantic', 'yaml', 'prometheus_client', 'ml_dtypes', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith('inferd.server')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[] []"


def test_no_file_outgrows_its_room() -> None:
    sources = [p for piece in PIECES for p in (ROOT / piece).rglob("*.py") if "_pb2" not in p.name]
    assert len(sources) > 40
    long = {str(p.relative_to(ROOT)): n for p in sources if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"split these, one concept a file: {long}"
