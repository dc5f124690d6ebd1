"""What a command says when it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """Ends the command with one line on stderr. `exit_code`: 1 it failed, 2 wrong usage."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def usage(message: str) -> CommandError:
    """The command line itself is wrong."""
    return CommandError(message, 2)
