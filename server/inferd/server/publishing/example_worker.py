"""The subprocess in which a model is run on examples, to find out what it takes and gives.

python -P -m inferd.server.publishing.example_worker DESCRIPTOR        a JSON request on stdin

`example_signature` starts it and says what the fields of request and answer mean.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import (
    DEFAULT_SIGNATURE,
    Array,
    Backend,
    BackendError,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
)
from inferd.backends.quiet import be_quiet
from inferd.backends.registry import Registry
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config
from inferd.server.parent_death import end_with
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.rows import ONLY, read_rows, texts
from inferd.server.repository.code_trust import CodeTrust
from inferd.wire.dtypes import DType, dtype_of


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opens the version, each time with other declarations."""

    backend: Backend
    artefact: Path
    directory: Path
    options: Mapping[str, Any]
    allow: frozenset[str]

    def open(self, *signatures: Signature) -> Model:
        request = OpenRequest(
            self.directory.parent.name, 1, self.directory, self.artefact, signatures, self.options, self.allow,
            isolated=True,
        )  # fmt: skip
        return self.backend.open(request)

    def told(self) -> tuple[Signature | None, bool]:
        """The signature that the version tells without a declaration, None: it tells none; and whether it is all there
        is to know."""
        try:
            model = self.open()
        except LoadError:
            return None, False
        try:
            first = model.signatures[0]
            known = all(spec.shape is not None for spec in (*first.inputs, *first.outputs))
            return first, known and not model.traits.notes
        finally:
            model.close()

    def run(
        self, signature: Signature, examples: Sequence[Mapping[str, Array]]
    ) -> tuple[list[dict[str, Array]], dict[str, Array] | None]:
        """The outputs for every example, and those for the first one with every row twice; None if the model refuses
        that, or has no rows."""
        model = self.open(signature)
        try:
            instance = model.instance(Placement())
            try:
                runs = [instance.run(signature.name, example) for example in examples]
                rows = {len(array) for array in examples[0].values() if array.ndim}
                if len(rows) != 1:
                    return runs, None
                twice = {n: np.concatenate([a, a]) if a.ndim else a for n, a in examples[0].items()}
                try:
                    return runs, instance.run(signature.name, twice)
                except BackendError:
                    return runs, None
            finally:
                instance.close()
        finally:
            model.close()


def main(arguments: list[str]) -> None:
    """Answers one request and ends the process. Never returns."""
    descriptor = int(arguments[-1])
    request = json.load(sys.stdin)
    be_quiet()
    os.set_inheritable(descriptor, False)
    if not end_with(int(request["parent"])):
        os._exit(1)
    data = json.dumps(answer(request)).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # some frameworks crash in the interpreter's own shutdown


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request of `example_signature`. Never raises."""
    try:
        return {"done": _look(request)}
    except (LoadError, BackendError, PublishError, ConfigError) as error:
        return {"failed": str(error)}
    except ImportError as error:
        return {"failed": f"{error.name} is not installed", "install": [str(error.name)]}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _look(request: Mapping[str, Any]) -> dict[str, Any]:
    config = load_config(Path(request["config"]) if request["config"] else None, {}, request["set"])
    directory = Path(request["directory"])
    allow = request["allow"]
    if allow is None:
        allow = CodeTrust(config.repository.allow).kinds(Path(request["real"]))
    backend, artefact = Registry().detect(directory, None, allow)
    opener = _Opener(backend, artefact, directory, request["options"], frozenset(allow))
    told, complete = opener.told()
    files = [read_rows(Path(file)).inputs for file in request["examples"]]
    examples = [
        _named(file, request["inputs"] or [spec.name for spec in told.inputs] if told else None) for file in files
    ]
    name = told.name if told is not None else DEFAULT_SIGNATURE
    inputs = tuple(_spec(each, [example[each] for example in examples], vary=True) for each in examples[0])
    asked = [(each, DType[dtype] if dtype else None) for each, dtype in request["outputs"]]
    typed = tuple(TensorSpec(each, dtype, None) for each, dtype in asked if dtype is not None)
    first = Signature(name, inputs, typed if len(typed) == len(asked) else ())
    runs, doubled = opener.run(first, [_converted(example) for example in examples])
    if doubled is None:
        inputs = tuple(_spec(each, [example[each] for example in examples], vary=False) for each in examples[0])
    outputs = tuple(
        _spec(each, [run[each] for run in runs], vary=False, doubled=doubled[each] if doubled is not None else None)
        for each in runs[0]
    )
    if asked and not first.outputs:
        outputs = _renamed(outputs, [each for each, _ in asked])
        opener.run(Signature(name, inputs, outputs), [_converted(examples[0])])  # raises where a name does not fit
    return {
        "backend": backend.name,
        "complete": complete,
        "name": name,
        "inputs": [_as_json(spec) for spec in inputs],
        "outputs": [_as_json(spec) for spec in outputs],
        "rows_vary": doubled is not None,
    }


def _named(arrays: Mapping[str, Array], names: Sequence[str] | None) -> dict[str, Array]:
    """The arrays of an example under the names of the inputs. Raises PublishError."""
    given = list(arrays)
    if names is None:
        if given == [ONLY]:
            raise PublishError(
                "the file does not tell the names of its inputs; expected --input NAME, or a .npz example"
            )
        return dict(arrays)
    if len(given) == 1 and len(names) == 1:
        return {names[0]: arrays[given[0]]}
    if set(given) <= set(names):
        return {name: arrays[name] for name in names if name in arrays}
    if given == [ONLY]:
        raise PublishError(
            f"the model has {len(names)} inputs ({', '.join(names)}); expected a .npz example with an array for each"
        )
    raise PublishError(f"the example holds {', '.join(given)}; the model's inputs are {', '.join(names)}")


def _converted(example: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: texts(array) if dtype_of(array) is DType.STRING else np.ascontiguousarray(array)
        for name, array in example.items()
    }


def _spec(name: str, arrays: Sequence[Array], *, vary: bool, doubled: Array | None = None) -> TensorSpec:
    """The specification that fits these arrays: a dimension in which they differ is -1. `vary`: dimension 0 is, too.
    `doubled`: the same tensor of a run with twice the rows."""
    shapes = [array.shape for array in (*arrays, *(() if doubled is None else (doubled,)))]
    dtype = dtype_of(arrays[0])
    if len({len(shape) for shape in shapes}) != 1:
        return TensorSpec(name, dtype, None)
    shape = [sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=True)]
    if vary and shape:
        shape[0] = -1
    return TensorSpec(name, dtype, tuple(shape))


def _renamed(outputs: Sequence[TensorSpec], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    if len(names) != len(outputs):
        found = ", ".join(spec.name for spec in outputs)
        raise PublishError(f"{len(names)} names of outputs are given; the model gives {len(outputs)}: {found}")
    return tuple(TensorSpec(name, spec.dtype, spec.shape) for name, spec in zip(names, outputs, strict=True))


def _as_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": spec.shape}


if __name__ == "__main__":
    main(sys.argv[1:])
