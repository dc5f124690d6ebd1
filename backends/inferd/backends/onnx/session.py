"""Sessions of ONNX Runtime: made on the device that was asked for, run on named arrays, with messages for clients."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import (
    Array,
    BackendError,
    BrokenContract,
    InvalidInput,
    LoadError,
    MissingFramework,
    Signature,
)
from inferd.backends.checks import SignatureCheck
from inferd.backends.onnx.content import ModelContent
from inferd.backends.onnx.load_errors import load_reason
from inferd.backends.onnx.options import OnnxOptions
from inferd.backends.quiet import be_quiet
from inferd.wire.dtypes import DType, bfloat16

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


def runtime() -> Any:
    """The module onnxruntime, imported at the first call. Raises MissingFramework if it is not installed, LoadError if
    it cannot be imported."""
    be_quiet()
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise MissingFramework("onnxruntime", "onnx") from None
        raise LoadError(f"onnxruntime is installed but needs {error.name}, which is not") from None
    except ImportError as error:
        raise LoadError(f"onnxruntime is installed but cannot be imported: {error}") from None
    return onnxruntime


def devices() -> tuple[str, ...]:
    """The devices that ONNX Runtime can use on this machine, best first."""
    if CUDA not in runtime().get_available_providers():
        return ("cpu",)
    return (*(f"cuda:{i}" for i in range(cuda_count())), "cpu")


def cuda_count() -> int:
    """The number of CUDA devices that the driver shows to this process. Makes no CUDA context."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def make_session(
    content: ModelContent, device: str, threads: int, options: OnnxOptions, *, fixed_shapes: bool = False
) -> Any:
    """An InferenceSession on `device`. `fixed_shapes`: no input has a dimension of any size.

    Raises LoadError if the device does not exist, if ONNX Runtime cannot load the model, or if ONNX Runtime would
    silently use another device.
    """
    ort = runtime()
    providers = _providers(ort, device, options)
    settings = options.session_options(ort, threads=threads, fixed_shapes=fixed_shapes)
    if device != "cpu":
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        if options.flushes_denormals:
            # The first session of a process flushes denormals on the thread that makes it, for as long as that thread
            # lives. On a loading thread that would change the numbers of models that are loaded later.
            with ThreadPoolExecutor(1, thread_name_prefix="inferd-onnx-session") as thread:
                session = thread.submit(_load, ort, content, settings, providers).result()
        else:
            session = _load(ort, content, settings, providers)
    except Exception as error:  # pybind raises its own classes, which share no base
        raise LoadError(load_reason(clean(error), ort.__version__)) from None
    # With the fallback, a failed run would make a new session on the CPU and print to stdout.
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        # A second copy of all weights: onnxruntime keeps it only for set_providers(), which is never called.
        session._model_bytes = None
    if device != "cpu":
        _check_device(session, device)
    return session


def _load(ort: Any, content: ModelContent, settings: Any, providers: list[Any]) -> Any:
    model, external = content.read()
    if content.nested:
        # From memory, ONNX Runtime takes external data for the main graph only; it would look for the rest in the
        # working directory. So it maps a private copy on disk, which is deleted as soon as the session is made.
        with tempfile.TemporaryDirectory(prefix="inferd-onnx-") as directory:
            for location, data in external.items():
                path = Path(directory, location)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            file = Path(directory, "model.onnx")
            file.write_bytes(model)
            return ort.InferenceSession(str(file), settings, providers=providers, enable_fallback=0)
    if external:
        settings.add_external_initializers_from_files_in_memory(
            list(external), list(external.values()), [len(data) for data in external.values()]
        )
    return ort.InferenceSession(model, settings, providers=providers, enable_fallback=0)


