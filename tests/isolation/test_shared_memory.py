"""Arrays in shared memory, and the channel's messages: a worker cannot harm the server with anything it sends."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.backends import sample

from inferd.server.isolation.arena import ArenaError, Inbox, Outbox, Stages
from inferd.server.isolation.channel import Channel, Closed, Garbled, Kind, Silent
from inferd.server.isolation.tensors import put, take
from inferd.wire.dtypes import DType
from inferd.wire.tensors import TensorError

NAMES = ["a", "b", "c"]
NUMBERS = {name: number for number, name in enumerate(NAMES)}


class Direction:
    """A writer and a reader of tensors."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.inbox = Inbox()
        self.arenas = 0

    def carry(self, arrays: dict[str, Any], *, copy: bool = True) -> dict[str, Any]:
        layout, descriptor = put(self.outbox, NUMBERS, arrays)
        if descriptor is not None:
            self.arenas += 1
            self.inbox.adopt(os.dup(descriptor))
            os.close(descriptor)
        return take(self.inbox, NAMES, layout, copy=copy)


@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (7, 3), (40, 50)], ids=str)
def test_every_type_and_shape_survives_a_round_trip(dtype: DType, shape: tuple[int, ...]) -> None:
    direction = Direction()
    x = sample(dtype, shape)
    for copy in (True, False):
        out = direction.carry({"b": x}, copy=copy)["b"]
        assert out.dtype == x.dtype
        assert out.shape == x.shape
        assert out.tolist() == x.tolist() if dtype is DType.STRING else out.tobytes() == x.tobytes()
        assert out.flags.writeable


def test_views_are_aligned_and_lie_in_the_arena() -> None:
    direction = Direction()
    arrays = {"a": np.ones(3, np.uint8), "b": np.ones(5, np.float64), "c": np.arange(7, dtype=np.int16)[::-1]}
    out = direction.carry(arrays, copy=False)
    for name, array in out.items():
        assert array.ctypes.data % 64 == 0
        np.testing.assert_array_equal(array, arrays[name])
    copies = direction.carry(arrays)
    direction.carry({name: array * 0 for name, array in arrays.items()})
    np.testing.assert_array_equal(copies["b"], arrays["b"])
    np.testing.assert_array_equal(out["b"], 0)


def test_an_arena_is_used_again_and_grows() -> None:
    direction = Direction()
    for size in (10, 20, 1000, 10):
        direction.carry({"a": np.ones(size)})
    assert direction.arenas == 1
    big = np.arange(100_000.0)
    np.testing.assert_array_equal(direction.carry({"a": big})["a"], big)
    direction.carry({"a": big})
    assert direction.arenas == 2


def test_big_endian_arrays_are_converted() -> None:
    out = Direction().carry({"a": np.array([1, 2, 3], ">i4")})["a"]
    assert out.tolist() == [1, 2, 3]


def test_unsupported_arrays_are_refused_before_anything_is_written() -> None:
    direction = Direction()
    direction.carry({"a": np.ones(4)})
    for wrong in ({"a": np.ones(1, np.complex64)}, {"a": np.array([object()])}, {"stranger": np.ones(1)}):
        with pytest.raises((TypeError, TensorError, KeyError)):
            put(direction.outbox, NUMBERS, wrong)
    direction.carry({"a": np.ones(4)})
    assert direction.arenas == 1


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 100), max_size=24))
def test_a_random_layout_is_read_or_refused(layout: list[int]) -> None:
    direction = Direction()
    direction.carry({"a": np.ones(100)})
    try:
        for array in take(direction.inbox, NAMES, layout, copy=True).values():
            assert array.nbytes <= 2**16 or array.dtype == object
    except ArenaError:
        pass


