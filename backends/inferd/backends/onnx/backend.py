"""The ONNX Runtime backend: `model.onnx`, on the CPU or on CUDA.

`model.onnx` is a file, or a directory that holds a file of that name and its external data.

All bytes are read into memory when a version is opened. ONNX Runtime would otherwise map the external data: a file that
is overwritten would then change live answers, and a file that is truncated would kill the process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferd.backends.api import (
    DEFAULT_SIGNATURE,
    LEFT_OUT,
    IncompleteArtefact,
    Independence,
    Instance,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)
from inferd.backends.checks import narrowed
from inferd.backends.files import FileRule, regular_file
from inferd.backends.onnx import device as onnx_device
from inferd.backends.onnx import session as onnx_session
from inferd.backends.onnx.content import ModelContent
from inferd.backends.onnx.files import (
    TENSOR_TYPES,
    ModelHeader,
    ValueInfo,
    external_path,
    read_header,
)
from inferd.backends.onnx.independence.proof import analyse_model
from inferd.backends.onnx.messages import FileSource, Malformed, MemorySource, Truncated
from inferd.backends.onnx.options import OnnxOptions
from inferd.wire.dtypes import DType

ARTEFACT = "model.onnx"

# By number of onnx.TensorProto.DataType: the element types that can be sent.
_DTYPES = {
    1: DType.FP32, 2: DType.UINT8, 3: DType.INT8, 4: DType.UINT16, 5: DType.INT16, 6: DType.INT32, 7: DType.INT64,
    8: DType.STRING, 9: DType.BOOL, 10: DType.FP16, 11: DType.FP64, 12: DType.UINT32, 13: DType.UINT64, 16: DType.BF16,
}  # fmt: skip


class OnnxBackend:
    """Opens ONNX models. Thread-safe; imports ONNX Runtime only in `open` and `devices`.

    ONNX Runtime's functions that are used here are for any number of threads: several sessions may be made at the same
    time, and one session may be run by several threads. One trap is left: the first session that flushes denormals
    changes the thread that makes it, so it is made on a thread of its own (`session.make_session`).
    """

    name = "onnx"
    platforms = ("onnxruntime", "onnxruntime_onnx")
    artefacts = (ARTEFACT,)

    def find(self, directory: Path) -> Path | None:
        """`model.onnx` in the version directory. Raises LoadError if only ONNX files of other names are there."""
        artefact = directory / ARTEFACT
        if artefact.is_file() or artefact.is_dir():
            return artefact
        others = sorted(p.name for p in directory.glob("*.onnx") if not p.name.startswith("."))
        if others:
            raise LoadError(f"an ONNX model must be called {ARTEFACT}, found {', '.join(others)}: rename it")
        return None

    def complete(self, artefact: Path) -> str | None:
        """What is missing of the model or its external data, as far as lengths and sizes show. None if nothing is."""
        file = _model_file(artefact)
        try:
            header = _read_header(file)
            for location, end in header.locations().items():
                _check_external(file, location, end)
        except IncompleteArtefact as error:
            return str(error)
        except FileNotFoundError:
            return f"{_shown(artefact)} is missing"
        except Truncated as error:
            return f"{_shown(artefact)} is cut short: {error}"
        except (Malformed, OSError):
            return None  # nothing is missing; `open` reports what is wrong
        return None

    def files(self, artefact: Path) -> Sequence[Path]:
        """The files with external data beside the model file. None for a directory: it holds them itself."""
        if artefact.is_dir():
            return ()
        try:
            header = _read_header(artefact)
            return tuple(external_path(artefact, location) for location in header.locations())
        except (OSError, Truncated, Malformed):
            return ()

    def open(self, request: OpenRequest) -> Model:
        """Reads the model and its external data into memory. Raises LoadError."""
        options = OnnxOptions.read(request.options)
        onnx_session.runtime()
        return OnnxModel(request, options)

    def devices(self) -> Sequence[str]:
        return onnx_session.devices()


class OnnxModel:
    """An opened ONNX model: its bytes and its signature. Thread-safe until closed."""

    def __init__(self, request: OpenRequest, options: OnnxOptions) -> None:
        self._options = options
        self._content, header = _read_model(request.artefact, request.rule)
        inputs = tuple(_spec(v, "input") for v in header.inputs if v.name not in header.initializers)
        outputs = header.outputs
        if any(not value.kind or (value.element and value.shape is None) for value in outputs):
            outputs = self._inferred(outputs)
        sendable, left_out = _outputs(outputs)
        self._signature = Signature(DEFAULT_SIGNATURE, inputs, sendable)
        _check_supported(self._signature)
        for declared in request.signatures:
            for spec in declared.outputs:
                if spec.name in left_out:
                    raise LoadError(f"output {spec.name!r} is declared, but {left_out[spec.name]}")
            self._signature = _with_declared(self._signature, declared)
        self._traits = _traits(self._signature, left_out)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return (self._signature,)

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> Instance:
        fixed = all(spec.shape is not None and -1 not in spec.shape for spec in self._signature.inputs)
        session = onnx_session.make_session(
            self._content, placement.device, placement.threads, self._options, fixed_shapes=fixed
        )
        return _instance(session, self._signature, placement.device, graph=self._options.cuda_graph)

    def independence(self, signature: Signature) -> Independence:
        """See Analysable. Reads the graph again from the model's bytes; weights are skipped."""
        return analyse_model(self._content.model_source, signature)

    def close(self) -> None:
        self._content.close()

    def _inferred(self, outputs: list[ValueInfo]) -> list[ValueInfo]:
        """Completes the description of the outputs where the file leaves it open: ONNX Runtime infers types and
        shapes when it makes a session."""
        session = onnx_session.make_session(self._content, "cpu", 1, OnnxOptions(graph_optimization="disabled"))
        inferred = {value.name: value for value in session.get_outputs()}
        numbers = {f"tensor({name})": number for number, name in TENSOR_TYPES.items()}
        result = []
        for value in outputs:
            known = inferred[value.name]
            shape = value.shape
            if shape is None and known.shape:  # [] means "unknown" or "a scalar": it is of no use
                shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in known.shape)
            result.append(ValueInfo(value.name, known.type, numbers.get(known.type, 0), shape))
        return result


