"""`inferd completion`: what the shells offer. bash is asked; zsh and fish are, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from inferd.server.cli import completion
from inferd.server.cli.main import build_parser

LAST = """
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_inferd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = completion.commands(build_parser())
    place = tmp_path_factory.mktemp("completion")
    written = {}
    for shell, write in completion.SHELLS.items():
        written[shell] = place / f"inferd.{shell}"
        written[shell].write_text(write(found))
    return written


def test_the_command_prints_the_script(cli, scripts: dict[str, Path]) -> None:
    for shell, script in scripts.items():
        assert cli("completion", shell).out == script.read_text()


def offered(script: Path, words: str) -> set[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", f"source {script}{LAST.format(words=words)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected", "others"),
    [
        ("inferd ''", {"serve", "check", "publish", "completion", "--version"}, {"--listen"}),
        ("inferd se", {"serve"}, {"check"}),
        ("inferd serve --model-c", {"--model-control-mode"}, {"--model-repository"}),
        ("inferd serve --model-control-mode ''", {"none", "poll", "explicit"}, {"--listen"}),
        ("inferd serve --model-control-mode = ex", {"explicit"}, {"none"}),
        ("inferd predict m --js", {"--json"}, {"--jwt"}),
        ("inferd config ''", {"schema", "show"}, {"serve"}),
        ("inferd completion ''", {"bash", "zsh", "fish"}, {"serve"}),
        ("inferd bench m --rate ''", set(), {"--rate"}),
        ("inferd serve --config ''", set(), {"--listen"}),
    ],
)
def test_bash_offers(scripts: dict[str, Path], words: str, expected: set[str], others: set[str]) -> None:
    found = offered(scripts["bash"], words)
    assert expected <= found
    assert not others & found


def test_every_command_and_option_is_offered(scripts: dict[str, Path]) -> None:
    for name, command in completion.commands(build_parser()).items():
        names = {each for option in command.options for each in option.names}
        assert names <= offered(scripts["bash"], f"inferd {name} -" if name else "inferd -"), name


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_the_script(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    assert all(name in text for name in completion.commands(build_parser()))
    if shutil.which(shell):  # neither comes with every machine; the script is the same everywhere
        done = subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
