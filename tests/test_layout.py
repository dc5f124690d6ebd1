"""The ground stays as it was laid: one namespace in four pieces, generated code fresh, the client light."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIECES = ("proto", "server", "backends", "client")
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# The burst of a rate is a term of the field.
ALLOWED = {"server/inferd/server/config/access_schema.py": {"burst"}}


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


def sources(*pieces: str) -> list[Path]:
    return [p for piece in pieces for p in sorted((ROOT / piece).rglob("*.py")) if "_pb2" not in p.name]


def test_no_file_outgrows_its_room() -> None:
    files = sources(*PIECES)
    assert len(files) > 40
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 500}
    assert not long, f"more than one reason to change in a file? {long}"


def test_no_folder_hides_rooms() -> None:
    crowded = {
        str(folder.relative_to(ROOT)): n
        for folder, n in Counter(p.parent for p in sources("server", "backends", "client")).items()
        if n > 22
    }
    assert not crowded, f"rooms in these want a name of their own: {crowded}"


def test_a_class_of_the_server_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in sources("server"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(file.relative_to(ROOT)))
    assert len(places) > 200
    assert not {name: files for name, files in places.items() if len(files) > 1}


# Private words of the first edition. The field has a term for each of them.
RETIRED = {
    "lone",
    "burst",
    "bursts",
    "crowd",
    "company",
    "outlook",
    "stumbles",
    "speech",
    "tongue",
    "conductor",
    "intake",
    "wishes",
    "closer",
    "substitutes",
    "newcomers",
    "unwatched",
    "oversize",
    "rehearsal",
    "turnstile",
}


def test_names_are_the_terms_of_the_field() -> None:
    private = {}
    for file in sources(*PIECES):
        names = [file.stem, *(n.name for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, DEFINITIONS))]
        words = {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]+", name)}
        if found := words & RETIRED:
            private[str(file.relative_to(ROOT))] = found
    assert private == ALLOWED


def test_no_file_imports_itself_by_way_of_others() -> None:
    imports = {dotted(file): file for file in sources(*PIECES)}
    graph = {name: set(imported(file, imports.keys())) for name, file in imports.items()}
    assert sum(map(len, graph.values())) > 500
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"these files import each other: {' → '.join(error.args[1])}")


def dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, modules: Collection[str]) -> Iterator[str]:
    """Those of `modules` that a file imports when it runs: not those that only its type hints need."""
    tree = ast.parse(file.read_text())
    hints = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hints:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name in modules)
            if node.module in modules and not set(names) <= set(modules):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
