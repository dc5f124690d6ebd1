"""Real SavedModels, loaded as they are served: proven, or refused for the right reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.keras_models import PROVEN, REFUSED, export_models
from support.real_models import package_file
from support.saved_models import of, save, served
from support.tf_graphs import same, tf
from tensorflow.core.protobuf import saved_model_pb2

from inferd.backends.api import Independence, OpenRequest, Signature
from inferd.backends.tensorflow.backend import TensorFlowBackend
from inferd.wire.dtypes import DType

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[4]
ROWS = 5
_SCALES = np.array([1, -300, 0.01, 40, -2], np.float32)
_TEXTS = np.array([b"a good film", b"", b"bad bad bad bad bad bad bad bad bad", b"film!", b"x y good"], object)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Keras models as the signatures of one model, and an instance of it."""
    version = tmp_path_factory.mktemp("keras") / "1"
    export_models(version)
    with served(version) as both:
        yield both


def signature_of(model: Any, name: str) -> Signature:
    return next(signature for signature in model.signatures if signature.name == name)


def hostile_inputs(signature: Signature) -> dict[str, Any]:
    """Rows that differ in content, sign and size, one of them with a NaN; of texts one that is empty and one long."""
    rng = np.random.default_rng(3)
    inputs: dict[str, Any] = {}
    for spec in signature.inputs:
        assert spec.shape is not None
        shape = [ROWS, *(size if size > 0 else 16 for size in spec.shape[1:])]
        if spec.dtype is DType.STRING:
            inputs[spec.name] = np.resize(_TEXTS, shape)
        elif spec.dtype is DType.FP32:
            array = rng.normal(size=shape).astype(np.float32) * _SCALES.reshape(-1, *(1,) * (len(shape) - 1))
            array[-1].flat[0] = np.nan
            inputs[spec.name] = array
        else:
            array = rng.integers(0, 2 if spec.name == "mask" else 9, shape).astype(spec.dtype.numpy)
            array[:, ..., :1] = 1
            inputs[spec.name] = array
    return inputs


@pytest.mark.parametrize("name", [make.__name__ for make in PROVEN])
def test_a_keras_model_is_proven_and_runs_agree(models: Any, name: str) -> None:
    model, instance = models
    signature = signature_of(model, name)
    finding = model.independence(signature)
    assert finding.proven, str(finding)
    inputs = hostile_inputs(signature)
    alone = [instance.run(name, {n: a[i : i + 1] for n, a in inputs.items()}) for i in range(ROWS)]
    for order in (range(ROWS), [3, 0], [2, 4, 1]):
        together = instance.run(name, {n: np.ascontiguousarray(a[list(order)]) for n, a in inputs.items()})
        for place, row in enumerate(order):
            for output, array in together.items():
                assert same(array[place : place + 1], alone[row][output]), (order, row, output)


def test_keras_models_that_mix_are_refused(models: Any) -> None:
    model, _ = models
    reasons = ("makes all rows as wide as the longest", "AssignVariableOp keeps state")
    for make, reason in zip(REFUSED, reasons, strict=True):
        assert reason in str(model.independence(signature_of(model, make.__name__)))


def of_file(path: Path) -> Independence:
    model = TensorFlowBackend().open(OpenRequest("m", 1, path, path))
    try:
        finding = model.independence(model.signatures[0])  # type: ignore[attr-defined]
        assert isinstance(finding, Independence)
        return finding
    finally:
        model.close()


def test_the_repositorys_own_model_and_a_network_on_sound_are_proven() -> None:
    assert of_file(ROOT / "model_repository" / "digits_tf" / "1").proven
    assert of_file(package_file("basic_pitch", "saved_models", "icassp_2022", "nmp")).proven


def test_a_tensorflow_1_graph_that_parses_examples_is_proven(version: Path) -> None:
    """A linear model over numbers and words, as the estimators of TensorFlow 1 write it."""
    v1 = tf.compat.v1
    version.rmdir()
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="examples")
        features = {"age": tf.io.FixedLenFeature([2], tf.float32), "city": tf.io.FixedLenFeature([1], tf.string, "")}
        parsed = tf.io.parse_example(examples, features)
        keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1], tf.int64))
        table = tf.lookup.StaticHashTable(keys, -1)
        city = tf.reshape(tf.one_hot(table.lookup(parsed["city"]), 2), [-1, 2])
        columns = tf.concat([parsed["age"], tf.math.log1p(tf.abs(parsed["age"])), city], 1)
        weights = v1.get_variable("weights", [6, 1], use_resource=False)
        bias = v1.get_variable("bias", [1], use_resource=False)
        logits = v1.nn.bias_add(tf.matmul(columns, weights), bias)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        define = v1.saved_model.signature_def_utils.build_signature_def
        info = v1.saved_model.utils.build_tensor_info
        signature = define({"inputs": info(examples)}, {"scores": info(tf.sigmoid(logits))})
        builder = v1.saved_model.builder.SavedModelBuilder(str(version))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    finding = of_file(version)
    assert finding.proven, str(finding)


def test_dimensions_at_one_place_are_named_if_the_proof_needs_them(version: Path) -> None:
    """[N, T, 4] to [-1, T, 2, 2] with the T of another input: right only where the two are equal."""
    text = of(None, None, kind=tf.float32, name="mask")

    @tf.function(input_signature=[of(None, None, 4), text])  # type: ignore[untyped-decorator]
    def run(x: Any, mask: Any) -> Any:
        return {"y": tf.reshape(x, tf.stack([-1, tf.shape(mask)[1], 2, 2]))}

    save(version, tf.Module(), serving_default=run)
    finding = of_file(version)
    assert finding.proven, str(finding)
    assert finding.equal == ((("mask", 1), ("x", 1)),)


def test_an_input_with_a_default_has_no_batch_axis_of_its_own(version: Path) -> None:
    default = tf.zeros([3])

    class Scaled(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[of(None), of(None, name="k")])  # type: ignore[untyped-decorator]
        def run(self, x: Any, k: Any = default) -> Any:
            return {"y": x * k}

    module = Scaled()
    tf.saved_model.save(module, str(version), signatures={"serving_default": module.run})
    assert "input 'k' has a batch axis and a default value" in str(of_file(version))


def test_a_variable_has_the_shape_of_its_checkpoint(version: Path) -> None:
    """The graph says [1, 2], the checkpoint holds [4, 2]: a value for each of four rows."""
    module = tf.Module()
    module.v = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))
    save(version, module, serving_default=tf.function(lambda x: {"y": x + module.v}, input_signature=[of(None, 2)]))
    assert not of_file(version).proven
    path = version / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for node in saved.meta_graphs[0].graph_def.node:
        node.attr.pop("_output_shapes", None)
        if node.op == "VarHandleOp":
            node.attr["shape"].shape.dim[0].size = 1
    path.write_bytes(saved.SerializeToString())
    with served(version) as (model, _):
        finding = model.independence(model.signatures[0])  # type: ignore[attr-defined]
        assert "has the shape [4, 2], in the graph [1, 2]" in str(finding)


def test_variables_that_an_initialiser_sets_are_asked_of_the_session(version: Path) -> None:
    v1 = tf.compat.v1
    version.rmdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        v = v1.get_variable("v", [1, 2], use_resource=True)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(version))
        definition = v1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": x + v})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": definition}, main_op=tf.group(v.assign(tf.ones([1, 2])))
        )
        builder.save()
    with served(version) as (model, _):
        assert model.independence(model.signatures[0]).proven  # type: ignore[attr-defined]
