"""Arrays through shared memory, and messages beside it: nothing that a worker says can hurt the server."""

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


class Line:
    """What lies between a writer and a reader of tensors."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.inbox = Inbox()
        self.arenas = 0

    def carry(self, arrays: dict[str, Any], *, copy: bool = True) -> dict[str, Any]:
        told, descriptor = put(self.outbox, NUMBERS, arrays)
        if descriptor is not None:
            self.arenas += 1
            self.inbox.adopt(os.dup(descriptor))
            os.close(descriptor)
        return take(self.inbox, NAMES, told, copy=copy)


@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (7, 3), (40, 50)], ids=str)
def test_every_type_and_shape_comes_out_as_it_went_in(dtype: DType, shape: tuple[int, ...]) -> None:
    line = Line()
    x = sample(dtype, shape)
    for copy in (True, False):
        out = line.carry({"b": x}, copy=copy)["b"]
        assert out.dtype == x.dtype
        assert out.shape == x.shape
        assert out.tolist() == x.tolist() if dtype is DType.STRING else out.tobytes() == x.tobytes()
        assert out.flags.writeable


def test_views_are_aligned_and_lie_in_the_arena() -> None:
    line = Line()
    arrays = {"a": np.ones(3, np.uint8), "b": np.ones(5, np.float64), "c": np.arange(7, dtype=np.int16)[::-1]}
    out = line.carry(arrays, copy=False)
    for name, array in out.items():
        assert array.ctypes.data % 64 == 0
        np.testing.assert_array_equal(array, arrays[name])
    copies = line.carry(arrays)
    line.carry({name: array * 0 for name, array in arrays.items()})
    np.testing.assert_array_equal(copies["b"], arrays["b"])
    np.testing.assert_array_equal(out["b"], 0)


def test_an_arena_is_used_again_and_grows() -> None:
    line = Line()
    for size in (10, 20, 1000, 10):
        line.carry({"a": np.ones(size)})
    assert line.arenas == 1
    big = np.arange(100_000.0)
    np.testing.assert_array_equal(line.carry({"a": big})["a"], big)
    line.carry({"a": big})
    assert line.arenas == 2


def test_bytes_in_another_order_are_turned_round() -> None:
    out = Line().carry({"a": np.array([1, 2, 3], ">i4")})["a"]
    assert out.tolist() == [1, 2, 3]


def test_what_cannot_travel_is_refused_before_anything_is_written() -> None:
    line = Line()
    line.carry({"a": np.ones(4)})
    for wrong in ({"a": np.ones(1, np.complex64)}, {"a": np.array([object()])}, {"stranger": np.ones(1)}):
        with pytest.raises((TypeError, TensorError, KeyError)):
            put(line.outbox, NUMBERS, wrong)
    line.carry({"a": np.ones(4)})
    assert line.arenas == 1


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 100), max_size=24))
def test_nonsense_is_an_error_of_its_own(told: list[int]) -> None:
    line = Line()
    line.carry({"a": np.ones(100)})
    try:
        for array in take(line.inbox, NAMES, told, copy=True).values():
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
def test_what_is_no_memory_is_not_mapped(kind: str, tmp_path: Any) -> None:
    if kind == "file":
        descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    else:
        descriptor, other = os.pipe()
        os.close(other)
    with pytest.raises(ArenaError):
        Inbox().adopt(descriptor)


def test_an_arena_cannot_be_cut_short_by_the_peer() -> None:
    outbox = Outbox()
    _, descriptor = outbox.room(100)
    assert descriptor is not None
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_what_is_put_together_in_a_stage_is_not_copied() -> None:
    stages, inbox, outbox = Stages(), Inbox(), Outbox()
    first, second = stages.lend(4000), stages.lend(100)
    x = first[:4000].view(np.float32).reshape(10, 100)
    y = second[64:96].view(np.int64)
    x[...] = 5
    y[...] = 6
    told, descriptor = put(outbox, NUMBERS, {"a": x, "b": y, "c": np.ones(3)}, stages)
    assert descriptor is not None
    inbox.adopt(descriptor)
    for number in (1, 2):
        stage = stages.unsent(number)
        assert stage is not None
        inbox.adopt(stage, number)
        assert stages.unsent(number) is None
    out = take(inbox, NAMES, told, copy=False)
    x[...] = 7
    assert (out["a"] == 7).all(), "the same memory"
    assert (out["b"] == 6).all()
    assert (out["c"] == 1).all()


def test_a_stage_that_nobody_keeps_gives_its_number_back() -> None:
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
    channel.patience(0.05)
    yield channel, other
    channel.close()
    other.close()


def test_messages_of_any_length_arrive_whole(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    channel.patience(30)
    peer = Channel(other)
    for body in (b"", b"x", b"y" * 4088, b"y" * 4089, b"z" * 3_000_000):
        sender = threading.Thread(target=peer.send, args=(Kind.DONE, body))
        sender.start()
        assert channel.receive().body == body
        sender.join()


def test_silence_and_the_end_are_told_apart(ends: tuple[Channel, socket.socket]) -> None:
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
def test_what_is_no_message_is_refused(ends: tuple[Channel, socket.socket], data: bytes) -> None:
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
    """How many descriptors of this process lead to memory of this name."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += f"memfd:{name} " in os.readlink(entry)
    return found