def test_memory_that_may_shrink_is_not_mapped() -> None:
    descriptor = os.memfd_create("shrinks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    with pytest.raises(ArenaError, match="may shrink"):
        Inbox().adopt(descriptor)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_descriptor_that_is_no_shared_memory_is_refused(kind: str, tmp_path: Any) -> None:
    if kind == "file":
        descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    else:
        descriptor, other = os.pipe()
        os.close(other)
    with pytest.raises(ArenaError):
        Inbox().adopt(descriptor)


def test_a_peer_cannot_truncate_an_arena() -> None:
    outbox = Outbox()
    _, descriptor = outbox.reserve(100)
    assert descriptor is not None
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_arrays_in_a_stage_are_not_copied() -> None:
    stages, inbox, outbox = Stages(), Inbox(), Outbox()
    first, second = stages.lend(4000), stages.lend(100)
    x = first[:4000].view(np.float32).reshape(10, 100)
    y = second[64:96].view(np.int64)
    x[...] = 5
    y[...] = 6
    layout, descriptor = put(outbox, NUMBERS, {"a": x, "b": y, "c": np.ones(3)}, stages)
    assert descriptor is not None
    inbox.adopt(descriptor)
    for number in (1, 2):
        stage = stages.unsent(number)
        assert stage is not None
        inbox.adopt(stage, number)
        assert stages.unsent(number) is None
    out = take(inbox, NAMES, layout, copy=False)
    x[...] = 7
    assert (out["a"] == 7).all(), "the same memory"
    assert (out["b"] == 6).all()
    assert (out["c"] == 1).all()


def test_the_number_of_a_freed_stage_is_used_again() -> None:
    stages = Stages()
    kept, gone = stages.lend(10), stages.lend(10)
    open_before = len(os.listdir("/proc/self/fd"))
    assert stages.find(gone[:4]) == (2, 0)
    del gone
    gc.collect()
    again = stages.lend(10)
    assert stages.find(again[4:]) == (2, 4)
    assert stages.find(kept[:]) == (1, 0)
    assert stages.find(np.ones(3)) is None
    assert len(os.listdir("/proc/self/fd")) <= open_before
    stages.close()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    channel, other = Channel.pair()
    channel.set_timeout(0.05)
    yield channel, other
    channel.close()
    other.close()


def test_messages_of_any_length_are_received(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    channel.set_timeout(30)
    peer = Channel(other)
    for body in (b"", b"x", b"y" * 4088, b"y" * 4089, b"z" * 3_000_000):
        sender = threading.Thread(target=peer.send, args=(Kind.DONE, body))
        sender.start()
        assert channel.receive().body == body
        sender.join()


def test_silence_and_a_closed_channel_are_different_errors(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    with pytest.raises(Silent):
        channel.receive()
    other.sendall(b"\x01")
    with pytest.raises(Silent):
        channel.receive()
    other.close()
    with pytest.raises(Closed):
        channel.receive()
    with pytest.raises(Closed):
        channel.send(Kind.ASK, b"x" * 100_000)


@pytest.mark.parametrize(
    "data", [struct.pack("<II", 4, 99) + b"abcd", struct.pack("<II", 2**31, 1), b"nonsense" * 4, b"\xff" * 64]
)
def test_an_invalid_message_is_refused(ends: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, other = ends
    other.sendall(data)
    with pytest.raises(Garbled):
        channel.receive()


def test_descriptors_beyond_the_first_are_closed(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    numbers = [os.memfd_create("sent-one"), os.memfd_create("sent-two")]
    socket.send_fds(other, [struct.pack("<II", 0, int(Kind.RAN))], numbers)
    for number in numbers:
        os.close(number)
    message = channel.receive()
    assert message.descriptor is not None
    assert [open_as(name) for name in ("sent-one", "sent-two")] == [1, 0]
    os.close(message.descriptor)
    assert open_as("sent-one") == 0


def open_as(name: str) -> int:
    """How many descriptors of this process refer to memory of this name."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += f"memfd:{name} " in os.readlink(entry)
    return found