def _model_file(artefact: Path) -> Path:
    return artefact / ARTEFACT if artefact.is_dir() else artefact


def _shown(artefact: Path) -> str:
    return f"{ARTEFACT}/{ARTEFACT}" if artefact.is_dir() else ARTEFACT


def _read_header(file: Path) -> ModelHeader:
    descriptor = regular_file(file)
    try:
        return read_header(FileSource(descriptor))
    finally:
        os.close(descriptor)


def _read_model(artefact: Path, rule: FileRule) -> tuple[ModelContent, ModelHeader]:
    """The model's bytes with its external data, and its header. Raises LoadError or IncompleteArtefact."""
    file, shown = _model_file(artefact), _shown(artefact)
    external = {}
    try:
        with rule.opened() as root:
            data = root.read(file)
            header = read_header(MemorySource(data))
            for location, end in header.locations().items():
                content = root.read(_check_external(file, location, end))
                if len(content) < end:
                    raise IncompleteArtefact(f"external data {location!r} shrank while it was read")
                external[location] = content
    except FileNotFoundError:
        raise IncompleteArtefact(f"{shown} is missing") from None
    except Truncated as error:
        raise IncompleteArtefact(f"{shown} is cut short: {error}") from None
    except Malformed as error:
        raise LoadError(f"{shown} is no ONNX model that can be served: {error}") from None
    except OSError as error:
        raise LoadError(f"{shown} cannot be read: {error.strerror or error}") from None
    nested = any(part.nested for part in header.external)
    return ModelContent(data, external, nested=nested), header


def _check_external(file: Path, location: str, end: int) -> Path:
    """The path of the external file at `location`, which has at least `end` bytes. Raises IncompleteArtefact if it is
    missing or shorter, Malformed for a location outside the model's directory, OSError."""
    path = external_path(file, location)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        where = f"{path.parent.name}/{path.name}"
        raise IncompleteArtefact(
            f"external data {location!r} is missing: the weights are in a file of their own, expected at {where}"
        ) from None
    if size < end:
        raise IncompleteArtefact(f"external data {location!r} is cut short: {size} bytes, the model needs {end}")
    return path