def _providers(ort: Any, device: str, options: OnnxOptions) -> list[Any]:
    if device == "cpu":
        if options.cuda_graph:
            raise LoadError("option 'cuda_graph' needs a CUDA device, and the model is placed on cpu: instances.device")
        return [CPU]
    device_type, _, index = device.partition(":")
    if device_type != "cuda" or not index.isdigit():
        raise LoadError(f"unknown device {device!r}: ONNX Runtime runs on cpu and cuda:N")
    if CUDA not in ort.get_available_providers():
        raise LoadError(
            f"device {device!r} was asked for, but the installed onnxruntime {ort.__version__} has no CUDA: "
            "replace the package onnxruntime by onnxruntime-gpu (pip install 'inferd[onnx-gpu]')"
        )
    count = cuda_count()
    if int(index) >= count:
        raise LoadError(f"device {device!r} was asked for, but the driver shows {count} CUDA devices")
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # loads the CUDA and cuDNN libraries that pip installed
    graph = {"enable_cuda_graph": "1"} if options.cuda_graph else {}
    return [(CUDA, {**options.provider_options, **graph, "device_id": index}), CPU]


def _check_device(session: Any, device: str) -> None:
    """Raises LoadError if the session does not use `device`. When CUDA's libraries cannot be loaded, ONNX Runtime uses
    the CPU and only writes a line to stderr."""
    in_use = session.get_providers()
    if not in_use or in_use[0] != CUDA:
        raise LoadError(
            f"device {device!r} was asked for, but ONNX Runtime uses {', '.join(in_use)}: "
            "its CUDA or cuDNN libraries cannot be loaded"
        )
    index = session.get_provider_options().get(CUDA, {}).get("device_id")
    if index is not None and f"cuda:{index}" != device:
        raise LoadError(f"device {device!r} was asked for, but ONNX Runtime uses cuda:{index}")
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    if assignment is not None:
        used = {part.ep_name for part in assignment()}
        if used and CUDA not in used:
            raise LoadError(
                f"device {device!r} was asked for, but ONNX Runtime has no CUDA kernels for the model's operators; "
                "serve it with device: cpu"
            )


class OnnxInstance:
    """A session on the CPU. Several threads may call `run` at the same time."""

    def __init__(self, session: Any, signature: Signature) -> None:
        self.session = session
        self._run = core_run(session)
        self._signature = signature
        self._check = SignatureCheck(signature)
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._all = list(self._outputs)
        self._translated = any(
            spec.dtype in (DType.STRING, DType.BF16) for spec in (*signature.inputs, *signature.outputs)
        )
        self._quiet = runtime().RunOptions()
        self._quiet.log_severity_level = 4  # failures are raised, and mistakes of callers must not fill the log
        actual = {value.name: value.type for value in session.get_inputs()}
        if actual.keys() != self._inputs.keys():
            raise LoadError(
                f"the file declares the inputs {', '.join(self._inputs)}, but ONNX Runtime sees {', '.join(actual)}"
            )

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        session = self.session
        if session is None:
            raise BackendError("the instance is closed")
        if signature != self._signature.name:
            raise InvalidInput(f"unknown signature {signature!r}; there is {self._signature.name!r}")
        wanted = self._all if outputs is None else list(dict.fromkeys(self._check.wanted(outputs)))
        if not wanted:
            return {}
        if inputs.keys() != self._inputs.keys():
            self._check.inputs(inputs)
        try:
            if self._translated:
                return self._run_translated(session, inputs, wanted)
            return dict(zip(wanted, self._execute(session, wanted, inputs), strict=True))
        except BackendError:
            raise
        except Exception as error:  # pybind raises its own classes, which share no base
            # ONNX Runtime checks all inputs but names no tensor. Our check names it, and only failed runs pay for it.
            self._explain(inputs)
            raise translated(error, sizes_open=self._check.leaves_sizes_open(inputs)) from None

    def close(self) -> None:
        self.session = None
        self._run = None

    def _execute(self, session: Any, wanted: list[str], inputs: Mapping[str, Array]) -> list[Array]:
        outputs: list[Array]
        try:
            outputs = self._run(wanted, inputs, self._quiet)
        except TypeError:  # in another version of onnxruntime, the core's `run` takes other arguments
            outputs = session.run(wanted, inputs, self._quiet)
        return outputs

    def _explain(self, inputs: Mapping[str, Array]) -> None:
        """Raises InvalidInput if the inputs are the reason that a run failed."""
        self._check.inputs(inputs)

    def _run_translated(self, session: Any, inputs: Mapping[str, Array], wanted: list[str]) -> dict[str, Array]:
        """A run with STRING or BF16 tensors. ONNX Runtime takes and returns strings as `str` (we use `bytes`), and
        bfloat16 only as its own tensors, not as arrays."""
        feeds: dict[str, Any] = {}
        for name, array in inputs.items():
            dtype = self._inputs[name].dtype
            if dtype is DType.STRING:
                feeds[name] = _to_str(name, array)
            elif dtype is DType.BF16:
                feeds[name] = _to_bfloat16(name, array)
            else:
                feeds[name] = array
        if not any(self._outputs[name].dtype is DType.BF16 for name in wanted):
            values = session.run(wanted, feeds, self._quiet)
        else:
            ort_value = runtime().OrtValue
            tensors = {
                name: value if isinstance(value, ort_value) else ort_value.ortvalue_from_numpy(value)
                for name, value in feeds.items()
            }
            values = [
                _from_bfloat16(value) if self._outputs[name].dtype is DType.BF16 else value.numpy()
                for name, value in zip(wanted, session.run_with_ort_values(wanted, tensors, self._quiet), strict=True)
            ]
        return {
            name: _to_bytes(value) if self._outputs[name].dtype is DType.STRING else value
            for name, value in zip(wanted, values, strict=True)
        }


