"""Reads a model's inputs from command line arguments.

--input NAME=VALUE    or just VALUE for a model with one input
VALUE                 JSON ("[[1, 2]]", "3.5"), other text as a string, or a file:
@FILE                 .npy, .npz, .json, or an image (.png .jpg .jpeg .bmp .gif .webp); for an input of type STRING the
                      bytes of any other file, images too
@FILE without a name  a .npz or a .json object holds all inputs by name
"""

from __future__ import annotations

import argparse
import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from inferd.client import Client, DType, Signature, TensorSpec
from inferd.server.cli.connection import version
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.inputs.images import IMAGE_SUFFIXES, ImageOptions, read_image

Inputs = dict[str, Any]
_JSON = ("[", "{", '"')  # text that begins with one of these must be JSON


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a model's version and give its inputs."""
    parser.add_argument("model")
    parser.add_argument("--version", type=version, metavar="N", help="exactly this version")
    parser.add_argument("--label", help="the version that this label points to")
    parser.add_argument("--signature", help="the way to call it, where it has several")
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="[NAME=]VALUE", help="JSON, text, or @FILE; repeatable"
    )
    images = parser.add_argument_group("images")
    images.add_argument("--resize", type=_size, metavar="WxH", help="default: what the signature says")
    images.add_argument(
        "--layout", choices=("NCHW", "NHWC", "CHW", "HWC", "NHW", "HW"), help="default: by the signature"
    )
    images.add_argument("--scale", type=_factor, default=1.0, metavar="F", help="multiply pixels (0..255), e.g. 1/255")
    images.add_argument("--mean", type=_floats, metavar="F[,F,F]", help="subtract after scaling, per channel")
    images.add_argument("--std", type=_floats, metavar="F[,F,F]", help="divide after that, per channel")


def read_inputs(args: argparse.Namespace, client: Client) -> Any:
    """The inputs: a mapping of names to values, or a single value without a name. Raises CommandError.

    Calls the server for the signature only if a file needs it that is no .npy, .npz or .json.
    """
    options = ImageOptions(args.resize, args.layout, args.scale, args.mean, args.std)
    named: Inputs = {}
    unnamed: list[Any] = []
    for text in args.input:
        name, value = _split(text)
        found = _value(value, name, lambda name=name: _spec(args, client, name), options)
        if name:
            _put(named, name, found)
        elif value.startswith("@") and isinstance(found, dict):
            for key, item in found.items():
                _put(named, key, item)
        else:
            unnamed.append(found)
    if unnamed and (named or len(unnamed) > 1):
        raise usage("--input: with several inputs each needs its name, NAME=VALUE")
    return unnamed[0] if unnamed else named


