"""Several channels that are used like one: each call takes the next channel.

A server with several worker processes gives each connection to one of them, so several channels reach several workers.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any


class Rotation:
    """Several channels, used like one gRPC channel: each call of a method takes the next channel. Thread-safe."""

    def __init__(self, channels: list[Any]) -> None:
        self._channels = channels

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.unary_unary(*args, **kwargs) for channel in self._channels])

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.unary_stream(*args, **kwargs) for channel in self._channels])

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTurn([channel.stream_stream(*args, **kwargs) for channel in self._channels])


def rotation(channels: list[Any]) -> Any:
    """One channel-like object for all these channels; the channel itself if there is only one."""
    return channels[0] if len(channels) == 1 else Rotation(channels)


class _InTurn:
    """One method of several channels. Thread-safe without a lock: `next` of a cycle is atomic in CPython."""

    def __init__(self, callables: list[Any]) -> None:
        self._cycle = cycle(callables)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return next(self._cycle)(*args, **kwargs)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        """`future` of the next channel's method; only blocking channels have it."""
        return next(self._cycle).future(*args, **kwargs)
