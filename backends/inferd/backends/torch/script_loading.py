"""Whether a TorchScript archive runs a loop while it is loaded.

Torch calls the `__setstate__` of each object in the archive, and holds the interpreter's lock meanwhile. A loop there
that never ends would stop the whole server, its health checks and signals included. What `__setstate__` calls is found
by name alone, so too many functions are looked at rather than too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_AT_LOAD: Final = "__setstate__"
_LOOPS: Final = frozenset({"for", "while"})


class LoadingCode:
    """The functions in the code of an archive. `add` takes the tokens of one file after the other."""

    def __init__(self) -> None:
        self._calls: dict[str, set[str]] = {}  # by a function's name: the names that it calls
        self._loops: set[str] = set()

    def add(self, tokens: Sequence[str]) -> None:
        """Notes the functions of one file of code. A file has no functions within functions."""
        calls: set[str] = set()
        name = ""
        for index, token in enumerate(tokens):
            following = tokens[index + 1] if index + 1 < len(tokens) else ""
            if token in ("def", "class"):
                name = following
                calls = self._calls.setdefault(name, set())
            elif token in _LOOPS:
                self._loops.add(name)
            elif following == "(":
                calls.add(token)

    def loop(self) -> str:
        """The name of a function with a loop that runs while the archive is loaded, "" for none."""
        seen = {_AT_LOAD} & self._calls.keys()
        waiting = list(seen)
        while waiting:
            name = waiting.pop()
            if name in self._loops:
                return name
            new = (self._calls[name] & self._calls.keys()) - seen
            seen |= new
            waiting.extend(new)
        return ""
