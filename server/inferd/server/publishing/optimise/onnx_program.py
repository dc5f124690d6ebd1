"""Makes a variant of an ONNX model with ONNX Runtime's own tools, in a subprocess.

python -P -m inferd.server.publishing.optimise.onnx_program DESCRIPTOR      a JSON request on stdin

    {"parent": PID, "as": "int8", "source": FILE, "target": FILE, "calibration": FILE.npz or null}

Scales are constants of the variant: they come from the calibration rows, never from what is asked later. Dynamic
quantisation is made for matrix products alone: ONNX Runtime's kernels for dynamically quantised convolutions are slower
than those for floats.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from inferd.backends.api import LoadError
from inferd.server.publishing.probe_worker import answered, serve

_OLDEST: Final = 13  # per-channel scales came with this operator set
_TARGET: Final = 17
_CHUNK: Final = 32  # rows of one calibration run
_LARGE: Final = 1_500_000_000  # bytes beyond which weights need a file of their own
_QUANTISED: Final = frozenset(
    [
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger",
        "ConvInteger",
    ]
)  # fmt: skip
_PRODUCTS: Final = ("MatMul", "Gemm")
_FLOAT, _FLOAT16 = 1, 10  # onnx.TensorProto


def answer(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """The answer to a request. Never raises."""
    return answered(lambda: _make(request, progress))


def _make(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    import onnx
    import onnxruntime

    source, target = Path(request["source"]), Path(request["target"])
    model = onnx.load(str(source))
    _check(model)
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepared(onnx, model, Path(folder))
        large = prepared.stat().st_size > _LARGE or any(Path(folder).glob("*.data"))
        if request["as"] == "fp16":
            _half(onnx, prepared, target, large)
        elif request["as"] == "int8":
            progress("calibrates")
            _static(prepared, target, Path(request["calibration"]), large)
        else:
            _dynamic(model, prepared, target, large)
    return {"made_with": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}}


def _check(model: Any) -> None:
    """Raises LoadError for a model that is no model in floats of 32 bits."""
    there = sorted({node.op_type for node in model.graph.node} & _QUANTISED)
    if there:
        raise LoadError(f"it is quantised already ({there[0]}): optimise the version in 32 bits that it was made from")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if _FLOAT16 in kinds:
        raise LoadError("its weights are in 16 bits already: optimise the version in 32 bits that it was made from")
    if _FLOAT not in kinds and not any(node.op_type == "Constant" for node in model.graph.node):
        raise LoadError("it has no weights in 32 bits: there is nothing to make smaller")


def _prepared(onnx: Any, model: Any, folder: Path) -> Path:
    """The model in an operator set that the tools take, with shapes and without what can be computed ahead."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), _TARGET)
    if version < _OLDEST:
        try:
            model = onnx.version_converter.convert_version(model, _TARGET)
        except Exception as error:
            raise LoadError(f"its operator set {version} cannot be brought to {_TARGET}: {_first(error)}") from None
    raw, prepared = folder / "raw.onnx", folder / "prepared.onnx"
    large = model.ByteSize() > _LARGE
    onnx.save_model(model, str(raw), save_as_external_data=large, location="raw.data" if large else None)
    for skip in (False, True):
        try:
            quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=skip, save_as_external_data=large)
        except Exception:  # symbolic inference needs sympy, and knows fewer operators than ONNX Runtime
            continue
        return prepared
    return raw


def _static(prepared: Path, target: Path, calibration: Path, large: bool) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with np.load(calibration, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    try:
        quantize_static(
            str(prepared),
            str(target),
            _CalibrationRows(prepared, arrays),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=large,
        )
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"it cannot be quantised: {_first(error)}") from None


def _dynamic(model: Any, prepared: Path, target: Path, large: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not any(node.op_type in _PRODUCTS for node in model.graph.node):
        raise LoadError("it has no matrix products, and convolutions become slower this way")
    try:
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=list(_PRODUCTS),
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
    except Exception as error:
        raise LoadError(f"it cannot be quantised: {_first(error)}") from None


def _half(onnx: Any, prepared: Path, target: Path, large: bool) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        made = convert_float_to_float16(onnx.load(str(prepared)), keep_io_types=True)
    except Exception as error:
        raise LoadError(f"it cannot be brought to 16 bits: {_first(error)}") from None
    onnx.save_model(made, str(target), save_as_external_data=large, location="model.data" if large else None)


class _CalibrationRows:
    """The calibration rows, as ONNX Runtime's tools ask for them: some rows at a time."""

    def __init__(self, model: Path, arrays: Mapping[str, Any]) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._feeds = iter(_feeds(session.get_inputs(), arrays))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def __len__(self) -> int:
        raise NotImplementedError

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError


def _feeds(inputs: Any, arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    if len(inputs) == len(arrays) == 1:  # an array without a name of its own
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    unknown = sorted(arrays.keys() - {value.name for value in inputs})
    if unknown:
        names = ", ".join(value.name for value in inputs)
        raise LoadError(f"the calibration rows have an input {unknown[0]!r}; the model's inputs are {names}")
    known = {}
    for value in inputs:
        if value.name in arrays:
            kind = value.type.removeprefix("tensor(").removesuffix(")")
            dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
            array = arrays[value.name]
            known[value.name] = array.astype(object) if kind == "string" else np.ascontiguousarray(array.astype(dtype))
    rows = max((len(array) for array in known.values() if array.ndim), default=1)
    fixed = [value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)]
    step = min([*fixed, _CHUNK])
    whole = rows - rows % step if fixed else rows
    return [
        {n: a[start : start + step] if a.ndim and len(a) == rows else a for n, a in known.items()}
        for start in range(0, whole, step)
    ]


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # the tools advise people who use them by hand
    serve(sys.argv[1:], answer)
