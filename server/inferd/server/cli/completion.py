"""`inferd completion`: prints a script that makes a shell complete inferd's commands, options and choices.

The script is written from the parser and holds everything, so that a keystroke starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

# Words in the name of a value for which the shell completes files.
_FILES: Final = ("FILE", "DIR", "PATH", "PEM")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command. `values`: the choices; None: it takes no value; (): it takes any. `files`: a path."""

    names: tuple[str, ...]
    help: str
    values: tuple[str, ...] | None
    files: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `words`: what may stand in place of an argument: names of sub-commands, or choices."""

    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def add(subparsers: Any, build: Callable[[], argparse.ArgumentParser]) -> None:
    """Registers the command. `build` makes the parser with all commands."""
    parser = subparsers.add_parser(
        "completion",
        help="print a completion script for a shell",
        description=__doc__,
        epilog="bash: source <(inferd completion bash) · zsh: source <(inferd completion zsh) · "
        "fish: inferd completion fish | source. In the shell's start file, it holds for every session.",
    )
    parser.add_argument("shell", choices=tuple(SHELLS))
    parser.set_defaults(run=partial(run, build))


def run(build: Callable[[], argparse.ArgumentParser], args: argparse.Namespace) -> int:
    print(SHELLS[args.shell](commands(build())), end="")
    return 0


def commands(parser: argparse.ArgumentParser) -> Mapping[str, Command]:
    """The commands of a parser by name, "" for the program itself."""
    found = {"": _command(parser, "", nested=False)}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: _command(each, helps.get(name, "")) for name, each in action.choices.items()}
    return found


def _command(parser: argparse.ArgumentParser, text: str, *, nested: bool = True) -> Command:
    """`nested`: with the options of its sub-commands."""
    words: list[str] = []
    options: list[Option] = []
    for action in parser._actions:
        if not action.option_strings:
            words += map(str, action.choices or ())
            if nested and isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    options += _command(inner, "").options
        elif action.help != argparse.SUPPRESS:
            options.append(_option(action))
    unique = {option.names: option for option in options}
    return Command(text, tuple(unique.values()), tuple(words))


def _option(action: argparse.Action) -> Option:
    takes = action.nargs != 0
    shown = action.metavar if isinstance(action.metavar, str) else ""
    text = (action.help or "").replace("(%(default)s)", "").replace("%(default)s", str(action.default))
    return Option(
        tuple(action.option_strings),
        " ".join(text.split()),
        tuple(map(str, action.choices or ())) if takes else None,
        takes and any(word in shown for word in _FILES),
    )


def _bash(found: Mapping[str, Command]) -> str:
    words, values, files = [], [], []
    for name, command in found.items():
        offered = [*command.words, *(each for option in command.options for each in option.names)]
        words.append(f"    {_quoted(name)}) words={_quoted(' '.join(offered))};;")
        for option in command.options:
            pattern = "|".join(_quoted(f"{name} {each}") for each in option.names)
            if option.values:
                values.append(f"    {pattern}) words={_quoted(' '.join(option.values))};;")
            elif option.files:
                files.append(pattern)
            elif option.values == ():
                values.append(f"    {pattern}) words=;;")
    places = "|".join(files)
    return "\n".join(
        [
            "_inferd() {",
            '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command= words= i',
            '  [ "$current" = "=" ] && current=',  # bash takes = for the end of a word
            '  [ "$previous" = "=" ] && previous="${COMP_WORDS[COMP_CWORD-2]}"',
            "  for ((i = 1; i < COMP_CWORD; i++)); do",
            '    case "${COMP_WORDS[i]}" in -*) ;; *) command="${COMP_WORDS[i]}"; break;; esac',
            "  done",
            "  COMPREPLY=()",
            '  case "$command" in',
            *words,
            "  esac",
            '  case "$command $previous" in',
            *([f"    {places}) compopt -o default 2>/dev/null; return;;"] if places else []),
            *values,
            "  esac",
            '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
            "  [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default 2>/dev/null",
            "}",
            "complete -F _inferd inferd",
            "",
        ]
    )


def _zsh(found: Mapping[str, Command]) -> str:
    listed = [f"    {_quoted(f'{name}:{command.help}')}" for name, command in found.items() if name]
    cases = []
    for name, command in found.items():
        if name:
            specs = [*map(_quoted, _zsh_options(command)), _quoted(_zsh_words(command))]
            cases += [
                f"    {_quoted(name)})",
                "      _arguments -s \\",
                "        " + " \\\n        ".join(specs),
                "      ;;",
            ]
    return "\n".join(
        [
            "#compdef inferd",
            "_inferd() {",
            "  local -a commands",
            "  commands=(",
            *listed,
            "  )",
            "  if (( CURRENT == 2 )); then",
            "    _describe command commands",
            "    return",
            "  fi",
            '  local command="$words[2]"',
            "  shift words",
            "  (( CURRENT-- ))",
            '  case "$command" in',
            *cases,
            "  esac",
            "}",
            'if [ "$funcstack[1]" = _inferd ]; then _inferd; else compdef _inferd inferd; fi',
            "",
        ]
    )


def _zsh_options(command: Command) -> Iterator[str]:
    for option in command.options:
        text = option.help
        for old, new in (("[", "("), ("]", ")"), (":", " -")):
            text = text.replace(old, new)
        value = "" if option.values is None else f":value:({' '.join(option.values)})" if option.values else ":value:"
        for name in option.names:
            equals = "=" if name.startswith("--") and option.values is not None else ""
            yield f"*{name}{equals}[{text}]{':file:_files' if option.files else value}"


def _zsh_words(command: Command) -> str:
    return f"*:word:({' '.join(command.words)})" if command.words else "*:file:_files"


def _fish(found: Mapping[str, Command]) -> str:
    lines = ["complete -c inferd -f"]
    for name, command in found.items():
        if name:
            lines.append(
                f"complete -c inferd -n __fish_use_subcommand -a {_fish_text(name)} -d {_fish_text(command.help)}"
            )
        when = f"-n {_fish_text(f'__fish_seen_subcommand_from {name}')}" if name else "-n __fish_use_subcommand"
        for option in command.options:
            names = " ".join(f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in option.names)
            if option.files:
                takes = " -r -F"
            elif option.values:
                takes = f" -x -a {_fish_text(' '.join(option.values))}"
            else:
                takes = "" if option.values is None else " -x"
            lines.append(f"complete -c inferd {when} {names}{takes} -d {_fish_text(option.help)}")
        if name and command.words:
            lines.append(f"complete -c inferd {when} -a {_fish_text(' '.join(command.words))}")
        elif name:
            lines.append(f"complete -c inferd {when} -F")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """For bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[Mapping[str, Command]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
