"""Ways in which one model of a repository can be bad, and what the server must say of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Make = Callable[[Path], None]


@dataclass(frozen=True)
class Bad:
    """One way. `make` is given the directory of a model whose version 1 is good; `says` is a regular expression for the
    reason that an operator is told."""

    name: str
    make: Make
    says: str


def adding(path: Path, value: float) -> None:
    """Writes y = x + value as an ONNX model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    by = helper.make_tensor("by", TensorProto.FLOAT, [1], [value])
    _save(path, helper.make_graph([helper.make_node("Add", ["x", "by"], ["y"])], "g", [x], [y], [by]))


def endless(path: Path) -> None:
    """Writes a model whose first run never ends, in native code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    inner = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["value", "one"], ["next"])]
    body = helper.make_graph(
        inner,
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [2**62])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)
    _save(path, helper.make_graph([loop], "g", [x], [y], [turns, true]))


def endless_torch(model: Path) -> None:
    """As `endless`, in TorchScript."""
    import torch

    class Endless(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while bool((x * x >= 0).all()):
                x = x + 1
            return x

    (model / "1").mkdir(parents=True)
    torch.jit.script(Endless()).save(str(model / "1/model.pt"))


def endless_tensorflow(model: Path) -> None:
    """As `endless`, as a SavedModel."""
    import tensorflow as tf

    module = tf.Module()
    module.run = tf.function(
        lambda x: {"y": tf.while_loop(lambda v: tf.reduce_all(v * v >= 0), lambda v: (v + 1.0,), (x,))[0]},
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(model / "1"), signatures={"serving_default": module.run})


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _text(file: str, text: str | bytes) -> Make:
    def make(model: Path) -> None:
        path = model / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return make


def _link(file: str, target: str) -> Make:
    def make(model: Path) -> None:
        path = model / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


def _pipe(file: str) -> Make:
    def make(model: Path) -> None:
        path = model / file
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    return make


def _socket(file: str) -> Make:
    def make(model: Path) -> None:
        here = os.open(model, os.O_RDONLY)  # the address of a socket has 107 bytes at most
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"/proc/self/fd/{here}/{file}")
        finally:
            os.close(here)

    return make


def _both(*makes: Make) -> Make:
    def make(model: Path) -> None:
        for each in makes:
            each(model)

    return make


def _directory(file: str) -> Make:
    return lambda model: (model / file).mkdir(parents=True)


def _link_bomb(model: Path) -> None:
    for number in range(31):
        (model / f"1/d{number:02}").mkdir()
    for number in range(30):
        for name in "ab":
            (model / f"1/d{number:02}/{name}").symlink_to(f"../d{number + 1:02}")
    (model / "1/model.onnx").unlink()


def _away(model: Path) -> None:
    os.rename(model / "1", model / "hidden")
    (model / "1").symlink_to("/usr")


def _empty(model: Path) -> None:
    (model / "1/model.onnx").unlink()


def _cut(model: Path) -> None:
    file = model / "1/model.onnx"
    file.write_bytes(file.read_bytes()[:-20])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _onnx(tensor: bytes) -> Make:
    """A model with this initializer."""
    return _text("1/model.onnx", b"\x08\x08" + _field(7, _field(5, tensor)) + _field(8, b""))


def _external(location: str, offset: str = "0") -> Make:
    entries = {"location": location, "offset": offset, "length": "16"}
    data = b"".join(_field(13, _field(1, k.encode()) + _field(2, v.encode())) for k, v in entries.items())
    return _onnx(_field(1, b"\x04") + b"\x10\x01" + _field(8, b"k") + data + b"\x70\x01")


def _labels(name: str) -> Make:
    return _text(
        "config.pbtxt",
        'input [{name: "x" data_type: TYPE_FP32 dims: [-1, 4]}]'
        f' output [{{name: "y" data_type: TYPE_FP32 dims: [-1, 4] label_filename: "{name}"}}]',
    )


def _warmup(text: str) -> Make:
    return _text("model.yaml", f"warmup: {{samples: [{{inputs: {{x: {{dtype: FP32, {text}}}}}}}]}}")


_LAUGHS = "a: &a [x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
_STEP = "{model: a, inputs: {a: b}, outputs: {a: b}}"
_MANY = "9" * 5000

BAD: tuple[Bad, ...] = (
    # files that are no files
    Bad("settings-pipe", _pipe("model.yaml"), "not a regular file but a named pipe"),
    Bad("pbtxt-pipe", _pipe("config.pbtxt"), "not a regular file but a named pipe"),
    Bad("settings-socket", _socket("model.yaml"), "not a regular file but a socket"),
    Bad("settings-directory", _directory("model.yaml"), "not a regular file but a directory"),
    Bad("settings-link-out", _link("model.yaml", "/etc/passwd"), "outside the repository"),
    Bad("settings-link-device", _link("config.pbtxt", "/dev/zero"), "outside the repository|a device"),
    Bad("settings-link-circle", _link("model.yaml", "model.yaml"), "symbolic links"),
    Bad("labels-link-out", _both(_labels("l.txt"), _link("l.txt", "/etc/passwd")), "l.txt .*outside the repository"),
    Bad("labels-pipe", _both(_labels("l.txt"), _pipe("l.txt")), "l.txt .*named pipe"),
    Bad("labels-missing", _labels("l.txt"), "l.txt cannot be read: No such file"),
    Bad("labels-above", _labels("../l.txt"), "expected a file in the model's directory"),
    Bad("labels-many", _both(_labels("l.txt"), _text("l.txt", "x\n" * 300_000)), "at most 200000 labels"),
    Bad("warmup-pipe", _both(_warmup("shape: [1, 4], file: w"), _pipe("warmup/w")), "named pipe"),
    Bad("warmup-link-out", _both(_warmup("shape: [1, 4], file: w"), _link("warmup/w", "/etc/passwd")), "outside"),
    Bad("warmup-short", _both(_warmup("shape: [1, 4], file: w"), _text("warmup/w", "x")), "warm-up request"),
    Bad("version-pipe", _pipe("1/pipe"), "not a regular file"),
    Bad("version-socket", _socket("1/socket"), "not a regular file"),
    Bad("version-link-device", _link("1/zero", "/dev/zero"), "outside the repository|not a regular file"),
    Bad("version-link-out", _link("1/passwd", "/etc/passwd"), "outside the repository"),
    Bad("version-link-far", _link("1/root", "/"), "outside the repository"),
    Bad("version-link-circle", _link("1/again", "."), "leads back"),
    Bad("version-link-bomb", _link_bomb, "no model found|looks for"),
    Bad("version-is-a-link-out", _away, "outside the repository"),
    Bad("version-deep", _directory("1" + "/d" * 40), "more than 32 levels"),
    Bad("version-twice", _directory("01"), "has 2 directories"),
    Bad("version-empty", _empty, "the directory is empty"),
    # numbers
    Bad("pbtxt-5000-digits", _text("config.pbtxt", f"max_batch_size: {_MANY}"), "at most 100 characters"),
    Bad("pbtxt-hex", _text("config.pbtxt", f"max_batch_size: 0x{'f' * 90}"), "at most 64 bits"),
    Bad("yaml-5000-digits", _text("model.yaml", f"batching: {{max_batch_size: {_MANY}}}"), "max_batch_size"),
    Bad("count", _text("model.yaml", "instances: {count: 1000000000}"), "less than or equal to 256"),
    Bad("count-of-devices", _text("model.yaml", "instances: {count: 200, device: [cpu, auto]}"), "at most 256 copies"),
    Bad("threads", _text("model.yaml", "instances: {threads: 1000000}"), "less than or equal to 1024"),
    Bad("threads-of-all", _text("model.yaml", "instances: {threads: 1000, count: 100}"), "at most 4096 threads"),
    Bad("pbtxt-count", _text("config.pbtxt", "instance_group [{count: 1000000000 kind: KIND_CPU}]"), "256"),
    Bad("warmup-runs", _text("model.yaml", "warmup: {runs: 1000000000000}"), "less than or equal to 100000"),
    Bad("batch", _text("model.yaml", "batching: {max_batch_size: 1000000000}"), "less than or equal to 65536"),
    Bad("queue", _text("model.yaml", "queue: {requests: 1000000000000}"), "less than or equal to 1000000"),
    Bad("padding", _text("model.yaml", "batching: {padding: {x: [1000000000]}}"), "less than or equal to 65536"),
    Bad("versions", _text("model.yaml", "version_policy: {latest: 1000000000}"), "less than or equal to 10000"),
    Bad("warmup-terabytes", _warmup("shape: [1000000, 1000000]"), "at most 1073741824 together"),
    Bad("warmup-rank", _warmup(f"shape: [{','.join('1' * 99)}]"), "at most 32 items"),
    # texts
    Bad("yaml-laughs", _text("model.yaml", _LAUGHS), "more than 200000 values"),
    Bad("yaml-around-itself", _text("model.yaml", "options: &a {b: *a}"), "alias to a value around itself"),
    Bad("yaml-deep", _text("model.yaml", "options: " + "[" * 100_000), "model.yaml"),
    Bad("yaml-values", _text("model.yaml", f"options: [{','.join('1' * 300_000)}]"), "more than 200000 values"),
    Bad("yaml-large", _text("model.yaml", b"#" * (5 << 20)), "larger than 4194304 bytes"),
    Bad("yaml-bytes", _text("model.yaml", b"backend: \xff\xfe"), "expected UTF-8 text"),
    Bad("yaml-twice", _text("model.yaml", "queue: {}\nqueue: {}"), "every key once"),
    Bad("pbtxt-deep", _text("config.pbtxt", "a {" * 100_000), "nested"),
    Bad("pbtxt-values", _text("config.pbtxt", "input: [" + "{}," * 200_000), "at most 100000"),
    Bad("pbtxt-bytes", _text("config.pbtxt", b"\0\xff" * 100), "expected text in UTF-8"),
    Bad("pbtxt-name", _text("config.pbtxt", 'name: "other"'), "the directory's name"),
    Bad("ensemble-steps", _text("model.yaml", f"ensemble: [{','.join([_STEP] * 101)}]"), "at most 100 items"),
    # artefacts
    Bad("onnx-cut", _cut, "cut short"),
    Bad("onnx-garbage", _text("1/model.onnx", b"\xff" * 1000), "no ONNX model"),
    Bad("onnx-dims", _onnx(_field(1, _varint((1 << 63) - 1) * 100_000)), "more dimensions than there can be"),
    Bad("onnx-external-out", _external("../../other/1/model.onnx"), "outside the model's directory"),
    Bad("onnx-external-missing", _external("weights"), "external data 'weights' is missing"),
    Bad("onnx-external-digits", _external("model.onnx", _MANY), "no number of bytes"),
)  # fmt: skip
