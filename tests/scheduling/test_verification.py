"""batching.verify: rows of batches run again alone, after the answer, and a difference turns batching off."""

from __future__ import annotations

import numpy as np
import pytest
from support.hot_calls import ask, servers
from support.scheduling import F32, PATIENCE, Call, FakeModel, Recorder, hold, signature, submit, vector
from support.waiting import eventually

from inferd.backends.api import NOT_ANALYSED, BackendError, Independence, Traits
from inferd.wire.dtypes import DType

ALL = {"verify": 1.0}


def total(recorder):
    """Rows that were verified, and how many of them differed."""
    with recorder.lock:
        return tuple(map(sum, zip(*recorder.verifications, strict=True))) if recorder.verifications else (0, 0)


def together(model, scheduler, *calls):
    """Runs the calls in one batch, behind a request that occupies the instance."""
    blocker = hold(model, scheduler)
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    blocker.wait()
    for call in calls:
        call.wait()


def start(serve, function=None, batching=ALL, **options):
    """`function` computes after the load only, so that neither proof nor probe knows it."""
    model, recorder = FakeModel(), Recorder()
    scheduler = serve(model, batching=batching, observer=recorder, **options)
    if function is not None:
        model.function = function
    return model, scheduler, recorder


def by_largest(_, inputs):
    x = inputs["x"]
    return {"y": x / x.max() if x.max() > 100 else x}


def test_every_row_of_a_batch_is_verified_after_the_answer(serve):
    model, scheduler, recorder = start(serve)
    together(model, scheduler, *(calls := [vector(n) for n in range(1, 5)]))
    assert [call.result()["y"][0, 0] for call in calls] == [2, 4, 6, 8]
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (4, 0)
    assert sorted(model.batches) == [1, 1, 1, 1, 1, 4]
    assert scheduler.batching == "up to 32 rows"


def test_without_the_setting_nothing_runs_again(serve):
    model, scheduler, recorder = start(serve, batching={})
    together(model, scheduler, vector(1), vector(2))
    assert scheduler.drain(PATIENCE)
    assert model.batches == [1, 2]
    assert recorder.verifications == []


def test_a_difference_turns_batching_off_for_the_version(serve, caplog):
    model, scheduler, recorder = start(serve, by_largest)
    together(model, scheduler, vector(3), vector(500))
    eventually(lambda: scheduler.max_batch_size == 0, "batching is turned off")
    text = "at run time a row got a different output 'y' (by up to 2.99) in a batch of 2"
    assert scheduler.batching == f"unbatched: {text}"
    assert scheduler.basis == "unproven"
    assert total(recorder) == (2, 1)
    assert caplog.text.count("this is a bug in inferd") == 1
    model.forget()
    together(model, scheduler, *(calls := [vector(3), vector(500)]))
    assert [call.result()["y"][0, 0] for call in calls] == [3, 1]
    assert set(model.batches) == {1}


def test_all_signatures_of_the_version_are_unbatched(serve):
    f, g = (signature({"x": (F32, (-1, -1))}, {"y": (F32, (-1, -1))}, name) for name in "fg")
    model = FakeModel(signatures=[f, g])
    scheduler = serve(model, batching=ALL)
    model.function = by_largest
    together(model, scheduler, vector(3), vector(500))
    eventually(lambda: scheduler.max_batch_size == 0, "batching is turned off")
    assert scheduler.batching.startswith("unbatched: at run time a row got a different output 'y'")


def test_a_declared_version_stays_batched_and_says_it_once(serve, caplog):
    model, recorder = FakeModel(), Recorder()
    model.finding = NOT_ANALYSED
    scheduler = serve(model, batching={"verify": 1.0, "mode": "trusted"}, observer=recorder)
    assert (scheduler.batching, scheduler.basis) == ("up to 32 rows (declared)", "declared")
    model.function = by_largest
    for _ in range(2):
        together(model, scheduler, vector(3), vector(500))
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (4, 2)
    text = "at run time a row got a different output 'y' (by up to 2.99) in a batch of 2"
    assert scheduler.batching == f"up to 32 rows (declared, but {text})"
    assert scheduler.basis == "contested"
    assert caplog.text.count("is batched because that is declared, but at run time") == 1


