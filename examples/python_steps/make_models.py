"""Trains the two small networks of this example, and writes model.onnx, the vocabulary and the sample picture.

    .venv/bin/python examples/python_steps/make_models.py

Needs torch, onnx, scikit-learn and Pillow; takes about a minute. What it writes is in the repository already.

digits_png   a convolutional network on scikit-learn's 1,797 digits; a quarter of them is held out
sentences    a transformer encoder of two layers, trained so that sentences on one subject lie close to each other. Its
             sentences are made up here from a few words, so it knows no others; it shows the form, not the quality
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, checker, helper, numpy_helper, save
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

MODELS = Path(__file__).parent / "models"
HIDDEN, HEADS, LAYERS, LONGEST = 32, 2, 2, 32
SUBJECTS = {
    "animals": "cat dog horse cow bird fish rabbit sheep goat hen sleeps runs eats jumps barks swims flies",
    "weather": "rain snow wind storm sun cloud fog frost falls blows shines clears freezes melts",
    "food": "bread cheese soup apple pear cake rice pasta salad tastes cooks bakes smells burns",
    "money": "price stock bank loan market profit bond share rises sinks trades pays",
}
COMMON = "the a on in of and is was today very again near old new big small house garden sofa city"
ENDINGS = "##s ##ing ##ed ##y ##ly"


# ---- pictures


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.out = nn.Linear(32 * 4 * 4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.second(functional.relu(self.first(image))))
        return self.out(functional.max_pool2d(x, 2).flatten(1))


def pictures() -> None:
    images, digits = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 1, 8, 8) / 16 * 255).astype(np.uint8)
    known, held_out, known_digits, held_out_digits = train_test_split(pixels, digits, test_size=0.25, random_state=0)
    torch.manual_seed(0)
    model = Convolutions()
    x, y = torch.tensor(known / 255, dtype=torch.float32), torch.tensor(known_digits)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(60):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        right = model(torch.tensor(held_out / 255, dtype=torch.float32)).argmax(1).numpy() == held_out_digits
    print(f"digits_png: {right.mean():.4f} of {len(right)} held-out pictures")
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "second.weight", "second.bias"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "out.weight", "out.bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    write(
        MODELS / "digits_png" / "1",
        nodes,
        [("image", TensorProto.FLOAT, ["rows", 1, 8, 8])],
        [("probabilities", TensorProto.FLOAT, ["rows", 10])],
        weights,
    )
    seven = held_out[np.flatnonzero((held_out_digits == 7) & right)[0]].reshape(8, 8)
    Image.fromarray(seven).save(MODELS / "digits_png" / "seven.png")


# ---- sentences


def vocabulary() -> list[str]:
    words = [word for words in SUBJECTS.values() for word in words.split()]
    stems = [word.removesuffix("s") for word in words]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    single = [*letters, *(f"##{letter}" for letter in letters), ".", ",", "!", "?", "'"]
    return list(
        dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COMMON.split(), *words, *stems, *ENDINGS.split(), *single])
    )


def sentence(subject: str, chance: random.Random) -> list[str]:
    words = chance.sample(SUBJECTS[subject].split(), chance.randint(1, 3))
    words += chance.sample(COMMON.split(), chance.randint(1, 4))
    chance.shuffle(words)
    return [*words, *chance.choice(([], ["."], ["!"]))]


class Encoder(nn.Module):
    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, HIDDEN), nn.Embedding(LONGEST, HIDDEN)
        self.start = nn.LayerNorm(HIDDEN)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: nn.Linear(HIDDEN, HIDDEN) for name in ("query", "key", "value", "joined")},
                    "wide": nn.Linear(HIDDEN, 2 * HIDDEN),
                    "narrow": nn.Linear(2 * HIDDEN, HIDDEN),
                    "after_attention": nn.LayerNorm(HIDDEN),
                    "after_wide": nn.LayerNorm(HIDDEN),
                }
            )
            for _ in range(LAYERS)
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.start(self.tokens(ids) + self.places(torch.arange(ids.shape[1])))
        hidden = (1.0 - mask[:, None, None, :].float()) * -1e4
        for layer in self.layers:
            q, k, v = (self._heads(layer[name](x)) for name in ("query", "key", "value"))
            scores = q @ k.transpose(2, 3) / (HIDDEN / HEADS) ** 0.5 + hidden
            mixed = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
            x = layer["after_attention"](x + layer["joined"](mixed))
            x = layer["after_wide"](x + layer["narrow"](functional.relu(layer["wide"](x))))
        return x

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (HEADS, HIDDEN // HEADS)).transpose(1, 2)


def embedded(model: Encoder, numbers: dict[str, int], sentences: list[list[str]]) -> torch.Tensor:
    longest = max(map(len, sentences)) + 2
    ids = torch.zeros(len(sentences), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, words in enumerate(sentences):
        row = [numbers[word] for word in ("[CLS]", *words, "[SEP]")]
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    weights = mask[:, :, None].float()
    return functional.normalize((model(ids, mask) * weights).sum(1) / weights.sum(1))


def sentences() -> None:
    tokens = vocabulary()
    numbers = {token: number for number, token in enumerate(tokens)}
    chance = random.Random(0)
    torch.manual_seed(0)
    model = Encoder(len(tokens))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    subjects = list(SUBJECTS)
    for _ in range(300):
        labels = [chance.randrange(len(subjects)) for _ in range(32)]
        # Two sentences for each: the pair of a sentence is the one on its subject.
        one, two = (embedded(model, numbers, [sentence(subjects[i], chance) for i in labels]) for _ in range(2))
        same = torch.tensor(labels)[:, None] == torch.tensor(labels)[None, :]
        logits = one @ two.T / 0.1
        optimiser.zero_grad()
        (logits.logsumexp(1) - logits.masked_fill(~same, -1e9).logsumexp(1)).mean().backward()
        optimiser.step()
    with torch.no_grad():
        labels = [i % len(subjects) for i in range(200)]
        found = embedded(model, numbers, [sentence(subjects[i], chance) for i in labels])
    nearest = (found @ found.T - 2 * torch.eye(len(labels))).argmax(1)
    right = np.mean([labels[int(j)] == i for i, j in zip(labels, nearest, strict=True)])
    print(f"sentences: the nearest of 200 new sentences is on the same subject for {right:.4f}")
    directory = MODELS / "sentences" / "1"
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n")
    write(
        directory,
        encoder_nodes(),
        [(name, TensorProto.INT64, ["rows", "tokens"]) for name in ("input_ids", "attention_mask")],
        [("last_hidden_state", TensorProto.FLOAT, ["rows", "tokens", HIDDEN])],
        encoder_weights(model),
    )


def encoder_weights(model: Encoder) -> dict[str, np.ndarray[Any, Any]]:
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    return {name: value.T if name in linear else value for name, value in weights.items()} | {
        "one": np.array(1, np.float32),
        "far": np.array(-1e4, np.float32),
        "scale": np.array((HEADS / HIDDEN) ** 0.5, np.float32),
        "split": np.array([0, 0, HEADS, HIDDEN // HEADS], np.int64),
        "joined": np.array([0, 0, HIDDEN], np.int64),
        "middle": np.array([1, 2], np.int64),
        "zero": np.array([0], np.int64),
        "second": np.array([1], np.int64),
    }


def encoder_nodes() -> list[Any]:
    nodes: list[Any] = []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(x: str, name: str) -> str:
        return node("Add", [node("MatMul", [x, f"{name}.weight"], f"{name}.product"), f"{name}.bias"], f"{name}.out")

    def norm(x: str, name: str, output: str) -> str:
        return node("LayerNormalization", [x, f"{name}.weight", f"{name}.bias"], output, axis=-1, epsilon=1e-5)

    size = node("Shape", ["input_ids"], "tokens", start=1, end=2)
    places = node("Slice", ["places.weight", "zero", size, "zero"], "place")
    known = node("Gather", ["tokens.weight", "input_ids"], "token")
    x = norm(node("Add", [known, places], "placed"), "start", "x")
    shown = node("Cast", ["attention_mask"], "shown", to=TensorProto.FLOAT)
    hidden = node("Mul", [node("Sub", ["one", shown], "masked"), "far"], "masked_far")
    hidden = node("Unsqueeze", [hidden, "middle"], "hidden")
    for i in range(LAYERS):
        at = f"layers.{i}"
        q, k, v = (
            node(
                "Transpose",
                [node("Reshape", [linear(x, f"{at}.{name}"), "split"], f"{at}.{name}.split")],
                f"{at}.{name}.heads",
                perm=[0, 2, 3, 1] if name == "key" else [0, 2, 1, 3],
            )
            for name in ("query", "key", "value")
        )
        scores = node("Mul", [node("MatMul", [q, k], f"{at}.products"), "scale"], f"{at}.scaled")
        scores = node("Softmax", [node("Add", [scores, hidden], f"{at}.scores")], f"{at}.weights", axis=-1)
        mixed = node("Transpose", [node("MatMul", [scores, v], f"{at}.mixed")], f"{at}.back", perm=[0, 2, 1, 3])
        mixed = linear(node("Reshape", [mixed, "joined"], f"{at}.flat"), f"{at}.joined")
        x = norm(node("Add", [x, mixed], f"{at}.sum"), f"{at}.after_attention", f"{at}.attended")
        wide = linear(node("Relu", [linear(x, f"{at}.wide")], f"{at}.relu"), f"{at}.narrow")
        last = "last_hidden_state" if i == LAYERS - 1 else f"{at}.x"
        x = norm(node("Add", [x, wide], f"{at}.sum_wide"), f"{at}.after_wide", last)
    return nodes


def write(
    directory: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: dict[str, np.ndarray[Any, Any]],
) -> None:
    graph = helper.make_graph(
        nodes,
        directory.parent.name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    save(model, directory / "model.onnx")


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are too small for more
    pictures()
    sentences()
