"""An argument parser whose errors are one line, with the nearest known word."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(
    r"(?:argument (?P<what>.*?): )?invalid choice: '(?P<given>.*)' \(choose from (?P<known>.*)\)", re.DOTALL
)
_LONGEST = 300  # characters of an argument in a message


class OneLineParser(argparse.ArgumentParser):
    """As argparse.ArgumentParser. Wrong usage ends the process with exit code 2 and one line on stderr, without the
    usage, which `--help` prints. A command that is only a group of commands prints its help, if none of them is given.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        given = sys.argv[1:] if args is None else list(args)
        if not given and any(isinstance(action, argparse._SubParsersAction) for action in self._actions):
            self.print_help()
            raise SystemExit(0)
        self._given = given
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints the line and ends the process."""
        found = _CHOICE.fullmatch(message)
        if found is not None:
            known = re.findall(r"[^\s,']+", found["known"])
            what = "unknown command" if found["what"] == "COMMAND" else f"argument {found['what']}: invalid choice"
            meant = _meant(found["given"], known) or ";"
            message = f"{what} {_short(found['given'])!r}{meant} expected one of {', '.join(known)}"
        if message.startswith("the following arguments are required"):
            message += self._misspelt()
        message = re.sub(r"invalid int value: (.*)", r"expected a whole number, got \1", message)
        program, _, command = self.prog.partition(" ")
        where = f"{program}: {command}" if command else program
        line = " ".join(f"{where}: {message} (see {self.prog} --help)".split())
        print(line, file=sys.stderr)
        raise SystemExit(2)

    def _misspelt(self) -> str:
        """The first option that is given and unknown, as text: it may be what is missing, misspelt."""
        for word in getattr(self, "_given", ()):
            name = word.partition("=")[0]
            if len(name) < 3 or not name.startswith("--"):
                continue
            if name not in self._option_string_actions and not self._get_option_tuples(name):
                return f"; unknown option {_short(name)}{_meant(name, self._option_string_actions)}"
        return ""

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        """Ends the process because of arguments that the command does not have."""
        words = []
        for argument in arguments:
            name = argument.partition("=")[0]
            if name.startswith("-"):
                words.append(f"unknown option {_short(name)}{_meant(name, self._option_string_actions)}")
            elif not words:
                meant = (
                    "; did you mean --model-repository?" if "--model-repository" in self._option_string_actions else ""
                )
                words.append(f"unexpected argument {_short(argument)!r}{meant}")
        self.error("; ".join(words))


def _meant(given: str, known: Iterable[str]) -> str:
    """The nearest known word as a question, "" if none is near. Dashes and underscores count as equal."""
    plain = {word.replace("_", "-"): word for word in known}
    near = difflib.get_close_matches(given.replace("_", "-"), plain, n=1, cutoff=0.6)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
