"""Several channels for one: each call takes the next. A server with several worker processes gives each connection to
one of them."""

from __future__ import annotations

from itertools import cycle
from typing import Any


class Rotation:
    """The methods of several channels, taken in turn. Used like a grpc channel. Thread-safe."""

    def __init__(self, channels: list[Any]) -> None:
        self._channels = channels

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.unary_unary(*args, **kwargs) for channel in self._channels])

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.unary_stream(*args, **kwargs) for channel in self._channels])

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.stream_stream(*args, **kwargs) for channel in self._channels])


def rotation(channels: list[Any]) -> Any:
    """A channel that stands for all of these; the channel itself where there is only one."""
    return channels[0] if len(channels) == 1 else Rotation(channels)


class _InTurn:
    """One method. `next` on a cycle is one step of the interpreter: threads need no lock."""

    def __init__(self, callables: list[Any]) -> None:
        self._cycle = cycle(callables)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return next(self._cycle)(*args, **kwargs)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        """As of a sync channel's method."""
        return next(self._cycle).future(*args, **kwargs)
