"""When the memory of the heap is given back."""

from __future__ import annotations

import subprocess
import sys

from inferd.server.lifecycle.resources.heap import HeapReturn

MIB = 2**20


class Process:
    """A process with `live` bytes that are in use, and `unused` bytes that the heap keeps."""

    def __init__(self, live: int = 100) -> None:
        self.now = 0.0
        self.calls = self.nbytes = 0
        self.live = live
        self.unused = 0
        self.trims = 0
        self.ends: list[int] = []
        self.heap = HeapReturn(
            lambda: (self.calls, self.nbytes * MIB),
            1024 * MIB,
            resident=lambda: (self.live + self.nbytes + self.unused) * MIB,
            trim=self.trim,
            keep_end=self.ends.append,
            trim_ends=lambda kept: None,
            clock=lambda: self.now,
        )
        self.heap.ask()
        self.heap.tend()
        assert self.trims == 1
        self.trims = 0

    def trim(self) -> None:
        self.unused = 0
        self.trims += 1

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.heap.tend()


def test_a_quiet_server_gives_back_what_requests_have_left() -> None:
    process = Process()
    process.calls, process.nbytes = 1, 50
    process.run(10)
    process.calls, process.nbytes, process.unused = 0, 0, 500
    process.run(4)
    assert process.trims == 0
    process.run(2)
    assert process.trims == 1
    assert process.unused == 0
    process.unused = 40  # freed late
    process.run(30)
    assert process.unused == 0
    trims = process.trims
    process.run(600)
    assert process.trims == trims


def test_held_bytes_without_calls_are_no_quiet() -> None:
    process = Process()
    process.nbytes, process.unused = 10, 100  # streams
    process.run(20)
    assert process.trims == 0


def test_a_busy_server_keeps_what_it_uses_again() -> None:
    process = Process()
    process.calls, process.nbytes, process.unused = 8, 200, 100
    process.run(600)
    assert process.trims == 0


def test_a_server_that_is_never_quiet_gives_back_too() -> None:
    process = Process()
    process.calls, process.unused = 8, 500
    process.run(29)
    assert process.trims == 0
    process.run(2)
    assert process.trims == 1


def test_a_flood_does_not_wait() -> None:
    process = Process()
    process.calls, process.nbytes, process.unused = 8, 1000, 200
    process.run(1)
    assert process.trims == 1


def test_what_a_flood_has_left_does_not_wait() -> None:
    process = Process()
    process.calls, process.nbytes = 8, 600
    process.run(1)
    process.nbytes, process.unused = 10, 200
    process.run(1)
    assert (process.trims, process.unused) == (1, 0)


def test_models_that_were_loaded_become_the_least() -> None:
    process = Process()
    process.live = 5000
    process.run(10)
    trims = process.trims
    process.calls, process.nbytes, process.unused = 8, 900, 100
    process.run(20)
    assert process.trims == trims


def test_the_ends_of_heaps_are_short_while_much_is_in_flight() -> None:
    process = Process()
    process.calls, process.nbytes = 8, 500
    process.run(10)
    assert process.ends == []
    process.nbytes = 600
    process.run(10)
    process.nbytes = 0
    process.run(9)
    assert process.ends == [MIB]
    process.run(2)
    assert process.ends == [MIB, 32 * MIB]


ENDS = """
import threading
from inferd.server.allocator import resident_bytes, set_up_heap, trim, trim_ends
set_up_heap()
kept, ready, go = [], threading.Barrier(5), threading.Event()
def fill():
    blocks = [bytes(1000) for _ in range(20_000)]
    ready.wait(60)
    del blocks
    ready.wait(60)
    go.wait(60)  # the heap has a thread
before = resident_bytes()
threads = [threading.Thread(target=fill) for _ in range(4)]
for thread in threads: thread.start()
ready.wait(60); ready.wait(60)
trim_ends(2**25)
trim()
assert resident_bytes() - before < 12_000_000, (before, resident_bytes())
go.set()
for thread in threads: thread.join()
"""

RETURNED = """
import ctypes, threading
from inferd.server.allocator import keep_end, resident_bytes, set_up_heap, trim
set_up_heap()
keep_end(2**20)
def fill():
    for _ in range(3):
        blocks = [bytearray(b"x" * 4_000_000) for _ in range(60)]
threads = [threading.Thread(target=fill) for _ in range(4)]
before = resident_bytes()
for thread in threads: thread.start()
for thread in threads: thread.join()
trim()
assert resident_bytes() - before < 4 * 2**20 + 8_000_000, (before, resident_bytes())
"""


def test_the_ends_of_all_heaps_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def test_what_threads_have_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
