"""Trains a classifier of handwritten digits and writes it for every framework that inferd serves.

    .venv/bin/python examples/train_digits.py --out model_repository

The data are scikit-learn's 1,797 digits of 8x8 pixels, each pixel 0 to 16. A quarter of them, always the same, is held
out: it is not used in training, and the accuracies in the README.md that this script writes are measured on it. Two
networks are trained. The large one is written as ONNX (version 2), TorchScript, torch.export and SavedModel, with the
same weights. The small one is version 1 of the ONNX model; its accuracy is visibly lower.

The input of every model is `image`, FP32 [-1, 64]: rows of raw pixels. The outputs are `probabilities`, FP32 [-1, 10],
and `digit`, INT64 [-1].
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
PIXELS, CLASSES, BRIGHTEST = 64, 10, 16.0
MAX_EXPORTED_BATCH = 1024

TORCH_CONFIG = """\
# A TorchScript file has the names of its arguments, but no element types, no shapes and no names of outputs.
signatures:
  - inputs:
      - {name: image, dtype: FP32, shape: [-1, 64]}
    outputs:
      - {name: probabilities, dtype: FP32, shape: [-1, 10]}
      - {name: digit, dtype: INT64, shape: [-1]}
"""


@dataclass(frozen=True)
class Split:
    """Images, float32 [n, 64], and their digits, int64 [n], for training and for measuring the accuracy."""

    train_images: Array
    train_digits: Array
    held_out_images: Array
    held_out_digits: Array


@dataclass(frozen=True)
class Network:
    """softmax(relu(image / 16 @ hidden + hidden_bias) @ out + out_bias), all float32."""

    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array

    def probabilities(self, images: Array) -> Array:
        """The outputs of the network, computed with numpy: every framework's outputs must agree with them."""
        raised = np.maximum(images / BRIGHTEST @ self.hidden + self.hidden_bias, 0)
        logits = raised @ self.out + self.out_bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def digits() -> Split:
    """The data set; it is always split in the same way."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split(
        data.data.astype(np.float32),
        data.target.astype(np.int64),
        test_size=0.25,
        random_state=0,
        stratify=data.target,
    )
    return Split(train_images=parts[0], held_out_images=parts[1], train_digits=parts[2], held_out_digits=parts[3])


def train(split: Split, *, units: int, epochs: int) -> Network:
    """A network with one hidden layer of `units`, trained with a fixed seed."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier((units,), max_iter=epochs, learning_rate_init=0.002, alpha=1e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the small network is stopped early on purpose
        classifier.fit(split.train_images / BRIGHTEST, split.train_digits)
    weights = [array.astype(np.float32) for array in (*classifier.coefs_, *classifier.intercepts_)]
    return Network(hidden=weights[0], out=weights[1], hidden_bias=weights[2], out_bias=weights[3])


def accuracy(network: Network, split: Split) -> float:
    """The share of the held-out digits that the network recognises."""
    found = network.probabilities(split.held_out_images).argmax(axis=1)
    return float((found == split.held_out_digits).mean())


def write_onnx(network: Network, version: Path) -> None:
    """Writes `model.onnx` with opset 17, which onnxruntime has supported for years."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "brightest": np.float32(BRIGHTEST),
        "hidden": network.hidden,
        "hidden_bias": network.hidden_bias,
        "out": network.out,
        "out_bias": network.out_bias,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["image", "brightest"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "hidden", "hidden_bias"], ["sums"]),
            helper.make_node("Relu", ["sums"], ["raised"]),
            helper.make_node("Gemm", ["raised", "out", "out_bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["digit"], axis=1, keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", PIXELS])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, version / "model.onnx")


def torch_module(network: Network) -> Any:
    """The network as a torch.nn.Module."""
    import torch

    class Digits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = torch.nn.Linear(*network.hidden.shape)
            self.out = torch.nn.Linear(*network.out.shape)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.out(torch.relu(self.hidden(image / 16.0)))
            return torch.softmax(logits, dim=1), torch.argmax(logits, dim=1)

    module = Digits().eval()
    with torch.no_grad():
        module.hidden.weight.copy_(torch.from_numpy(network.hidden.T.copy()))
        module.hidden.bias.copy_(torch.from_numpy(network.hidden_bias))
        module.out.weight.copy_(torch.from_numpy(network.out.T.copy()))
        module.out.bias.copy_(torch.from_numpy(network.out_bias))
    return module


def write_torchscript(network: Network, version: Path) -> None:
    """Writes `model.pt`, and the model's `model.yaml`, which declares what TorchScript files do not contain."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.freeze(torch.jit.script(torch_module(network)))
        written = io.BytesIO()
        torch.jit.save(scripted, written)
    # The debug entries contain paths of this machine: they are left out.
    with zipfile.ZipFile(written) as archive, zipfile.ZipFile(version / "model.pt", "w") as slim:
        for entry in archive.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                slim.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    (version.parent / "model.yaml").write_text(TORCH_CONFIG)


