"""Compressed messages are inflated within the bounds on one message and on all that is held."""

from __future__ import annotations

import gzip
import threading
import zlib

import grpc
import numpy as np
import pytest
from support.http2 import RawClient, message
from support.rpc import PREDICT, PREDICT_STREAM, Served, eventually, refused, request, trailing

from inferd.server.config.schema import Grpc, Inflight, ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.failures import Failure
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport.compression import COMPRESSED, Inflater
from inferd.wire.native import decode_response

LARGE = np.zeros((1, 300_000), np.float32)  # inflates to more than is inflated on the loop


def empty(server: Served) -> bool:
    held = (server.inflight.calls, server.inflight.nbytes, server.inflight.streams, server.transport.open_calls)
    return held == (0, 0, 0, 0)


@pytest.mark.parametrize("x", [((1.0, 2.0),), LARGE])
@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_answered(server: Served, coding: grpc.Compression, x: np.ndarray) -> None:
    channel = server.channel()
    answer = channel.unary_unary(PREDICT)(request(x), compression=coding, timeout=60)
    assert np.array_equal(decode_response(answer).outputs["y"], 2 * np.asarray(x, np.float32))
    asked = [request(x, request_id=str(number)) for number in range(3)]
    answers = list(channel.stream_stream(PREDICT_STREAM)(iter(asked), compression=coding, timeout=60))
    assert len(answers) == 3
    eventually(lambda: empty(server))


def test_an_inflated_message_counts_while_it_waits(server: Served) -> None:
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    future = call.future(request(LARGE), compression=grpc.Compression.Gzip, timeout=60)
    server.scheduler.wait_for(1)
    assert server.inflight.nbytes >= LARGE.nbytes
    server.scheduler.release()
    assert future.result()
    eventually(lambda: empty(server))


def test_compressed_messages_that_do_not_fit_together_are_refused(serve) -> None:
    server = serve(config=ServerConfig(inflight=Inflight(bytes="2MiB")))
    server.scheduler.holding = True
    call = server.channel().unary_unary(PREDICT)
    futures = [call.future(request(LARGE), compression=grpc.Compression.Gzip, timeout=60) for _ in range(4)]
    eventually(lambda: sum(future.done() for future in futures) == 3, 60)
    assert server.inflight.nbytes <= 2 * 2**20
    done = [future for future in futures if future.done()]
    assert {future.code() for future in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert "inflight.bytes" in done[0].details()
    assert trailing(done[0])["inferd-accepted"] == "0"
    server.scheduler.release()
    eventually(lambda: all(future.done() for future in futures), 60)
    eventually(lambda: empty(server))


def test_a_compressed_message_over_the_limit_is_refused_by_what_comes_out_of_it(serve) -> None:
    server = serve(config=ServerConfig(grpc=Grpc(max_message="1MiB")))
    channel = server.channel()
    bomb = bytes(32 * 2**20)
    for call in (
        lambda: channel.unary_unary(PREDICT)(bomb, compression=grpc.Compression.Gzip, timeout=60),
        lambda: list(channel.stream_stream(PREDICT_STREAM)(iter([bomb]), compression=grpc.Compression.Gzip)),
    ):
        error = refused(call)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most 1048576 bytes, inflated too (grpc.max_message)" in error.details()
    eventually(lambda: empty(server))


def test_compression_can_be_refused(serve) -> None:
    server = serve(config=ServerConfig(grpc=Grpc(compression="refuse")))
    channel = server.channel()
    for coding in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        for call in (
            lambda coding=coding: channel.unary_unary(PREDICT)(request(LARGE), compression=coding, timeout=60),
            lambda coding=coding: list(
                channel.stream_stream(PREDICT_STREAM)(iter([request(LARGE)]), compression=coding, timeout=60)
            ),
        ):
            error = refused(call)
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "grpc.compression: refuse" in error.details()
    assert channel.unary_unary(PREDICT)(request(), timeout=60)
    eventually(lambda: empty(server))


@pytest.mark.parametrize("broken", ["cut", "followed", "changed"])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_broken_gzip_is_refused(server: Served, broken: str, size: int) -> None:
    packed = gzip.compress(np.random.default_rng(1).bytes(size))
    data = {"cut": packed[:-9], "followed": packed + b"x", "changed": packed[:-8] + bytes(8)}[broken]
    with RawClient(server.port) as client:
        stream = client.call(PREDICT, ("grpc-encoding", "gzip"))
        client.send(stream, message(data, compressed=True), end=True)
        assert client.ended(stream)
        assert any(b"begins as gzip, but cannot be inflated" in payload for *_, payload in client.frames)
    eventually(lambda: empty(server))


def test_a_client_that_is_gone_has_nothing_inflated(server: Served) -> None:
    packed = message(gzip.compress(bytes(40 * 2**20), 9), compressed=True)
    with RawClient(server.port) as client:
        streams = [client.call(PREDICT, ("grpc-encoding", "gzip")) for _ in range(20)]
        for stream in streams:
            client.send(stream, packed, end=True)
    eventually(lambda: empty(server), 60)
    assert server.predict()


def inflater(**inflight: object) -> tuple[Inflater, InflightBounds]:
    bounds = InflightBounds(Inflight(**inflight))
    return Inflater(Grpc(max_message="4MiB"), bounds), bounds


def test_a_message_that_only_begins_as_zlib_does_is_left_as_it_is() -> None:
    maker, bounds = inflater()
    for start in COMPRESSED[1:]:
        for rest in (b"", b"\x00", bytes(100), np.random.default_rng(2).bytes(200_000)):
            plain = start + rest
            found = maker.short(plain)
            assert (maker.inflated(plain, 0)[0] if found is None else found) == plain
    assert bounds.nbytes == 0


def test_what_is_inflated_is_exact_and_counted() -> None:
    maker, bounds = inflater()
    data = np.random.default_rng(3).bytes(1_500_000) + bytes(2_000_000)
    for packed in (gzip.compress(data), zlib.compress(data), zlib.compress(data, 1)):
        assert maker.short(packed) is None
        assert maker.inflated(packed, 0) == (data, len(data))
        assert bounds.nbytes == len(data)
        bounds.release(len(data))
    outcome, counted = maker.inflated(gzip.compress(bytes(5 * 2**20)), 0)
    assert isinstance(outcome, Failure)
    assert (outcome.code, counted, bounds.nbytes) == (Code.RESOURCE_EXHAUSTED, 0, 0)


def test_more_messages_than_may_wait_are_refused_at_once() -> None:
    maker, bounds = inflater()
    packed = gzip.compress(bytes(2**20))
    blocked, release = threading.Event(), threading.Event()
    outcomes: list[object] = []

    def first() -> bool:
        blocked.set()
        release.wait(60)
        return False

    maker.inflate(packed, 0, first, lambda *outcome: outcomes.append(outcome))
    assert blocked.wait(60)
    for _ in range(300):
        maker.inflate(packed, 0, lambda: False, lambda *outcome: outcomes.append(outcome))
    assert len(outcomes) == 300 - 256
    release.set()
    maker.stop()
    assert bounds.nbytes == 0
