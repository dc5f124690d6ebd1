"""The Python of the pages runs against a real server; every other block is checked elsewhere or says why it is not."""

from __future__ import annotations

import ast
import asyncio
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from support.documents import ROOT, Block, blocks
from support.server import FAST, Served

PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
FASTAPI = "app = FastAPI("
# What tests of their own run or check.
ELSEWHERE = {
    ("README.md", "python"): "tests/e2e/test_readme.py",
    ("docs/tutorial.md", "python"): "tests/documents/test_tutorial.py",
    ("docs/clients.md", "python"): "tests/client/test_docs.py",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("recipes") / "models"
    shutil.copytree(ROOT / "model_repository" / "digits_onnx", root / "digits_onnx")
    with Served(root, sets=(*FAST, "admin.allow=anyone")) as server:
        yield server


def runnable(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python" and not block.reason]


def compiled(block: Block, server: Served) -> Any:
    text = block.text.replace("localhost:8001", server.address)
    return compile("\n" * (block.line - 1) + text, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "block",
    [block for block in runnable("docs/recipes.md") if FASTAPI not in block.text],
    ids=lambda block: f"line {block.line}",
)
def test_recipes_run(server: Served, block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    exec(compiled(block, server), scope)
    assert "too late" not in capsys.readouterr().out
    for value in scope.values():
        if hasattr(value, "close") and type(value).__name__ == "Client":
            value.close()


@pytest.mark.timeout(300)
def test_the_fastapi_recipe_answers(server: Served) -> None:
    (block,) = [block for block in runnable("docs/recipes.md") if FASTAPI in block.text]
    scope: dict[str, Any] = {}
    exec(compiled(block, server), scope)
    served = uvicorn.Server(uvicorn.Config(scope["app"], host="127.0.0.1", port=0, log_level="warning"))
    ready = threading.Event()
    startup = served.startup

    async def started(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        ready.set()

    served.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=asyncio.run, args=(served.serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        port = served.servers[0].sockets[0].getsockname()[1]

        def ask(pixels: list[float]) -> Any:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/digit", json.dumps(pixels).encode())
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        assert ask([0.0] * 64) == {"digit": 8, "version": 2}
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask([0.0] * 3)
        with refused.value:
            assert refused.value.code == 422
            assert "64" in refused.value.read().decode()
    finally:
        served.should_exit = True
        thread.join(60)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_checked_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        if block.reason or (page, block.language) in ELSEWHERE:
            continue
        where = f"{page}:{block.line}"
        if block.language == "python":
            assert page == "docs/recipes.md", (
                f"{where}: expected `<!-- not run: REASON -->` before a block no test runs"
            )
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif block.language in ("console", "sh"):
            # Commands of inferd are parsed in tests/test_documents.py; these others are harmless and in use everywhere.
            known = r"inferd", ".venv/bin/inferd", "make", "curl", "mkdir", "cd", "pip", "python", ".venv/bin/python"
            for command in block.commands():
                words = [word for word in command.split() if "=" not in word or word.startswith("-")]
                assert words[0] in known, f"{where}: {words[0]}: expected `<!-- not run: REASON -->` before this block"
        else:
            assert block.language in ("", "text"), f"{where}: {block.language}: expected `<!-- not run: REASON -->`"


def test_there_are_blocks_to_look_at() -> None:
    assert len(runnable("docs/recipes.md")) >= 8
    assert Path(ROOT / "docs/recipes.md").read_text().count("```python") >= 12
