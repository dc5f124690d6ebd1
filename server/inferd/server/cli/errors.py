"""The error that ends a command."""

from __future__ import annotations


class CommandError(Exception):
    """Ends the command. `main` prints the message on stderr. `exit_code`: 1 the command failed, 2 wrong usage."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def usage(message: str) -> CommandError:
    """An error for wrong usage of the command line."""
    return CommandError(message, 2)
