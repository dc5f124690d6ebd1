"""docs/clients.md is correct: its Python is valid, its names exist, its example with raw stubs works."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from support.client import FakeServer, rows

import inferd.client
from inferd.client import AsyncClient, Client
from inferd.client._shared import errors as _errors

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def parsed(block: str) -> ast.Module:
    module = compile(block, "clients.md", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(module, ast.Module)
    return module


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_names_and_arguments_exist(block):
    for node in ast.walk(parsed(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "inferd.client":
            assert {alias.name for alias in node.names} <= set(inferd.client.__all__)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in inferd.client.__all__:
            target = getattr(inferd.client, called.id)
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "client":
            target = getattr(Client, called.attr)
        else:
            continue
        known = inspect.signature(target).parameters
        given = {keyword.arg for keyword in node.keywords}
        assert given <= set(known), f"{called}: {given - set(known)}"


def test_the_arguments_of_predict_are_all_explained():
    table = PAGE.partition("| argument | meaning |")[2].partition("\n\n")[0]
    explained = set(re.findall(r"`(\w+)=", table))
    assert explained == set(inspect.signature(Client.predict).parameters) - {"self", "model", "inputs"}
    assert explained == set(inspect.signature(AsyncClient.predict).parameters) - {"self", "model", "inputs"}


def test_the_page_has_the_tree_of_errors():
    drawn = re.findall(r"[├└]── (\w+)", PAGE)
    assert drawn == re.findall(r"[├└]── (\w+)", _errors.__doc__ or "")


def test_the_raw_stubs_answer(server: FakeServer):
    block = next(block for block in BLOCKS if "PredictServiceStub" in block)
    scope = {"image": rows()}
    exec(compile(block.replace("localhost:8001", server.address), "clients.md", "exec"), scope)
    answer = scope["answer"]
    assert answer.model_name == "digits_onnx"  # type: ignore[attr-defined]
    assert server.script.requests[0].model.label == "stable"


def test_the_files_that_other_languages_need_are_there():
    root = Path(__file__).parents[2] / "proto"
    for name in set(re.findall(r"inferd/v1/\w+\.proto", PAGE)):
        assert (root / name).is_file()


def test_every_command_of_the_page_exists():
    from inferd.server.cli.main import build_parser

    page = PAGE.partition("## From the command line")[2].partition("## ")[0]
    named = {
        word for line in re.findall(r"^inferd (.*)$", page, re.MULTILINE) for word in re.findall(r"^[a-z |]+", line)
    }
    commands = {word for words in named for word in words.replace("|", " ").split()}
    known = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert commands <= set(known or ())
    assert {"models", "predict", "load", "unload", "label", "rollback", "publish", "bench"} <= commands
