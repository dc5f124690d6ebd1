"""`inferd bench`: the counts that it reports. Speed is not tested."""

from __future__ import annotations

import asyncio
import csv
import json
import threading

import grpc
import numpy as np
import pytest
from support.client import LONG, Failure, Script, f32_signature
from support.marked import prepare_model, publish
from support.server import Served

from inferd.client import DType, Signature, TensorSpec, Unavailable
from inferd.server.cli.bench.html import page
from inferd.server.cli.bench.load import BenchLoad, Tally, run_load
from inferd.server.cli.bench.sweep import concurrencies
from inferd.server.cli.errors import CommandError
from inferd.server.cli.inputs.arguments import parse_shapes, random_inputs
from inferd.v1 import tensor_pb2


def test_a_closed_loop_sends_the_given_number_of_requests(inferd, script: Script):
    report = inferd("bench", "m", "-n", "60", "-c", "4", "--warm-up", "3", "--json").json
    assert (report["mode"], report["concurrency"], report["version"]) == ("closed", 4, 3)
    assert (report["sent"], report["answered"], report["failed"]) == (60, 60, 0)
    latency = report["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert script.calls.count("Predict") == 1 + 3 + 60  # the trial, the warm-up, the load


def test_the_report_as_text(inferd):
    done = inferd("bench", "m", "-n", "10", "-i", "[[1, 2]]")
    assert done.code == 0
    assert "closed loop, 8 callers" in done.out
    assert "10 answered, 0 failed" in done.out
    assert "P50" in done.out


def test_an_open_loop_starts_requests_at_the_given_rate(inferd):
    report = inferd("bench", "m", "--rate", "100", "-d", "0.5", "--json").json
    assert (report["mode"], report["rate"], report["answered"]) == ("open", 100.0, 50)


def test_failures_are_counted_by_code_and_end_with_one(inferd, script: Script):
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    script.refuse = lambda request: full if len(script.requests) > 30 else None
    done = inferd("bench", "m", "-n", "50", "--json")
    assert done.code == 1
    report = done.json
    assert report["errors"] == {"RESOURCE_EXHAUSTED": report["failed"]}
    assert report["answered"] + report["failed"] == 50
    assert report["failed"] >= 30


def test_wrong_inputs_are_an_error_before_any_load(inferd, script: Script):
    script.refuse = lambda request: Failure(grpc.StatusCode.INVALID_ARGUMENT, "expected [8]")
    done = inferd("bench", "m", "-n", "50")
    assert (done.code, done.err) == (1, "inferd: INVALID_ARGUMENT: model 'm': expected [8]\n")
    assert script.calls.count("Predict") == 1


def test_random_inputs_have_the_given_batch_or_shape(inferd, script: Script):
    inferd("bench", "m", "-n", "1", "--batch", "5")
    assert list(script.requests[-1].inputs[0].shape) == [5, 2]
    inferd("bench", "m", "-n", "1", "--shape", "x=3,4")
    assert list(script.requests[-1].inputs[0].shape) == [3, 4]
    assert inferd("bench", "m", "--shape", "x").code == 2
    assert inferd("bench", "m", "--signature", "other").code == 2
    assert inferd("bench", "m", "--rate", "5", "-c", "3").code == 2


@pytest.mark.parametrize("dtype", list(DType))
def test_random_inputs_exist_for_every_type(dtype):
    signature = Signature("s", (TensorSpec("x", dtype, (-1, -1, 3)), TensorSpec("o", dtype, (1,), optional=True)), ())
    made = random_inputs(signature, 4, {})
    assert set(made) == {"x"}
    assert made["x"].shape == (4, 1, 3)
    assert made["x"].dtype == dtype.numpy


def test_a_shape_that_the_signature_lacks_must_be_given():
    signature = Signature("s", (TensorSpec("a:0", DType.FP32, None),), ())
    with pytest.raises(CommandError, match="--shape a:0="):
        random_inputs(signature, 1, {})
    assert random_inputs(signature, 1, parse_shapes(["a:0=2,2"]))["a:0"].shape == (2, 2)


def test_an_open_loop_measures_latency_from_the_intended_start():
    """A server stalls once: requests that were meant to start meanwhile have a long latency."""

    async def main() -> Tally:
        tally = Tally()
        calls = 0
        stalled = asyncio.get_running_loop().time

        async def send() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                # Blocks the event loop, so that no other request can start.
                end = stalled() + 0.2
                while stalled() < end:
                    pass

        await run_load(send, BenchLoad(None, 100.0, None, 20), tally)
        return tally

    tally = asyncio.run(main())
    latencies = np.asarray(tally.latencies)
    assert tally.answered == 20
    # All 20 requests were meant to start during the 0.2 s: they were late by 0.2 s at first, down to 0.
    assert (latencies > 0.05).sum() >= 10


def test_a_closed_loop_never_has_more_callers_than_given():
    most = now = 0

    async def send() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    tally = Tally()
    asyncio.run(run_load(send, BenchLoad(3, None, None, 50), tally))
    assert most == 3
    assert tally.answered == 50


def test_the_text_of_the_first_failure_is_kept():
    async def send() -> None:
        raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"number {tally.sent}")

    tally = Tally()
    asyncio.run(run_load(send, BenchLoad(1, None, None, 3), tally))
    assert tally.errors == {"UNAVAILABLE": 3}
    assert tally.first_error == "UNAVAILABLE: number 1"
    assert tally.summary()["latency_ms"] == {}