def test_rounding_is_no_difference(serve):
    """Another kernel for larger batches: its rounding is amplified by quantisation, or turns a label over."""

    def rounded(_, inputs):
        x = inputs["x"]
        many = len(x) > 1
        return {"y": x * np.float32(1.01 if many and x[0, 0] > 9 else 1), "label": np.full((len(x), 1), many)[: len(x)]}

    spec = signature({"x": (F32, (-1, -1))}, {"y": (F32, (-1, -1)), "label": (DType.BOOL, (-1, 1))})
    model = FakeModel(lambda _, i: {"y": i["x"], "label": i["x"][:, :1] > 0}, [spec])
    recorder = Recorder()
    scheduler = serve(model, batching=ALL, observer=recorder)
    model.function = rounded
    together(model, scheduler, vector(10), vector(12))
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (2, 0)
    assert scheduler.max_batch_size == 32


def test_a_row_with_nan_turns_nothing_off(serve):
    def placed(_, inputs):  # what NaN becomes depends on its place in a vector unit
        x = inputs["x"]
        return {"y": np.where(np.isnan(x), np.float32(np.nan if len(x) > 1 else -128), x)}

    model, scheduler, recorder = start(serve, placed)
    together(model, scheduler, vector(float("nan")), vector(2))
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (2, 0)


@pytest.mark.parametrize("share", [0.25, 0.1])
def test_the_share_is_kept(serve, share):
    model, scheduler, recorder = start(serve, batching={"verify": share})
    for _ in range(10):
        together(model, scheduler, *[vector(n) for n in range(1, 9)])
    assert scheduler.drain(PATIENCE)
    verified, different = total(recorder)
    assert different == 0
    assert abs(verified - 80 * share) <= 1


def test_a_model_that_writes_into_its_inputs_is_verified_with_what_it_was_given(serve):
    def spoil(_, inputs):
        y = inputs["x"] * 2
        inputs["x"][...] = -1
        return {"y": y}

    model, recorder = FakeModel(traits=Traits(may_write_inputs=True, alignment=64)), Recorder()
    scheduler = serve(model, batching=ALL, observer=recorder)
    model.function = spoil
    together(model, scheduler, vector(1), vector(2))
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (2, 0)


def test_only_the_wanted_outputs_and_the_same_scalars_are_used(serve):
    spec = signature({"x": (F32, (-1, 2)), "s": (F32, ())}, {"y": (F32, (-1, 2)), "z": (F32, (-1, 2))})
    model = FakeModel(lambda _, i: {"y": i["x"] * i["s"], "z": i["x"]}, [spec])
    recorder = Recorder()
    scheduler = serve(model, batching=ALL, observer=recorder)

    def call(value):
        return Call({"x": np.full((1, 2), value, np.float32), "s": np.array(3, np.float32)}, wanted=("y",))

    model.gate.close()
    submit(scheduler, first := call(0))
    model.gate.wait_for_arrivals()
    for value in (1, 2):
        submit(scheduler, call(value))
    model.gate.open()
    first.wait()
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (2, 0)
    assert all(wanted == ("y",) for _, _, wanted in model.runs)


def test_a_row_that_is_refused_alone_is_told_once(serve, caplog):
    def shy(_, inputs):
        if len(inputs["x"]) == 1 and inputs["x"].max() > 0:
            raise BackendError("not alone")
        return {"y": inputs["x"]}

    model, scheduler, recorder = start(serve, shy)
    together(model, scheduler, vector(1), vector(2))
    assert scheduler.drain(PATIENCE)
    assert total(recorder) == (0, 0)
    assert caplog.text.count("cannot be verified: not alone") == 1
    assert scheduler.max_batch_size == 32


def test_the_loop_leaves_a_due_row_to_a_worker():
    with servers() as serve_hot:
        server = serve_hot(batching={"verify": 0.5}, finding=Independence(True))
        server.trust()
        for _ in range(20):
            calls = [ask(n) for n in range(4)]
            server.hand_over(*calls)
            assert [call.y for call in calls] == [[2 * n] for n in range(4)]
        assert server.scheduler.drain(PATIENCE)
        verified, different = total(server.recorder)
        assert different == 0
        assert verified >= 4