def write_exported(network: Network, version: Path) -> None:
    """Writes `model.pt2`, which contains element types, shapes and the range of rows, and the model's `model.yaml`,
    which names the outputs."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_EXPORTED_BATCH)
    # Two rows: from an example with one row, torch.export would conclude that the number of rows is constant.
    program = torch.export.export(
        torch_module(network), (torch.zeros(2, PIXELS),), dynamic_shapes={"image": {0: batch}}
    )
    # torch.export stores a stack trace for each operation, with paths of this machine. It is not needed.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, version / "model.pt2")
    (version.parent / "model.yaml").write_text(TORCH_CONFIG.replace(TORCH_CONFIG.splitlines()[0], PT2_NOTE))


PT2_NOTE = "# A torch.export file has element types and shapes, but no names of outputs: they are declared here."


def write_saved_model(network: Network, version: Path) -> None:
    """Writes a SavedModel directly into the version directory, as TensorFlow Serving expects it. A plain tf.Module
    keeps it small."""
    import tensorflow as tf

    module = tf.Module()
    module.hidden = tf.Variable(network.hidden)
    module.hidden_bias = tf.Variable(network.hidden_bias)
    module.out = tf.Variable(network.out)
    module.out_bias = tf.Variable(network.out_bias)

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32, name="image")])
    def classify(image: Any) -> dict[str, Any]:
        raised = tf.nn.relu(image / BRIGHTEST @ module.hidden + module.hidden_bias)
        logits = raised @ module.out + module.out_bias
        return {"probabilities": tf.nn.softmax(logits), "digit": tf.argmax(logits, axis=1)}

    module.classify = classify
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    # TensorFlow creates empty directories, which git does not store. So the model is written to a temporary directory,
    # and only its files are copied.
    with tempfile.TemporaryDirectory() as temporary:
        tf.saved_model.save(module, temporary, signatures={"serving_default": classify}, options=options)
        for file in Path(temporary).rglob("*"):
            if file.is_file():
                target = version / file.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def version_directory(root: Path, model: str, number: int) -> Path:
    """Makes the directory `<root>/<model>/<number>`, empty."""
    directory = root / model / str(number)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def readme(accuracies: dict[str, float]) -> str:
    """The text of the README.md beside the models."""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in accuracies.items())
    return f"""\
# Example models

A classifier of handwritten digits, written by `examples/train_digits.py` for every framework. Input `image`:
FP32 [-1, 64], 8x8 pixels from 0 to 16, row by row. Outputs: `probabilities`, FP32 [-1, 10], and `digit`, INT64 [-1].

Accuracy on 450 held-out digits of scikit-learn's data set (`tests/backends/test_digits.py` measures it again):

| model / version | held-out accuracy |
|---|---|
{rows}

`digits_onnx/2` and the other frameworks' models hold the same weights: their answers agree within 1e-5. `digits_onnx/1`
is a smaller network that was stopped early, so that a better version has something to replace.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="model repository to write into")
    root: Path = parser.parse_args().out
    split = digits()
    small = train(split, units=12, epochs=40)
    large = train(split, units=64, epochs=200)
    write_onnx(small, version_directory(root, "digits_onnx", 1))
    write_onnx(large, version_directory(root, "digits_onnx", 2))
    write_torchscript(large, version_directory(root, "digits_torch", 1))
    write_exported(large, version_directory(root, "digits_pt2", 1))
    write_saved_model(large, version_directory(root, "digits_tf", 1))
    good = accuracy(large, split)
    accuracies = {
        "digits_onnx/1": accuracy(small, split),
        "digits_onnx/2": good,
        "digits_torch/1": good,
        "digits_pt2/1": good,
        "digits_tf/1": good,
    }
    (root / "README.md").write_text(readme(accuracies))
    for name, value in accuracies.items():
        print(f"{name:16} held-out accuracy {value:.4f}")


if __name__ == "__main__":
    main()