def _spec(value: ValueInfo, role: str) -> TensorSpec:
    dtype = _DTYPES.get(value.element)
    if dtype is None:
        what = value.kind or "nothing that is known"
        known = ", ".join(TENSOR_TYPES[number] for number in _DTYPES)
        raise LoadError(f"{role} {value.name!r} is {what}; only tensors can be served, of {known}")
    return TensorSpec(value.name, dtype, value.shape)


def _outputs(values: Sequence[ValueInfo]) -> tuple[tuple[TensorSpec, ...], dict[str, str]]:
    """The outputs that can be sent, and why the others cannot, by name: the maps of scikit-learn's ZipMap, sequences,
    types that no protocol has. Raises LoadError if none is left."""
    specs: list[TensorSpec] = []
    left_out: dict[str, str] = {}
    for value in values:
        try:
            specs.append(_spec(value, "output"))
        except LoadError as error:
            left_out[value.name] = str(error)
    if left_out and not specs:
        raise LoadError("; ".join(left_out.values()))
    return tuple(specs), left_out


def _check_supported(signature: Signature) -> None:
    """Raises LoadError for STRING inputs together with BF16 outputs: onnxruntime returns bfloat16 only as its own
    tensors and takes strings only as arrays, and no way of running combines the two."""
    strings = [spec.name for spec in signature.inputs if spec.dtype is DType.STRING]
    halves = [spec.name for spec in signature.outputs if spec.dtype is DType.BF16]
    if strings and halves:
        raise LoadError(f"string input {strings[0]!r} with bfloat16 output {halves[0]!r}: onnxruntime cannot run both")


def _with_declared(found: Signature, declared: Signature) -> Signature:
    """The file's signature, narrowed by the one declared in model.yaml or config.pbtxt. Raises LoadError if the two
    contradict each other."""
    if declared.name != found.name:
        raise LoadError(f"declared signature {declared.name!r}: an ONNX model has only {found.name!r}")
    inputs = narrowed("input", found.inputs, declared.inputs)
    outputs = narrowed("output", found.outputs, declared.outputs)
    return Signature(found.name, inputs, outputs)


def _instance(session: Any, signature: Signature, device: str, *, graph: bool) -> Instance:
    if device == "cpu":
        return onnx_session.OnnxInstance(session, signature)
    if not graph:
        return onnx_device.DeviceInstance(session, signature, device)
    on_host = [s.name for s in (*signature.inputs, *signature.outputs) if s.dtype in (DType.STRING, DType.BF16)]
    if on_host:
        raise LoadError(
            f"option 'cuda_graph': {on_host[0]!r} is of a type that is translated on the host; leave it out"
        )
    return onnx_device.GraphInstance(session, signature, device)


def _traits(signature: Signature, left_out: Mapping[str, str]) -> Traits:
    """The traits of every ONNX Runtime session: it never writes into a graph's inputs, and runs may overlap.
    `left_out`: outputs that are not served, and why.

    The kernels read the caller's arrays in place and are compiled for naturally aligned elements.
    """
    leading = [spec.shape[0] if spec.shape else -1 for spec in signature.inputs if spec.shape != ()]
    fixed = [rows for rows in leading if rows >= 0]
    return Traits(
        may_write_inputs=False,
        alignment=max((spec.dtype.itemsize for spec in signature.inputs), default=1) or 1,
        bounded=True,
        concurrent=True,
        overlaps=2,
        max_batch=min(fixed) if fixed and len(fixed) == len(leading) else None,
        notes=tuple(f"output {name!r} {LEFT_OUT}{_briefly(why)}" for name, why in left_out.items()),
    )


def _briefly(why: str) -> str:
    """The reason without the output's name, and what to do about ZipMap."""
    said = why.partition(" is ")[2].partition("; ")[0]
    return f"{said}, not a tensor" + (" (convert with zipmap=False)" if "map(" in said else "")