def random_inputs(
    signature: Signature, batch: int, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs that fit a signature. The first variable dimension gets size `batch`, all others size 1.

    `shapes` overrides the shapes of the signature. Raises CommandError if the signature gives neither a shape nor a
    dtype.
    """
    unknown = sorted(shapes.keys() - {spec.name for spec in signature.inputs})
    if unknown:
        known = ", ".join(spec.name for spec in signature.inputs)
        raise usage(f"--shape {unknown[0]}=…: the model has no such input, only {known}")
    rand = np.random.default_rng(0)
    made = {}
    for spec in signature.inputs:
        if spec.optional and spec.name not in shapes:
            continue
        made[spec.name] = _random_input(spec, batch, shapes.get(spec.name), rand)
    return made


def parse_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, from texts such as `NAME=1,3,224,224`. Raises CommandError."""
    shapes = {}
    for text in texts:
        name, sign, sizes = text.rpartition("=")
        try:
            shapes[name] = tuple(int(size) for size in sizes.split(",") if size)
        except ValueError:
            sign = ""
        if min(shapes.get(name, ()), default=0) < 0:
            sign = ""
        if not sign or not name:
            raise usage(f"--shape {text!r}: expected NAME=SIZE,SIZE,…")
    return shapes


def _random_input(
    spec: TensorSpec, batch: int, given: tuple[int, ...] | None, rand: np.random.Generator
) -> np.ndarray[Any, Any]:
    if given is None and spec.shape is None:
        raise CommandError(f"input {spec.name!r}: the signature tells no rank; give --shape {spec.name}=… or --input")
    if spec.dtype is None:
        raise CommandError(f"input {spec.name!r}: element type unknown to this client; give --input")
    shape = list(given if given is not None else spec.shape or ())
    if given is None:
        variable = [i for i, size in enumerate(shape) if size < 0]
        for i in variable:
            shape[i] = batch if i == variable[0] else 1
    if spec.dtype is DType.STRING:
        return np.full(shape, b"text", dtype=object)
    if spec.dtype is DType.BOOL:
        return rand.random(shape) < 0.5
    if spec.dtype in (DType.FP16, DType.BF16, DType.FP32, DType.FP64):
        return np.asarray(rand.random(shape), dtype=spec.dtype.numpy)
    # Small values, because integer inputs are often indices.
    return np.asarray(rand.integers(0, 2, shape), dtype=spec.dtype.numpy)


def _split(text: str) -> tuple[str, str]:
    """Splits NAME=VALUE; the name is "" if there is none. VALUE may contain anything. Names may contain colons, dots,
    slashes and brackets."""
    if text.startswith(("@", *_JSON)):
        return "", text
    name, sign, value = text.partition("=")
    return (name, value) if sign else ("", text)


def _value(text: str, name: str, spec: Any, options: ImageOptions) -> Any:
    if not text.startswith("@"):
        try:
            return json.loads(text)
        except ValueError as error:
            if text.startswith(_JSON):
                raise usage(f"--input {name or text!r}: no valid JSON: {error}") from None
            return text
        except RecursionError:
            raise usage(f"--input {name or text[:40]!r}: expected JSON with fewer levels of nesting") from None
    path = Path(text[1:]).expanduser()
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if suffix == ".npz":
            return _from_npz(path, name)
        if suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        if (found := spec()) is not None and found.dtype is DType.STRING:
            return _bytes_of(path, found)
        if suffix in IMAGE_SUFFIXES:
            return read_image(path, found, options)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    except RecursionError:
        raise CommandError(f"cannot read {path}: expected JSON with fewer levels of nesting") from None
    known = ".npy, .npz, .json, " + ", ".join(sorted(IMAGE_SUFFIXES))
    raise usage(f"--input {text!r}: expected a file that ends in {known}; other files are for inputs of type STRING")


def _bytes_of(path: Path, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """The content of a file as the only text of an input."""
    content = np.empty([1] * len(spec.shape if spec.shape is not None else (1,)), dtype=object)
    content[...] = path.read_bytes()
    return content


def _from_npz(path: Path, name: str) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        if not name:
            return dict(arrays.items())
        if name in arrays:
            return arrays[name]
        if len(arrays.files) == 1:
            return arrays[arrays.files[0]]
        raise CommandError(f"{path} holds no array {name!r}, only {', '.join(arrays.files)}")


def _put(named: Inputs, name: str, value: Any) -> None:
    if name in named:
        raise usage(f"--input: {name!r} is given twice")
    named[name] = value


def _spec(args: argparse.Namespace, client: Client, name: str) -> TensorSpec | None:
    signature = client.metadata(args.model, version=args.version, label=args.label).signature(args.signature)
    if signature is None:
        return None
    if not name and len(signature.inputs) == 1:
        return signature.inputs[0]
    return next((spec for spec in signature.inputs if spec.name == name), None)


def _size(text: str) -> tuple[int, int]:
    width, sign, height = text.lower().partition("x")
    if not (sign and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected WxH, for example 224x224")
    return int(width), int(height)


def _factor(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; expected for example 0.5 or 1/255") from None


def _floats(text: str) -> tuple[float, ...]:
    return tuple(_factor(part) for part in text.split(","))