def core_run(session: Any) -> Any:
    """The `run` of the session's C++ core, if this version of onnxruntime has it.

    InferenceSession.run checks all inputs in Python before each run, which costs more than a tiny model. The check is
    not needed here: the instance compares the names, and the core checks the rest.
    """
    return getattr(getattr(session, "_sess", None), "run", session.run)


def _to_str(name: str, array: Array) -> Array:
    result = np.empty(array.shape, object)
    flat = result.reshape(-1)
    for i, word in enumerate(array.reshape(-1)):
        try:
            flat[i] = word if isinstance(word, str) else word.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"input {name!r}: strings of ONNX models are UTF-8, element {i} is not") from None
        except AttributeError:
            raise InvalidInput(f"input {name!r}: expected strings, element {i} is a {type(word).__name__}") from None
    return result


def _to_bytes(array: Any) -> Array:
    result = np.empty(array.shape, object)
    result.reshape(-1)[:] = [word.encode() for word in array.reshape(-1)]
    return result


def _to_bfloat16(name: str, array: Array) -> Any:
    if array.dtype != bfloat16():
        raise InvalidInput(f"input {name!r}: expected BF16, got {array.dtype}")
    return runtime().OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BFLOAT16)


def _from_bfloat16(value: Any) -> Array:
    """A copy of the tensor as an array. ONNX Runtime frees the tensor's own memory together with `value`."""
    result: Array = np.empty(value.shape(), bfloat16())
    if result.nbytes:
        ctypes.memmove(result.ctypes.data, value.data_ptr(), result.nbytes)
    return result


_SIZES = re.compile(
    r"broadcast|reshape|mismatch|must match|same shape|not equal|dimension.{0,60}(must|should|expected)"
    r"|(invalid|unexpected|incompatible) (dimension|shape|rank|size)|out of (data )?bounds"
    r"|(should|must) be .{0,60}(dimension|shape|rank|size)",
    re.IGNORECASE,
)


def translated(error: Exception, *, sizes_open: bool) -> BackendError:
    """The error to raise for an exception of a run whose inputs fit the signature. A node that fails is the model's
    failure, unless it complains of a size and the signature leaves sizes open (`sizes_open`)."""
    text = clean(error)
    kind = type(error).__name__
    if kind == "InvalidArgument" and not text.startswith("Non-zero status code returned while running"):
        return InvalidInput(text)  # ONNX Runtime's own check of the inputs, before the first node
    if kind == "NotImplemented":
        return BrokenContract(f"ONNX Runtime lacks what the model needs: {text}")
    if sizes_open and kind in ("InvalidArgument", "RuntimeException", "Fail") and _SIZES.search(text):
        return InvalidInput(f"the model refused its inputs: {text}")
    return BackendError(f"ONNX Runtime failed: {text}")


_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"(?:/\S+/)?\w+\.(?:cc|h|cpp|cu):\d+ ")


def clean(error: BaseException) -> str:
    """ONNX Runtime's message on one line, without its error code and without references to its source files."""
    text = _SOURCE.sub("", _CODE.sub("", str(error)))
    text = " ".join(text.split()).removesuffix("Please fix either the inputs/outputs or the model.").strip()
    return text or type(error).__name__
