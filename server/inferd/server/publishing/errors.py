"""The error that ends a publication."""

from __future__ import annotations


class PublishError(Exception):
    """Nothing was published. The message is for the person at the command line.

    usage   the command was used wrongly: a flag is missing or does not fit
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage
