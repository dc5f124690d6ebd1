"""README.md and docs/: what they name is there. Links, settings, targets of make, commands and flags of `inferd`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.documentation import reference
from tools.documentation.pages import in_navigation, project_config, sources, staged

from inferd.server.cli.main import build_parser
from inferd.server.config.keys import RENAMED, annotations_at
from inferd.server.config.schema import ModelConfig, ServerConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
)
# What was measured on a day: their links are checked, but settings may have other names today.
RESULTS = tuple(sorted(str(page.relative_to(ROOT)) for page in (ROOT / "benchmarks/results").glob("*.md")))
# Both its subcommands and theirs.
COMMANDS = next(action.choices for action in build_parser()._actions if action.dest == "command" or action.choices)


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command and of its own commands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for inner in action.choices.values() for flag in flags(inner)}
    return found


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made for Markdown on the web."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(text: str) -> Iterator[list[str]]:
    """Each `inferd COMMAND ...` of the code blocks, comments left out."""
    for block in re.findall(r"^```(?:console|sh)?\n(.*?)^```|^((?:    .*\n)+)", text, re.MULTILINE | re.DOTALL):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:\w+=\S+ )?(?:\.venv/bin/)?inferd ([a-z]\S*.*)", line)
            if found:
                yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("page", PAGES + RESULTS)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", (ROOT / page).read_text()):
        linked = (ROOT / page).parent / target if target else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str) -> None:
    sections = "|".join({*ServerConfig.model_fields, *ModelConfig.model_fields} - {"models"})
    for key in re.findall(rf"`((?:{sections})(?:\.[a-z][a-z_]*)+)(?:: [^`]*)?`", (ROOT / page).read_text()):
        if key.rpartition(".")[2] in ("config", "yaml", "pbtxt", "py", "md"):
            continue  # a file
        if key in ("grpc.aio", "grpc.per_message_decompression"):
            continue  # grpcio's own names
        if key in RENAMED:
            continue  # an old name, in the guide to upgrading
        path = key.split(".")
        assert annotations_at(path) or annotations_at(path, ModelConfig), key


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$ |^    )make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_exist(page: str) -> None:
    for words in commands((ROOT / page).read_text()):
        names = [name for name in words[0].split("|") if name] if "|" in words[0] else [words[0]]
        if len(words) > 2 and words[1] == "|":
            names.append(words[2])
        for name in names:
            assert name in COMMANDS, words
            known = flags(COMMANDS[name])
            for word in words[1:]:
                flag = word.strip("[]").partition("=")[0]
                if re.fullmatch(r"--?[a-z][\w-]*", flag):
                    assert flag in known, f"inferd {' '.join(words)}: {flag}"


def test_there_are_commands_to_look_at() -> None:
    found = [words for page in PAGES for words in commands((ROOT / page).read_text())]
    assert {"serve", "check", "models", "predict", "bench", "publish", "load", "label"} <= {words[0] for words in found}


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    named = list(in_navigation(project_config()["project"]["nav"]))
    assert len(named) == len(set(named))
    pages = {place for place in sources() if place.endswith(".md")}
    # The results of single days are found from their index.
    expected = {place for place in pages if not place.startswith("results/")} | {"results/index.md"}
    assert expected - set(named) == set(), "expected a line in docs/site.toml for each of these pages"
    assert set(named) - expected == set(), "docs/site.toml names pages that do not exist"


def test_links_of_the_site_can_be_rewritten() -> None:
    found = sources()
    places = {file.resolve(): place for place, file in found.items()}
    for place, file in found.items():
        if place.endswith(".md"):
            staged(place, file, places, "")


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_generated_reference_is_fresh(name: str) -> None:
    if not reference.PROTOC.exists():
        pytest.fail("the pinned protoc is missing: run `make proto` (or `make test`, which sets it up)")
    assert (reference.FOLDER / name).read_text() == reference.PAGES[name](), (
        f"docs/reference/{name}: run `make reference`"
    )


def test_every_page_begins_with_a_task_and_a_command() -> None:
    for page in PAGES:
        if page.startswith("docs/") and not page.startswith("docs/decisions/"):
            begin = (ROOT / page).read_text()[:1500]
            assert re.search(r"^\*\*Task: [^*]+\*\*", begin, re.MULTILINE), f"{page}: expected a line **Task: ...**"
            assert re.search(r"^ *```", begin, re.MULTILINE), f"{page}: expected a command near its beginning"