def test_ctrl_c_ends_the_load_and_still_reports(inferd, script: Script, capsys):
    import os
    import signal

    arrived = threading.Event()
    script.hold = lambda request: arrived.set() if len(script.requests) > 100 else None

    def interrupt() -> None:
        assert arrived.wait(LONG)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = inferd("bench", "m", "-d", "60", "--json")
    thread.join(LONG)
    assert "interrupted" in done.err
    assert done.json["answered"] > 0


def test_bench_can_send_strings(inferd, script: Script):
    script.signatures = [f32_signature(dtype=tensor_pb2.DATA_TYPE_STRING)]
    assert inferd("bench", "m", "-n", "5", "--json").json["answered"] == 5


# Sweeps and reports


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8", (8,)), ("1,4,16", (1, 4, 16)), ("1:4", (1, 2, 3, 4)), ("2:8:3", (2, 5, 8)), ("5:5", (5,))],
)
def test_concurrencies(text: str, expected: tuple[int, ...]):
    assert concurrencies(text) == expected


@pytest.mark.parametrize("text", ["0", "1,x", "4:1", "1:2:3:4", "1:1000000", "1:", ""])
def test_wrong_concurrencies_are_one_line(inferd, text: str):
    done = inferd("bench", "m", "-c", text)
    assert done.code == 2
    assert done.err.startswith("inferd: bench: argument -c/--concurrency: ")
    assert done.err.count("\n") == 1


def test_several_loads_run_one_after_the_other(inferd, script: Script, tmp_path):
    files = [tmp_path / f"report.{kind}" for kind in ("csv", "json", "html")]
    done = inferd("bench", "m", "-n", "20", "-c", "1,2,4", "--warm-up", "1", *(f"--report={file}" for file in files))
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[1][:6] == ["CALLERS", "REQUESTS/S", "FAILED", "P50", "P90", "P99"]
    assert [line[0] for line in lines[2:]] == ["1", "2", "4"]
    assert script.calls.count("Predict") == 1 + 3 * (1 + 20)
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [(row["concurrency"], row["answered"], row["server_queue_ms"]) for row in rows] == [
        ("1", "20", ""),
        ("2", "20", ""),
        ("4", "20", ""),
    ]
    assert float(rows[0]["p50_ms"]) > 0
    report = json.loads(files[1].read_text())
    assert [(each["concurrency"], each["server"]) for each in report["sweep"]] == [(1, None), (2, None), (4, None)]
    assert files[2].read_text().count("<tr>") == 4


def test_names_from_a_server_are_escaped_in_the_page():
    tally = Tally(ended=1.0, sent=1)
    tally.latencies.append(0.001)
    result = {"model": "<b>", "version": 1, "mode": "closed", "concurrency": 1, **tally.summary()}
    text = page([result | {"server": None, "network_ms": None}])
    assert "&lt;b&gt;:1" in text
    assert "<b>" not in text
    failed = {**result, "latency_ms": {}, "server": None, "network_ms": None}
    assert "Nothing was answered" in page([failed])


def test_a_report_needs_a_name_that_says_its_format(inferd):
    done = inferd("bench", "m", "-n", "1", "--report", "x.txt")
    assert (done.code, done.err) == (
        2,
        "inferd: --report 'x.txt': expected a name that ends in .json, .csv, .html\n",
    )


def test_rates_may_be_several(inferd):
    report = inferd("bench", "m", "--rate", "50,100", "-d", "0.2", "--json").json
    assert [(each["mode"], each["rate"], each["answered"]) for each in report["sweep"]] == [
        ("open", 50.0, 10),
        ("open", 100.0, 20),
    ]


def test_the_servers_own_split_is_reported(cli, tmp_path):
    publish("onnx", prepare_model("onnx", tmp_path, "m"), 1, 1.0)
    with Served(tmp_path) as server:
        where = ("--address", server.address)
        report = cli("bench", "m", "-n", "40", "-c", "4", "--json", *where).json
        split = report["server"]
        assert split["requests"] == report["answered"] == 40
        parts = split["queue_ms"] + split["compute_ms"] + split["rest_ms"]
        assert parts >= split["total_ms"] - 1e-6 > -1
        assert report["network_ms"] <= report["latency_ms"]["mean"]
        assert split["rows_per_run"] >= 1
        text = cli("bench", "m", "-n", "10", *where).out
    assert "in the server, mean of 10 requests: queue " in text
    assert "outside (network and this client): " in text
