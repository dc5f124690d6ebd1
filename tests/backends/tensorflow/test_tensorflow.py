"""Features of SavedModels only: several signatures, strings and tables, two loaders."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.saved_models import X, doubling, of, save, served, words

from inferd.backends.api import (
    BackendError,
    BrokenContract,
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
)
from inferd.backends.tensorflow import model as tensorflow_model
from inferd.backends.tensorflow.backend import TensorFlowBackend
from inferd.wire.dtypes import DType

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.heavy


# ---- signatures


def test_every_signature_is_served_the_default_first_and_the_init_op_hidden(version: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable([[1.0], [2.0]])
    save(
        version,
        module,
        classify=tf.function(lambda x: {"scores": x @ module.w}, input_signature=[of(None, 2)]),
        anything=tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec(None, tf.int64, name="x")]),
        serving_default=tf.function(lambda x: {"y": x * 2.0}, input_signature=[of(None, None)]),
    )
    with served(version) as (model, instance):
        assert [s.name for s in model.signatures] == ["serving_default", "anything", "classify"]
        assert {s.method_name for s in model.signatures} == {"tensorflow/serving/predict"}
        shapes = {s.name: s.inputs[0].shape for s in model.signatures}
        assert shapes == {"serving_default": (-1, -1), "anything": None, "classify": (-1, 2)}
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], X * 2)
        np.testing.assert_array_equal(instance.run("classify", {"x": X})["scores"], [[5], [11]])
        for shape in ((), (3,), (2, 2, 1)):
            x = np.zeros(shape, np.int64)
            np.testing.assert_array_equal(instance.run("anything", {"x": x})["y"], x + 1)
        with pytest.raises(InvalidInput, match="anything, classify"):
            instance.run("nope", {"x": X})


def test_a_sparse_input_excludes_only_its_own_signature(version: Path) -> None:
    v1 = tf.compat.v1
    version.rmdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2])
        s = v1.sparse_placeholder(tf.float32, [None, 4])
        define = v1.saved_model.signature_def_utils.predict_signature_def
        builder = v1.saved_model.builder.SavedModelBuilder(str(version))
        dense = define({"x": x}, {"y": x * 2.0})
        sparse = define({"s": s}, {"y": tf.sparse.to_dense(s)})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": dense, "sparse": sparse})
        builder.save()
    with served(version) as (model, instance):
        assert [s.name for s in model.signatures] == ["serving_default"]
        assert any("'sparse' is not served: input 's' is a sparse tensor" in note for note in model.traits.notes)
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], 2 * X)


def test_a_declaration_may_narrow_but_not_contradict(version: Path) -> None:
    doubling(version)
    x = TensorSpec("x", DType.FP32, (2, -1))
    with served(version, Signature("serving_default", (x,), ())) as (model, instance):
        assert model.signatures[0].inputs[0].shape == (2, 2)
        assert model.signatures[0].outputs[0].name == "y"
        with pytest.raises(InvalidInput, match=r"expected shape \[2, 2\], got \[1, 2\]"):
            instance.run("serving_default", {"x": X[:1]})
    for wrong, reason in (
        (Signature("serving_default", (TensorSpec("x", DType.FP64, None),), ()), "'x' is declared as FP64.*FP32"),
        (Signature("serving_default", (TensorSpec("z", DType.FP32, None),), ()), "'z' is declared.*has x"),
        (Signature("other", (x,), ()), "'other' is declared.*serving_default"),
    ):
        with pytest.raises(LoadError, match=reason), served(version, wrong):
            pass


def _refuse(*_: Any) -> Any:
    raise ValueError("no session today")


_THREE, _NONE = tf.constant(3.0), tf.constant("none")


class _Scaled(tf.Module):  # type: ignore[misc]
    @tf.function(input_signature=[of(None, 2), of(name="k"), of(kind=tf.string, name="word")])  # type: ignore[untyped-decorator]
    def run(self, x: Any, k: Any = _THREE, word: Any = _NONE) -> Any:
        return {"y": x * k, "w": word}


@pytest.mark.parametrize("eager", [False, True])
def test_inputs_with_default_values_are_optional(version: Path, monkeypatch: pytest.MonkeyPatch, eager: bool) -> None:
    module = _Scaled()
    tf.saved_model.save(module, str(version), signatures={"serving_default": module.run})
    if eager:
        monkeypatch.setattr(tensorflow_model, "SessionRunner", _refuse)
    with served(version) as (model, instance):
        assert {s.name for s in model.signatures[0].inputs if s.optional} == {"k", "word"}
        got = instance.run("serving_default", {"x": X})
        np.testing.assert_array_equal(got["y"], X * 3)
        assert got["w"].item() == b"none"
        given = {"x": X, "k": np.array(5, np.float32), "word": np.array(b"some", object)}
        got = instance.run("serving_default", given)
        np.testing.assert_array_equal(got["y"], X * 5)
        assert got["w"].item() == b"some"
        with pytest.raises(InvalidInput, match="missing input 'x'"):
            instance.run("serving_default", {"k": np.array(5, np.float32)})


def test_a_declaration_cannot_make_an_input_optional(version: Path) -> None:
    doubling(version)
    may_lack = TensorSpec("x", DType.FP32, None, optional=True)
    with served(version, Signature("serving_default", (may_lack,), ())) as (model, instance):
        assert not model.signatures[0].inputs[0].optional
        with pytest.raises(InvalidInput, match="missing input 'x'"):
            instance.run("serving_default", {})


def test_scalars_and_bare_values_are_returned_as_arrays(version: Path) -> None:
    save(
        version,
        tf.Module(),
        serving_default=tf.function(
            lambda x, name: {"sum": tf.reduce_sum(x), "name": tf.strings.join([name, "!"]), "n": tf.size(x)},
            input_signature=[of(None), of(kind=tf.string, name="name")],
        ),
    )
    with served(version) as (model, instance):
        assert {s.name: s.shape for s in model.signatures[0].outputs} == {"sum": (), "name": (), "n": ()}
        got = instance.run("serving_default", {"x": X[0], "name": np.array(b"a\x00b", object)})
        assert {name: (type(v), v.shape, v.dtype.name) for name, v in got.items()} == {
            "sum": (np.ndarray, (), "float32"),
            "name": (np.ndarray, (), "object"),
            "n": (np.ndarray, (), "int32"),
        }
        assert (got["sum"].item(), got["name"].item(), got["n"].item()) == (3.0, b"a\x00b!", 2)


def test_any_choice_of_outputs_is_answered_with_bounded_memory(version: Path) -> None:
    names = "abcdef"
    save(
        version,
        tf.Module(),
        serving_default=tf.function(
            lambda x: {n: x + float(i) for i, n in enumerate(names)}, input_signature=[of(None, 2)]
        ),
    )
    with served(version) as (_, instance):
        for size in range(1, len(names) + 1):
            for chosen in itertools.combinations(names, size):
                got = instance.run("serving_default", {"x": X}, chosen)
                assert set(got) == set(chosen)
                for name in chosen:
                    np.testing.assert_array_equal(got[name], X + names.index(name))
        assert len(instance._runner._callables) <= 17  # type: ignore[attr-defined]


# ---- strings, tables, state


def test_a_vocabulary_table_answers_after_its_files_are_gone(version: Path, tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("zero\none\ntwo\n")
    module = tf.Module()
    asset = tf.saved_model.Asset(str(vocabulary))
    text_file = tf.lookup.TextFileInitializer(
        asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(text_file, -1)
    save(
        version,
        module,
        serving_default=tf.function(
            lambda word: {"number": module.table.lookup(word), "loud": tf.strings.upper(word)},
            input_signature=[of(None, kind=tf.string, name="word")],
        ),
    )
    vocabulary.unlink()
    with served(version) as (model, early):
        shutil.rmtree(version)
        assert not model.traits.stateful
        for instance in (early, model.instance(Placement())):
            got = instance.run("serving_default", {"word": words(b"two", b"zero", b"nine", b"")})
            assert got["number"].tolist() == [2, 0, -1, -1]
            assert got["loud"].tolist() == [b"TWO", b"ZERO", b"NINE", b""]


def test_a_counting_model_is_stateful_and_its_instances_share_the_count(version: Path) -> None:
    module = tf.Module()
    module.count = tf.Variable(0, dtype=tf.int64)
    save(
        version,
        module,
        serving_default=tf.function(
            lambda x: {"count": module.count.assign_add(1) + 0 * tf.cast(x[0, 0], tf.int64)},
            input_signature=[of(None, 2)],
        ),
    )
    with served(version) as (model, instance):
        assert model.traits.stateful
        other = model.instance(Placement())
        counts = [i.run("serving_default", {"x": X})["count"].item() for i in (instance, other, instance)]
        assert counts == [1, 2, 3]
        other.close()


def test_a_tensorflow_1_model_loads(version: Path) -> None:
    v1 = tf.compat.v1
    version.rmdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        w = v1.get_variable("w", initializer=np.array([[1.0], [10.0]], np.float32), use_resource=False)
        y = tf.matmul(x, w)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(version))
        definition = v1.saved_model.signature_def_utils.predict_signature_def({"in": x}, {"out": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": definition})
        builder.save()
    with served(version) as (model, instance):
        assert not model.traits.stateful
        np.testing.assert_array_equal(instance.run("serving_default", {"in": X})["out"], [[21], [43]])
    with pytest.raises(LoadError, match="no graph with the tags gpu; it has serve"), served(version, tags=["gpu"]):
        pass


# ---- the fallback, threads, errors


def test_a_model_that_the_session_refuses_is_loaded_eagerly_with_a_note(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubling(version)
    monkeypatch.setattr(tensorflow_model, "SessionRunner", _refuse)
    with served(version) as (model, instance):
        assert any("tf.saved_model.load" in n and "no session today" in n for n in model.traits.notes)
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], 2 * X)
        finding = model.independence(model.signatures[0])  # type: ignore[attr-defined]
        assert "the graph is not the one that runs" in str(finding)
        with pytest.raises(InvalidInput):
            instance.run("serving_default", {"x": X[0]})


def test_the_first_model_sizes_the_thread_pool_and_others_get_a_note(version: Path) -> None:
    doubling(version)
    backend = TensorFlowBackend()
    with served(version, backend=backend) as (first, _):
        assert first.traits.notes == ()
    with served(version, backend=backend) as (second, _):
        second.instance(Placement("cpu", 1)).close()
    model = backend.open(OpenRequest("m", 1, version, version))
    model.instance(Placement("cpu", 3)).close()
    assert any("belong to the process: 1" in note for note in model.traits.notes)
    model.close()


def test_errors_name_the_reason_without_the_graph(version: Path) -> None:
    save(
        version,
        tf.Module(),
        serving_default=tf.function(
            lambda x, i: {"y": tf.gather(x, i), "z": tf.debugging.check_numerics(x, "not a number came in")},
            input_signature=[of(None, 2), of(None, kind=tf.int32, name="i")],
        ),
    )
    with served(version) as (_, instance):
        with pytest.raises(InvalidInput, match=r"indices\[0\] = 7 is not in \[0, 2\)") as refused:
            instance.run("serving_default", {"x": X, "i": np.array([7], np.int32)})
        for noise in ("{{", "[[", "node", "Detected", "traces"):
            assert noise not in str(refused.value)
        with pytest.raises(BackendError, match="not a number came in") as failed:
            instance.run("serving_default", {"x": X * np.nan, "i": np.array([0], np.int32)})
        assert not isinstance(failed.value, InvalidInput)
        got = instance.run("serving_default", {"x": X, "i": np.array([1], np.int32)}, ["y"])
        np.testing.assert_array_equal(got["y"], X[1:])


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (lambda x: tf.gather(tf.zeros([2, 2]), tf.cast(x[0], tf.int32) + 7), BackendError, "is not in"),
        (lambda x: tf.reshape(x, tf.cast(x[0, :1] * 0 + 7, tf.int32)), BackendError, "reshape"),
        (lambda x: tf.debugging.check_numerics(x / 0.0, "no number"), BackendError, "no number"),
        (lambda x: 1 // tf.cast(x * 0, tf.int32), BackendError, "division by zero"),
        (lambda x: tf.fill(tf.cast(x[0] * 1e6 + 1e6, tf.int32), 1.0), BackendError, "out of memory"),
        (
            lambda x: tf.ensure_shape(tf.py_function(lambda v: v, [x], tf.float32), [None, 2]),
            BrokenContract,
            "callback",
        ),
    ],
)
def test_what_fails_inside_a_model_is_not_the_callers_fault(
    version: Path, body: Any, kind: type[BackendError], words: str
) -> None:
    function = tf.function(lambda x: {"y": body(x)}, input_signature=[of(None, 2)])
    save(version, tf.Module(), serving_default=function)
    _forget_python_functions()
    with served(version) as (_, instance), pytest.raises(kind, match=words) as failed:
        instance.run("serving_default", {"x": X})
    assert not isinstance(failed.value, InvalidInput)


def _forget_python_functions() -> None:
    """As in a process that did not make the model."""
    from tensorflow.python.ops import script_ops

    script_ops._py_funcs._funcs.clear()


def test_wrong_sizes_and_contents_that_the_signature_leaves_open_are_the_callers(version: Path) -> None:
    matrix = tf.function(lambda x: {"y": tf.matmul(x, tf.ones([2, 1]))}, input_signature=[of(None, None)])
    number = tf.function(lambda s: {"y": tf.strings.to_number(s)}, input_signature=[of(None, kind=tf.string, name="s")])
    save(version, tf.Module(), serving_default=matrix, number=number)
    with served(version) as (_, instance):
        with pytest.raises(InvalidInput, match="incompatible"):
            instance.run("serving_default", {"x": np.ones((1, 5), np.float32)})
        with pytest.raises(InvalidInput, match="could not correctly convert"):
            instance.run("number", {"s": np.array([b"one"], object)})


def test_closing_twice_or_running_after_is_harmless(version: Path) -> None:
    doubling(version)
    with served(version) as (model, instance):
        other = model.instance(Placement())
        other.close()
        other.close()
        with pytest.raises(BackendError, match="closed"):
            other.run("serving_default", {"x": X})
        np.testing.assert_array_equal(instance.run("serving_default", {"x": X})["y"], 2 * X)


def test_private_copies_are_removed(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubling(version)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with served(version):
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())
    with pytest.raises(LoadError), served(version, tags=["nope"]):
        pass
    assert not list(scratch.iterdir())
