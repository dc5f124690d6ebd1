"""Trains small Keras models on scikit-learn's digits, in a training environment: python train_keras.py DIRECTORY

As train_tables.py: models in every format, held-out rows, and models.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
CODE = """
import keras

def make(units=32):
    return keras.Sequential([
        keras.Input((64,), name="image"),
        keras.layers.Dense(units, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(10, activation="softmax", name="probabilities"),
    ])
"""
(out / "net_keras.py").write_text(CODE)
sys.path.insert(0, str(out))
from net_keras import make  # noqa: E402

keras.utils.set_random_seed(0)
data = load_digits()
x, held, y, labels = train_test_split((data.data / 16).astype("float32"), data.target, test_size=0.3, random_state=0)
np.savez(out / "keras-digits.npz", image=held, expected=labels)
model = make()
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=25, verbose=0)
accuracy = float(np.mean(np.argmax(model(held, training=False).numpy(), axis=1) == labels))
model.save(out / "net.keras")
model.save(out / "net.h5")
model.save_weights(out / "net.weights.h5")
tf.train.Checkpoint(model=model).write(str(out / "checkpoint" / "net"))
model.export(out / "net_saved_model", verbose=False)
module = ("--module", str(out / "net_keras.py:make"))
models = [
    ("Keras 3 (.keras)", "net.keras", ()),
    ("Keras (.h5)", "net.h5", ()),
    ("Keras weights with code (.weights.h5)", "net.weights.h5", module),
    ("TensorFlow checkpoint with code", "checkpoint/net.index", module),
    ("SavedModel", "net_saved_model", ()),
    ("Keras 3 to ONNX", "net.keras", ("--to", "onnx")),
    ("Keras 3 to LiteRT", "net.keras", ("--to", "litert")),
]
try:
    import tf_keras  # Keras 2, if it is there
except ImportError:
    pass
else:
    old = tf_keras.Sequential(
        [
            tf_keras.layers.Dense(32, activation="relu", input_shape=(64,)),
            tf_keras.layers.Dense(10, activation="softmax"),
        ]
    )
    old.set_weights([*model.layers[0].get_weights(), *model.layers[-1].get_weights()])
    old.compile("adam", "sparse_categorical_crossentropy")
    old.fit(x, y, epochs=15, verbose=0)
    old.save(out / "keras2.h5")
    models.append(("Keras 2 (.h5)", "keras2.h5", ()))
found = [
    {"name": name, "source": source, "sample": "keras-digits.npz", "accuracy": accuracy, "flags": list(flags)}
    for name, source, flags in models
]
if found[-1]["source"] == "keras2.h5":
    found[-1]["accuracy"] = float(np.mean(np.argmax(old(held).numpy(), axis=1) == labels))
(out / "models.json").write_text(json.dumps(found, indent=1))
