"""The backend of the differential suite: models with foreseeable answers, which fail on marked rows and can be held.

Both sides load this one file as a plug-in. It needs nothing but the contracts of `inferd.backends.api`. `model.steps`
is a JSON object:

    fail         refuse to open, with this message
    marker       added to every number
    signatures   [{name, method, inputs, outputs}] with tensors {name, dtype, shape, optional, of, mix, sorted}: an
                 output is made of the input `of`; with `mix`, of the sum over all rows; with `sorted`, of its sorted
                 bytes
    gate         each run is announced on the socket DIFFERENTIAL_GATE and waits for leave
    counts       the model is stateful: the first output is the number of runs
    traits       further fields of Traits
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import (
    BackendError,
    Independence,
    InstanceLost,
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.wire.dtypes import DType

Array = np.ndarray[Any, Any]

# The first value of a row of the input `x`: what the run that meets it does.
REFUSE, BREAK, RAISE, ROWS, MISSING, OTHER_TYPE, EXTRA, NOT_FINITE, LOST, RANK, LEAVE = range(-9001, -9012, -1)
GATE = "DIFFERENTIAL_GATE"
OPTIONS = ("scale",)


class StepsBackend:
    name = "steps"
    platforms = ("steps",)
    artefacts = ("model.steps",)

    def find(self, directory: Path) -> Path | None:
        artefact = directory / "model.steps"
        return artefact if artefact.is_file() else None

    def complete(self, artefact: Path) -> str | None:
        return None

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def devices(self) -> Sequence[str]:
        return ("cpu",)

    def open(self, request: OpenRequest) -> StepsModel:
        unknown = sorted(request.options.keys() - set(OPTIONS))
        if unknown:
            raise LoadError(f"unknown option {unknown[0]!r} of the steps backend; known are: {', '.join(OPTIONS)}")
        document = json.loads(request.artefact.read_text())
        if "fail" in document:
            raise LoadError(document["fail"])
        return StepsModel(document, f"{request.model}/{request.version}", float(request.options.get("scale", 2.0)))


class StepsModel:
    def __init__(self, document: dict[str, Any], name: str, scale: float) -> None:
        self._document, self._name, self._scale = document, name, scale
        self.signatures = tuple(
            Signature(each["name"], _specs(each["inputs"]), _specs(each["outputs"]), each.get("method", ""))
            for each in document["signatures"]
        )
        traits = {"concurrent": True, "bounded": not document.get("gate"), **document.get("traits", {})}
        self.traits = Traits(stateful=bool(document.get("counts")), **traits)

    def independence(self, signature: Signature) -> Independence:
        return Independence(True)

    def instance(self, placement: Placement) -> StepsInstance:
        return StepsInstance(self._document, self._name, self._scale)

    def close(self) -> None:
        pass


class StepsInstance:
    def __init__(self, document: dict[str, Any], name: str, scale: float) -> None:
        self._document, self._name, self._scale = document, name, scale
        self._signatures = {each["name"]: each for each in document["signatures"]}
        self._runs = 0

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        self._runs += 1
        if self._document.get("gate"):
            _wait(self._name, signature, inputs)
        tensors = self._signatures[signature]["outputs"]
        wanted = [each for each in tensors if outputs is None or each["name"] in outputs]
        marks = _marks(inputs.get("x"))
        _happen(marks)
        results: dict[str, Array] = {}
        for each in wanted:
            source = inputs.get(each["of"])
            if source is None:
                raise InvalidInput(f"output {each['name']!r} needs the input {each['of']!r}")
            results[each["name"]] = self._made(source, each)
        if self._document.get("counts"):
            first = next(iter(results))
            results[first] = np.full_like(results[first], self._runs)
        return _spoil(marks, results)

    def close(self) -> None:
        pass

    def _made(self, source: Array, output: Mapping[str, Any]) -> Array:
        dtype = DType[output["dtype"]].numpy
        marker = self._document.get("marker", 0)
        with np.errstate(all="ignore"):
            if source.dtype == object:
                if output["dtype"] != "STRING":
                    return np.vectorize(len, otypes=[dtype])(source)
                texts = source.ravel().tolist()
                if output.get("sorted"):  # of a serialised tf.Example, whose fields may come in any order
                    texts = [bytes(sorted(each)) for each in texts]
                return np.array([b"<" + each + b">" for each in texts], object).reshape(source.shape)
            if output["dtype"] == "STRING":
                return np.array([str(each).encode() for each in source.ravel().tolist()], object).reshape(source.shape)
            if source.dtype == bool:
                return (~source).astype(dtype)
            if output.get("mix"):
                source = source + source.sum(axis=0, keepdims=True)
            if source.dtype.kind in "iu":
                return (source + source.dtype.type(int(marker))).astype(dtype)
            return (source.astype(np.float64) * self._scale + marker).astype(dtype)


def _specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            each["name"],
            DType[each["dtype"]],
            None if each["shape"] is None else tuple(each["shape"]),
            each.get("optional", False),
        )
        for each in tensors
    )


def _marks(x: Array | None) -> set[int]:
    if x is None or x.dtype != np.float32 or x.ndim < 2 or not x.size:
        return set()
    first = x.reshape(len(x), -1)[:, 0].tolist()
    return {int(each) for each in first if LEAVE <= each <= REFUSE and each == int(each)}


def _happen(marks: set[int]) -> None:
    if REFUSE in marks:
        raise InvalidInput("a row is marked as refused")
    if BREAK in marks:
        raise BackendError("a row is marked as broken")
    if RAISE in marks:
        raise RuntimeError("a row is marked to raise")
    if LOST in marks:
        raise InstanceLost("a row is marked to lose the instance", accepted=True)
    if LEAVE in marks:
        sys.exit(3)


def _spoil(marks: set[int], results: dict[str, Array]) -> dict[str, Array]:
    if not results:
        return results
    name = list(results)[-1]
    if ROWS in marks:
        results[name] = np.concatenate([results[name], results[name][:1]])
    if OTHER_TYPE in marks:
        results[name] = results[name].astype(np.int64)
    if NOT_FINITE in marks:
        results[name] = np.resize(np.array([np.nan, np.inf, -np.inf, -0.0], np.float32), results[name].shape)
    if RANK in marks:
        results[name] = results[name].reshape(-1)
    if EXTRA in marks:
        results["nobody asked"] = results[name]
    if MISSING in marks:
        del results[name]
    return results


def _wait(model: str, signature: str, inputs: Mapping[str, Array]) -> None:
    where = os.environ.get(GATE)
    if not where:
        return
    rows = {name: [list(array.shape), _first(array)] for name, array in sorted(inputs.items())}
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(where)
        gate.sendall(json.dumps({"model": model, "signature": signature, "inputs": rows}).encode() + b"\n")
        if not gate.recv(1):
            raise BackendError("the gate was taken away")


def _first(array: Array) -> list[Any]:
    """The first value of each row: which requests share the run, and in which order."""
    flat = array.reshape(array.shape[0] if array.ndim else 1, -1)[:, :1].ravel()
    return [each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in flat.tolist()]
