"""Small Keras models of the kinds that people serve, exported as the signatures of one SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
layers, ops = keras.layers, keras.ops


def mlp() -> Any:
    return keras.Sequential([
        keras.Input((20,)), layers.Normalization(mean=[0.0] * 20, variance=[2.0] * 20), layers.Dense(16, "gelu"),
        layers.LayerNormalization(), layers.Dropout(0.3), layers.Dense(3, "softmax"),
    ])  # fmt: skip


def cnn() -> Any:
    return keras.Sequential([
        keras.Input((12, 12, 1)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(), layers.MaxPooling2D(), layers.Conv2D(4, 3, padding="same", strides=2),
        layers.Flatten(), layers.Dense(5, "softmax"),
    ])  # fmt: skip


def resnet() -> Any:
    x = image = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(x))))
    y = layers.Conv2D(8, 3, padding="same")(layers.Activation("relu")(layers.BatchNormalization()(x)))
    x = layers.Add()([x, y])
    y = layers.Conv2D(16, 3, padding="same", strides=2)(x)
    x = layers.Add()([layers.Conv2D(16, 1, strides=2)(x), y])
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def efficientnet() -> Any:
    """Depthwise convolutions, swish, and squeeze and excitation."""
    image = keras.Input((16, 16, 3))
    x = layers.Activation("silu")(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(image)))
    scale = layers.Reshape((1, 1, 3))(layers.GlobalAveragePooling2D()(x))
    scale = layers.Conv2D(3, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="silu")(scale))
    x = layers.Multiply()([x, scale])
    return keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(layers.Conv2D(8, 1)(x))))


def mobilenet() -> Any:
    image = keras.Input((16, 16, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(6, 1)(image)))
    x = layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    x = layers.Activation("hard_silu")(x)
    return keras.Model(image, layers.Softmax()(layers.Flatten()(layers.Conv2D(4, 1)(x))))


def segmenter() -> Any:
    """A U-Net with dilated, transposed and separable convolutions."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", dilation_rate=2)(image)
    y = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(y)
    y = layers.AveragePooling2D(2)(layers.UpSampling2D(interpolation="bilinear")(y))
    return keras.Model(image, layers.SeparableConv2D(2, 3, padding="same")(layers.Concatenate()([x, y])))


def vision_transformer() -> Any:
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 4, strides=4)(image))
    x = x + layers.Embedding(16, 16)(ops.arange(16))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8)(y, y)
    x = x + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def bert() -> Any:
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    x = layers.Embedding(30, 16)(ids)
    x = x + layers.Embedding(40, 16)(ops.cumsum(ops.ones_like(ids), axis=1) - 1)
    y = layers.MultiHeadAttention(2, 8)(x, x, attention_mask=ops.cast(mask[:, None, :], "bool"))
    x = layers.LayerNormalization()(x + y)
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, "gelu")(x)))
    return keras.Model([ids, mask], [layers.Dense(16, "tanh")(x[:, 0]), x])


def decoder() -> Any:
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 16)(ids)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True))
    return keras.Model(ids, layers.Dense(30)(x))


def lstm() -> Any:
    series = keras.Input((None, 5))
    return keras.Model(
        series, layers.Dense(2)(layers.LSTM(6)(layers.Bidirectional(layers.LSTM(4, return_sequences=True))(series)))
    )


def gru() -> Any:
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 8, mask_zero=True)(ids)
    return keras.Model(ids, layers.Dense(2)(layers.GRU(6)(layers.GRU(6, return_sequences=True)(x))))


def convolutions_over_time() -> Any:
    series = keras.Input((None, 4))
    x = layers.Conv1D(6, 3, padding="causal", dilation_rate=2)(series)
    x = layers.SpatialDropout1D(0.2)(layers.GroupNormalization(2)(layers.PReLU(shared_axes=[1])(x)))
    return keras.Model(series, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


def text_classifier() -> Any:
    text = keras.Input((), dtype="string")
    x = layers.TextVectorization(vocabulary=["good", "bad", "film", "a"], output_sequence_length=6)(text)
    return keras.Model(text, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(8, 4)(x))))


def bag_of_words() -> Any:
    text = keras.Input((), dtype="string")
    x = layers.TextVectorization(vocabulary=["good", "bad", "film", "a"], output_mode="multi_hot")(text)
    return keras.Model(text, layers.Dense(2)(x))


def features() -> Any:
    """A linear model of columns: words, numbers in ranges, numbers that are names, hashes."""
    city, age = keras.Input((1,), dtype="string", name="city"), keras.Input((1,), name="age")
    kind, other = keras.Input((1,), dtype="int64", name="kind"), keras.Input((1,), dtype="string", name="other")
    columns = [
        layers.StringLookup(vocabulary=["good film", "a"], output_mode="one_hot")(city),
        ops.one_hot(layers.Discretization([0.0, 1.0, 5.0])(age)[:, 0], 4),
        layers.IntegerLookup(vocabulary=[1, 2, 3], output_mode="multi_hot")(kind),
        layers.Embedding(8, 3)(layers.Hashing(8)(other))[:, 0],
        age,
    ]
    return keras.Model(
        [city, age, kind, other], layers.Dense(1)(layers.Concatenate()([ops.cast(c, "float32") for c in columns]))
    )


def text_padded_to_the_longest() -> Any:
    text = keras.Input((), dtype="string")
    x = layers.TextVectorization(vocabulary=["good", "bad", "film", "a"])(text)
    return keras.Model(text, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(8, 4)(x))))


def normalised_in_training_mode() -> Any:
    image = keras.Input((8, 8, 2))
    return keras.Model(image, layers.BatchNormalization()(image, training=True))


PROVEN: tuple[Callable[[], Any], ...] = (
    mlp, cnn, resnet, efficientnet, mobilenet, segmenter, vision_transformer, bert, decoder, lstm, gru,
    convolutions_over_time, text_classifier, bag_of_words, features,
)  # fmt: skip
REFUSED: tuple[Callable[[], Any], ...] = (text_padded_to_the_longest, normalised_in_training_mode)


def _endpoint(model: Any) -> Any:
    return tf.function(lambda *given: model(list(given) if len(given) > 1 else given[0]))


def export_models(directory: Path) -> None:
    """Writes a SavedModel whose signatures are the models, by the names of their functions."""
    archive = keras.export.ExportArchive()
    for make in (*PROVEN, *REFUSED):
        model = make()
        archive.track(model)
        specs = [tf.TensorSpec(given.shape, given.dtype, name=given.name) for given in model.inputs]
        archive.add_endpoint(make.__name__, _endpoint(model), input_signature=specs)
    archive.write_out(str(directory), verbose=False)
