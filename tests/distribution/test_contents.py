"""The wheel and the source archive are complete. `make dist` installs them for each extra, which takes downloads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from distribution.__main__ import EXTRAS
from distribution.build import IMPORT_ROOTS, ROOT, Built, build

ADDRESS = "https://forge.example/team/inferd"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"), {"INFERD_PROJECT_URL": ADDRESS})


def test_the_wheel_holds_every_file_of_the_four_folders(built: Built) -> None:
    files = {
        str(file.relative_to(ROOT / root))
        for root in IMPORT_ROOTS
        for file in (ROOT / root).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    held = built.in_wheel()
    assert files <= held
    added = {name for name in held - files if ".dist-info/" not in name}
    assert added == {"inferd/__init__.py", "inferd/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_the_source_archive_holds_what_it_takes_to_build_and_test(built: Built) -> None:
    held = built.in_sdist()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:  # a source archive is tested outside git
        tracked = ["README.md", "LICENSE", "docs/operations.md", "constraints/cpu.txt", "Makefile", "tests/conftest.py"]
    left_out = {name for name in tracked if (ROOT / name).is_file() and name not in held}
    assert {name for name in left_out if not name.startswith((".ci/", ".github/"))} == set()


def test_links_of_the_readme_lead_somewhere_outside_the_tree(built: Built) -> None:
    text = built.metadata()
    assert f"Project-URL: Source, {ADDRESS}" in text
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert f"{ADDRESS}/blob/v0.1.0/docs/operations.md" in targets
    assert all(target.startswith(("https://", "#")) for target in targets)


def test_without_an_address_links_become_text(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, 'tools/packaging'); from metadata import with_absolute_links as f\n"
    text = "see [the guide](docs/guide.md#a), [below](#b) and [x](https://y)\n```\n[a](b)\n```\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(f({text!r}, ''), end='')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "see the guide, [below](#b) and [x](https://y)\n```\n[a](b)\n```\n"


def test_what_is_installed_has_a_version_and_a_client_at_the_top(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys, inferd\n"
        "assert inferd.__file__.startswith(sys.argv[1]), inferd.__file__\n"
        "assert not [name for name in sys.modules if name.startswith('inferd.')]\n"
        "from inferd import AsyncClient, Client\n"
        "import inferd.client, inferd.server, inferd.v1.tensor_pb2\n"
        "assert Client is inferd.client.Client\n"
        "assert inferd.__version__ == inferd.server.__version__ == '0.1.0'\n"
        "assert {'Client', '__version__'} <= set(dir(inferd))\n"
        "assert inferd.server.__file__.startswith(sys.argv[1])\n"
        "try:\n    inferd.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "module 'inferd' has no attribute 'nothing'\n", done.stderr


def test_every_extra_is_tried_by_make_dist() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert set(EXTRAS) == extras - {"onnx-gpu"} | {"client"}
    named = re.findall(r"^EXTRAS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named == [" ".join(EXTRAS)]


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import inferd.server.app
from inferd.server.cli.main import build_parser
build_parser()
"""


def test_a_server_needs_nothing_that_only_other_extras_bring() -> None:
    """As `pip install 'inferd[onnx]'` leaves it. `make dist` finds out the same with real installations."""
    others = ("fastapi", "starlette", "uvicorn", "httptools", "orjson", "jwt", "cryptography", "rich", "PIL")
    frameworks = ("torch", "tensorflow", "ai_edge_litert")
    command = [sys.executable, "-c", BLOCKED, *others, *frameworks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
