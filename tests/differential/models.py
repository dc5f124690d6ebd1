"""The repositories that both sides serve. Each side has its own copy, equal byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.marked import publish

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "STRING",
    "BF16",
)  # fmt: skip
"""In the order of their numbers on the wire, from 1."""
TRUSTED = "batching: {mode: trusted, max_batch_size: 8, size: largest}\nqueue: {admission: bounds}\n"
X = {"name": "x", "dtype": "FP32", "shape": [-1, 4]}
Y = {"name": "y", "dtype": "FP32", "shape": [-1, 4], "of": "x"}
Z = {**Y, "name": "z"}
DEFAULT = "serving_default"


def signature(inputs: list[Any], outputs: list[Any], name: str = DEFAULT, method: str = "") -> dict[str, Any]:
    """One signature of a model of the steps backend."""
    return {"name": name, "method": method, "inputs": inputs, "outputs": outputs}


def steps(model: Path, version: int, *signatures: Mapping[str, Any], yaml: str = "", **more: Any) -> None:
    """Writes a version of a model of the steps backend, under a hidden name and renamed when complete."""
    hidden = model / f".tmp-{version}"
    hidden.mkdir(parents=True)
    (hidden / "model.steps").write_text(json.dumps({"signatures": signatures, **more}))
    if yaml:
        (model / "model.yaml").write_text(yaml)
    hidden.rename(model / str(version))


def write(root: Path) -> None:
    """The repository that most scenes use."""
    root.mkdir(parents=True)
    rows = signature([X], [Z, Y])  # not in the order of their names
    labelled = "version_policy: {all: true}\nlabels: {stable: 1, canary: 2}\n"
    for version in (1, 2):
        steps(root / "rows", version, rows, yaml=TRUSTED + labelled, marker=version)
    for dtype in DTYPES:
        tensors = (
            [{"name": "in", "dtype": dtype, "shape": [-1, 2]}],
            [{"name": "out", "dtype": dtype, "shape": [-1, 2], "of": "in"}],
        )
        steps(root / f"kind_{dtype.lower()}", 1, signature(*tensors), yaml=TRUSTED, marker=1)
    factor = {"name": "factor", "dtype": "INT32", "shape": []}
    scaled = signature([X, factor], [Y, {"name": "f", "dtype": "INT32", "shape": [], "of": "factor"}])
    steps(root / "scalar", 1, scaled, yaml="batching: {mode: off}\n")
    free = {"name": "in", "dtype": "FP32", "shape": None}
    made = {"name": "out", "dtype": "FP32", "shape": None, "of": "in"}
    steps(root / "free", 1, signature([free], [made]), yaml="batching: {mode: off}\n")
    _several(root / "several")
    optional = {"name": "w", "dtype": "INT64", "shape": [-1], "optional": True}
    kept = {"name": "v", "dtype": "INT64", "shape": [-1], "of": "w"}
    steps(root / "optional", 1, signature([X, optional], [Y, kept]), yaml=TRUSTED)
    steps(root / "counting", 1, rows, counts=True)
    steps(root / "proven", 1, rows)
    steps(root / "mixing", 1, signature([X], [{**Y, "mix": True}]))
    _wrong(root, rows)
    _ensemble(root, "chain", "proven")
    _ensemble(root, "headless", "nobody")
    publish("onnx", _made(root / "onnx"), 1, marker=3)
    shutil.copytree(ROOT / "model_repository" / "digits_onnx", root / "digits_onnx")


def write_frameworks(root: Path) -> None:
    """Real models of every framework."""
    root.mkdir(parents=True)
    for each in ("digits_onnx", "digits_torch", "digits_tf", "digits_pt2"):
        shutil.copytree(ROOT / "model_repository" / each, root / each)


def write_small(root: Path) -> None:
    """A few models, for servers with special settings."""
    root.mkdir(parents=True)
    rows = signature([X], [Z, Y])
    for name in ("rows", "secret"):
        steps(root / name, 1, rows, yaml=TRUSTED, marker=1)
    _gated(root, rows)


def write_few(root: Path) -> None:
    """One model of each kind, for servers that start a process per model or several servers."""
    root.mkdir(parents=True)
    rows = signature([X], [Z, Y])
    steps(root / "rows", 1, rows, yaml=TRUSTED, marker=1)
    steps(root / "gated", 1, rows, yaml=TRUSTED, marker=1, gate=True)
    steps(root / "counting", 1, rows, counts=True)
    steps(root / "failing", 3, rows, fail="model.steps: this version cannot be served")
    publish("onnx", _made(root / "onnx"), 1, marker=3)


def write_held(root: Path) -> None:
    """Gated models, and those that their ensemble uses."""
    root.mkdir(parents=True)
    rows = signature([X], [Z, Y])
    for version in (1, 2):
        steps(root / "rows", version, rows, yaml=f"{TRUSTED}version_policy: {{all: true}}\n", marker=version)
    _gated(root, rows)
    _ensemble(root, "gated_chain", "gated")


def write_swapped(root: Path) -> None:
    """One model that gets new versions."""
    root.mkdir(parents=True)
    steps(root / "rows", 1, signature([X], [Z, Y]), yaml=TRUSTED, marker=1)
    _gated(root, signature([X], [Z, Y]))


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _several(model: Path) -> None:
    text = {"name": "inputs", "dtype": "STRING", "shape": [-1]}
    scores = {"name": "scores", "dtype": "FP32", "shape": [-1], "of": "inputs"}
    classes = {"name": "classes", "dtype": "STRING", "shape": [-1], "of": "inputs", "sorted": True}
    regressed = {"name": "outputs", "dtype": "FP32", "shape": [-1], "of": "inputs"}
    steps(
        model,
        7,
        signature([X], [Y]),
        signature([X], [Z], "other"),
        signature([text], [classes, scores], "classes", "tensorflow/serving/classify"),
        signature([text], [regressed], "values", "tensorflow/serving/regress"),
        yaml="batching: {mode: off}\n",
        marker=7,
    )


def _gated(root: Path, rows: Mapping[str, Any]) -> None:
    bounded = "batching: {mode: trusted, max_batch_size: 4, size: largest}\nqueue: {requests: 6, admission: bounds}\n"
    steps(root / "gated", 1, rows, yaml=TRUSTED, marker=1, gate=True)
    steps(root / "bounded", 1, rows, yaml=bounded, marker=1, gate=True)
    loose = {"name": "x", "dtype": "FP32", "shape": [-1, -1]}
    ragged = signature([loose], [{**loose, "name": "y", "of": "x"}])
    steps(root / "ragged", 1, ragged, yaml=TRUSTED, marker=1, gate=True)
    proven = "batching: {max_batch_size: 8, size: largest}\nqueue: {admission: bounds}\n"
    steps(root / "split", 1, rows, yaml=proven, marker=1, gate=True)
    steps(root / "single", 1, rows, yaml="batching: {mode: off}\nqueue: {admission: bounds}\n", marker=1, gate=True)


def _wrong(root: Path, rows: Mapping[str, Any]) -> None:
    steps(root / "failing", 3, rows, fail="model.steps: this version cannot be served")
    steps(root / "misread", 1, rows, yaml="batchin: {mode: off}\n")
    steps(root / "optioned", 1, rows, yaml="options: {scala: 3}\n")
    (root / "nothing" / "1").mkdir(parents=True)


def _ensemble(root: Path, name: str, second: str) -> None:
    text = f"""
ensemble:
  - {{model: rows, version: 2, inputs: {{x: x}}, outputs: {{y: between, z: aside}}}}
  - {{model: {second}, inputs: {{x: between}}, outputs: {{z: last}}}}
signatures:
  - inputs: [{{name: x, dtype: FP32, shape: [-1, 4]}}]
    outputs: [{{name: last, dtype: FP32, shape: [-1, 4]}}, {{name: aside, dtype: FP32, shape: [-1, 4]}}]
"""
    (root / name / "1").mkdir(parents=True)
    (root / name / "model.yaml").write_text(text)
