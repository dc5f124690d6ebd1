"""docs/reference/commands.md: every command of `inferd`, from its argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tools.documentation.docstrings import escaped

from inferd.server.cli.main import build_parser

HEAD = """\
# Commands

**Task: look up a command or a flag.** Every command explains itself:

```console
$ inferd --help
$ inferd predict --help
```

Exit codes: 0 done, 1 the command failed (the server refused, a file is missing, a check found something), 2 wrong
usage. Errors are on standard error. This page is generated from the source: do not edit it.
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD.rstrip()]
    for names, title, parser in _commands(build_parser(), "inferd"):
        level = "#" * (len(names) + 1)
        parts.append(f"{level} {' '.join(('inferd', *names))}")
        if title:
            parts.append(_sentence(title))
        description = (parser.description or "").strip()
        if description and _sentence(description) != _sentence(title):
            parts.append(_sentence(description))
        parts.extend(_tables(parser))
    return "\n\n".join(parts) + "\n"


def _commands(
    parser: argparse.ArgumentParser, name: str
) -> Iterator[tuple[tuple[str, ...], str, argparse.ArgumentParser]]:
    """Names, help and parser of each command, the deeper ones after their parents."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for command, inner in action.choices.items():
            yield (command,), helps.get(command, ""), inner
            for names, title, deeper in _commands(inner, command):
                yield (command, *names), title, deeper


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The arguments and options of a command."""
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        rows.append(f"| {_invocation(action)} | {_meaning(action, parser)} |")
    if rows:
        yield "| argument | meaning |\n| --- | --- |\n" + "\n".join(rows)


def _invocation(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        metavar = action.metavar
        if isinstance(metavar, tuple):
            metavar = " ".join(metavar)
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
        value = metavar or choices or action.dest.upper()
    if not action.option_strings:
        return f"`{value}`".replace("|", "\\|")
    return ", ".join(f"`{option}{f' {value}' if value else ''}`" for option in action.option_strings).replace(
        "|", "\\|"
    )


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text = action.help or ""
    if "%" in text:
        values = {**vars(action), "prog": parser.prog}
        text = text % values
    return escaped(_sentence(text))


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    first = text.partition(" ")[0]
    begun = text if first != first.lower() else text[:1].upper() + text[1:]
    return begun if not begun or begun.endswith((".", ":", "?")) else f"{begun}."
