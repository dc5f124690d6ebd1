"""Batching as the static proof decides: off, declared, proven and not vetoed by the probe, else unbatched."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.scheduling import F32, Call, FakeModel, hold, signature, submit, vector

from inferd.backends.api import Independence, InvalidInput, Traits
from inferd.server.scheduling.bucket import ALONE, BucketKeys
from inferd.server.scheduling.padding import Padding

PROVEN = Independence(True)
MIXES = Independence(False, "y", "ReduceMax", "largest", "reduces over the batch axis")
UNKNOWN = Independence(False, "y", "acme:Scale", "n", "is no operator that the analysis knows", understood=False)
DECLARE = "; declare batching.mode: trusted if rows are independent"


class AnalysedModel(FakeModel):
    """A model with a finding of the static analysis."""

    def __init__(self, finding, *args, **options):
        super().__init__(*args, **options)
        self.finding = finding
        self.analyses = 0

    def independence(self, _signature):
        self.analyses += 1
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding


def count_rows(_, inputs):
    return {"y": inputs["x"] * len(inputs["x"])}


def test_what_is_proven_is_batched(serve):
    assert serve(AnalysedModel(PROVEN)).batching == "up to 32 rows"


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (MIXES, "output 'y': ReduceMax reduces over the batch axis, at node 'largest'"),
        (UNKNOWN, "output 'y': not understood: acme:Scale is no operator that the analysis knows, at node 'n'"),
        (Independence(False, "s", reason="is a constant"), "output 's' is a constant"),
    ],
    ids=["mixes", "not understood", "no operator"],
)  # fmt: skip
def test_what_is_not_proven_is_unbatched_and_says_why(serve, finding, text):
    scheduler = serve(AnalysedModel(finding))
    assert scheduler.batching == f"unbatched: not proven: {text}{DECLARE}"
    assert scheduler.max_batch_size == 0


def test_a_model_that_cannot_be_analysed_is_not_proven(serve):
    none = f"unbatched: not proven: its backend has no analysis of such models{DECLARE}"
    assert serve(AnalysedModel(None)).batching == none


def test_a_probe_that_disagrees_with_a_proof_is_logged_as_a_bug(serve, caplog):
    scheduler = serve(AnalysedModel(PROVEN, count_rows))
    assert scheduler.batching.startswith("unbatched: rows influence each other")
    assert "This is a bug in inferd" in caplog.text


def test_a_probe_that_shows_nothing_does_not_veto(serve, caplog):
    def picky(_, inputs):
        if (inputs["x"] != 7).any():
            raise InvalidInput("only sevens, please")
        return {"y": inputs["x"]}

    assert serve(AnalysedModel(PROVEN, picky)).batching == "up to 32 rows"
    alike = AnalysedModel(PROVEN, lambda _, inputs: {"y": np.zeros_like(inputs["x"])})
    assert serve(alike).batching == "up to 32 rows"
    assert "bug" not in caplog.text


def test_the_probe_still_finds_a_smaller_largest_batch(serve):
    def at_most_10(_, inputs):
        if len(inputs["x"]) > 10:
            raise InvalidInput("ten at most")
        return {"y": inputs["x"] * 2}

    assert serve(AnalysedModel(PROVEN, at_most_10)).batching.startswith("up to 8 rows (the model refuses 32 rows")


def test_state_is_found_though_nothing_is_proven(serve):
    counts = iter(range(1000))
    scheduler = serve(AnalysedModel(MIXES, lambda _, inputs: {"y": inputs["x"] + next(counts)}))
    assert scheduler.stateful


def test_a_declaration_is_not_vetoed_and_the_findings_are_logged_and_shown(serve, caplog):
    text = "declared, but the analysis of its graph says: output 'y': ReduceMax reduces over the batch axis"
    declared = {"mode": "trusted"}
    assert serve(AnalysedModel(MIXES), batching=declared).batching == f"up to 32 rows ({text}, at node 'largest')"
    assert caplog.text.count("declared, but the analysis of its graph says: output 'y': ReduceMax reduces") == 1
    both = serve(AnalysedModel(MIXES, count_rows), batching=declared).batching
    assert both.startswith(f"up to 32 rows ({text}, at node 'largest'; the probe says: rows influence each other")


def test_a_declaration_that_is_proven_needs_no_words(serve, caplog):
    assert serve(AnalysedModel(PROVEN), batching={"mode": "trusted"}).batching == "up to 32 rows (declared)"
    assert caplog.text == ""


class PlugIn:
    """A model of a backend that analyses nothing."""

    def __init__(self, model):
        self.signatures, self.traits = model.signatures, model.traits
        self.instance, self.close = model.instance, model.close


def test_a_model_without_an_analysis_is_batched_only_where_that_is_declared(serve):
    unbatched = serve(PlugIn(FakeModel()))
    assert unbatched.batching == f"unbatched: not proven: its backend has no analysis of such models{DECLARE}"
    assert serve(PlugIn(FakeModel()), batching={"mode": "trusted"}).batching == "up to 32 rows (declared)"


@pytest.mark.parametrize(
    "options", [{"batching": {"mode": "off"}}, {"stateful": True}, {"batching": {"max_batch_size": 1}}]
)
def test_what_is_not_batched_is_not_analysed(serve, options):
    model = AnalysedModel(PROVEN)
    assert serve(model, **options).max_batch_size == 0
    assert model.analyses == 0


def test_an_analysis_that_fails_leaves_the_model_unbatched(serve, caplog):
    scheduler = serve(AnalysedModel(ZeroDivisionError("oops")))
    assert scheduler.batching == f"unbatched: not proven: the analysis failed (ZeroDivisionError){DECLARE}"
    assert "oops" in caplog.text


TWO = signature({"a": (F32, (-1, -1)), "b": (F32, (-1, -1))}, {"y": (F32, (-1, -1))})


def pair(width: int, other: int, rows: int = 1) -> Call:
    return Call({"a": np.ones((rows, width), np.float32), "b": np.ones((rows, other), np.float32)})


def test_requests_for_which_the_proof_does_not_hold_run_alone(serve):
    equal = Independence(True, equal=((("a", 1), ("b", 1)),))
    model = AnalysedModel(equal, lambda _, inputs: {"y": inputs["a"] * 2}, [TWO])
    scheduler = serve(model)
    assert scheduler.max_batch_size == 32
    model.forget()
    model.gate.close()
    calls = [pair(2, 2), *[pair(2, 3), pair(2, 2)] * 3]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    for call in calls:
        assert call.result()["y"].shape == (1, 2)
    assert all(len(inputs["a"]) == 1 for _, inputs, _ in model.runs if inputs["b"].shape[1] == 3)


def test_a_large_request_for_which_the_proof_does_not_hold_is_not_split(serve):
    equal = Independence(True, equal=((("a", 1), ("b", 1)),))
    model = AnalysedModel(equal, lambda _, inputs: {"y": inputs["a"] * 2}, [TWO])
    scheduler = serve(model, batching={"max_batch_size": 4})
    model.forget()
    submit(scheduler, call := pair(2, 3, rows=10))
    assert call.result()["y"].shape == (10, 2)
    assert model.batches == [10]


def test_empty_dimensions_run_alone(serve):
    model = AnalysedModel(PROVEN)
    scheduler = serve(model)
    blocker = hold(model, scheduler)
    model.forget()
    calls = [vector(1, width=0), vector(2, width=0)]
    for call in calls:
        submit(scheduler, call)
    model.gate.open()
    blocker.wait()
    for call in calls:
        assert call.result()["y"].shape == (1, 0)
    assert model.batches == [1, 1]


def test_keys_of_what_is_proven():
    keys = BucketKeys(TWO, Padding(TWO, {})).requiring(((("a", 1), ("b", 1)),))
    assert keys.of({"a": np.ones((2, 3)), "b": np.ones((2, 3))}) == (2, ((3,), (3,)))
    assert keys.of({"a": np.ones((2, 3)), "b": np.ones((2, 4))}) == (0, ALONE)
    assert keys.of({"a": np.ones((2, 0)), "b": np.ones((2, 0))}) == (2, ALONE)
    assert keys.of({"a": np.ones((2, 0)), "b": np.ones((2, 3))}) == (0, ALONE)
    # What the model sees is padded: equal sizes may become different ones, and the other way round.
    one = BucketKeys(TWO, Padding(TWO, {"a": [8]})).requiring(((("a", 1), ("b", 1)),))
    assert one.of({"a": np.ones((2, 3)), "b": np.ones((2, 3))}) == (0, ALONE)
    assert one.of({"a": np.ones((2, 3)), "b": np.ones((2, 8))}) == (2, ((8,), (8,)))
    both = BucketKeys(TWO, Padding(TWO, {"a": [8], "b": [8]})).requiring(((("a", 1), ("b", 1)),))
    assert both.of({"a": np.ones((2, 3)), "b": np.ones((2, 5))}) == (2, ((8,), (8,)))
    loose = BucketKeys(TWO, Padding(TWO, {}))
    assert loose.of({"a": np.ones((2, 3)), "b": np.ones((2, 4))}) == (2, ((3,), (4,)))


def test_a_declaration_of_statelessness_is_heeded(serve, caplog):
    stateful = Traits(stateful=True)
    for stateless, expected in ((None, "unbatched: stateful"), (True, "unbatched: stateful")):
        scheduler = serve(FakeModel(traits=stateful), stateful=stateless)
        assert (scheduler.stateful, scheduler.batching) == (True, expected)
    scheduler = serve(FakeModel(traits=stateful), stateful=False)
    assert not scheduler.stateful
    assert scheduler.batching.startswith("unbatched: not proven: its graph keeps state between runs; declare batching")
    assert "served as stateless because that is declared" in caplog.text
    trusted = serve(FakeModel(traits=stateful), stateful=False, batching={"mode": "trusted"})
    assert trusted.max_batch_size == 32


def test_trust_in_a_stateful_model_is_refused_aloud(serve, caplog):
    scheduler = serve(FakeModel(traits=Traits(stateful=True)), batching={"mode": "trusted"})
    assert scheduler.batching == "unbatched: stateful; batching.mode: trusted is not heeded"
    assert "declare stateful: false" in caplog.text


def test_state_that_the_warm_up_finds_is_overruled_by_a_declaration(serve):
    counted = itertools.count()

    def counts(_, inputs):
        return {"y": inputs["x"] + next(counted)}

    assert serve(FakeModel(counts)).stateful
    scheduler = serve(FakeModel(counts), stateful=False)
    assert not scheduler.stateful
    assert scheduler.batching.startswith("unbatched: stateful: the same row gets a different output")
