"""Failed gRPC calls are detected, although h2load itself cannot see whether a gRPC call has failed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import grpc
import pytest
from benchmarks.h2load import LoadError, Target, available, frame, judge, load

PATH = "/inference.GRPCInferenceService/ModelInfer"
SAID = """finished in 5.64s, 177.39 req/s, 29.97KB/s
requests: 1000 total, 1000 started, 1000 done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, {failed} 5xx
traffic: 168.95KB (173000) total, 95.70KB (98000) headers (space savings 0.00%), 39.06KB ({data}) data
"""


def test_every_complete_answer_is_counted() -> None:
    assert judge(SAID.format(succeeded=1000, failed=0, data=40_000), 40) == (177.39, 1000)


@pytest.mark.parametrize(
    ("succeeded", "data", "why"), [(999, 40_000, "no HTTP 200"), (1000, 39_960, "about 1 request")]
)
def test_one_missing_answer_fails_the_round(succeeded: int, data: int, why: str) -> None:
    with pytest.raises(LoadError, match=why):
        judge(SAID.format(succeeded=succeeded, failed=1000 - succeeded, data=data), 40)


def test_unknown_output_is_an_error() -> None:
    with pytest.raises(LoadError, match="not understood"):
        judge("segmentation fault", 40)


@pytest.fixture
def flaky() -> Iterator[tuple[str, list[int]]]:
    """A gRPC echo server, and a list with the numbers of the calls that are to fail."""
    numbers, failing = count(), list[int]()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if next(numbers) in failing:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return request

    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
    generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", failing
    server.stop(0).wait(10)


@pytest.mark.skipif(not available(), reason="h2load is not installed")
def test_a_failed_call_is_detected_although_its_http_status_is_200(
    flaky: tuple[str, list[int]], tmp_path: Path
) -> None:
    address, failing = flaky
    message = b"x" * 100
    (tmp_path / "body").write_bytes(frame(message))
    target = Target(f"http://{address}{PATH}", tmp_path / "body", len(frame(message)))

    done = load(target, 32, 200)
    assert done.requests == 200
    assert done.rate > 0
    assert 0 < done.p50 <= done.p99

    failing.append(300)
    with pytest.raises(LoadError, match="about 1 requests failed"):
        load(target, 32, 200)
