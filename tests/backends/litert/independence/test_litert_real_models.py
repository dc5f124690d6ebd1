"""Real LiteRT models: basic-pitch's, and what TensorFlow's converter makes of Keras models, also quantised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.litert_graphs import analysed, opened, operators_of, same
from support.real_models import package_file, tone

from inferd.backends.api import Placement


def test_basic_pitch_is_proven_and_a_run_agrees() -> None:
    content = package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite").read_bytes()
    assert analysed(content).proven
    instance = opened(content).instance(Placement())
    x = np.concatenate([tone(), tone(880)])
    together = instance.run("serving_default", {"input_2": x})
    alone = instance.run("serving_default", {"input_2": x[1:]})
    assert all(same(together[name][1:], array) for name, array in alone.items())


def convolutional(layers: Any) -> Any:
    x = layers.Conv2D(4, 3, padding="same")
    return [
        x, layers.BatchNormalization(), layers.ReLU(), layers.SeparableConv2D(4, 3, strides=2, padding="same"),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same"), layers.Conv2DTranspose(4, 2, strides=2),
        layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(10, activation="softmax"),
    ]  # fmt: skip


def converted(keras: Any, tf: Any, mode: str) -> bytes:
    model = keras.Sequential([keras.Input((8, 8, 1)), *convolutional(keras.layers)])
    return _converted(
        tf, model, mode, lambda: ([np.random.default_rng(i).random((1, 8, 8, 1), np.float32)] for i in range(8))
    )


def _converted(tf: Any, model: Any, mode: str, samples: Callable[[], Any]) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if mode != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "int8":
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["float", "dynamic", "int8"])
def test_a_converted_network_is_proven_and_a_run_agrees(mode: str) -> None:
    tf = pytest.importorskip("tensorflow")
    content = converted(tf.keras, tf, mode)
    assert "TRANSPOSE_CONV" in operators_of(content)
    finding = analysed(content)
    assert finding.proven, str(finding)
    model = opened(content)
    (image,) = model.signatures[0].inputs
    assert image.dtype.name == ("INT8" if mode == "int8" else "FP32")
    rng = np.random.default_rng(0)
    x = (
        rng.integers(-128, 127, (4, 8, 8, 1)).astype(np.int8)
        if mode == "int8"
        else rng.random((4, 8, 8, 1), np.float32)
    )
    name, instance = model.signatures[0].name, model.instance(Placement())
    together = instance.run(name, {image.name: x})
    for row in range(4):
        for output, array in instance.run(name, {image.name: x[row : row + 1]}).items():
            assert same(together[output][row : row + 1], array)
