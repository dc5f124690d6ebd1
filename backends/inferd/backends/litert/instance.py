"""Runs LiteRT models: an interpreter for each instance, named arrays in and out, messages for clients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inferd.backends.api import Array, BackendError, InvalidInput, LoadError, MissingFramework
from inferd.backends.checks import SignatureTable
from inferd.backends.litert.signatures import Entry
from inferd.backends.quiet import be_quiet

_LONGEST = 300
_SIZES = re.compile(
    r"num_input_elements|broadcast|reshape|dimension|dims|same shape|mismatch|out of (range|bounds)|!=|size", re.I
)
_WHERE = re.compile(r"\S+\.(?:cc|h):\d+ ")
_NOT_THERE = re.compile(r"unresolved|not supported|Didn't find op|missing", re.I)


def runtime() -> Any:
    """The module of LiteRT's interpreter, imported at the first call. Raises MissingFramework, LoadError."""
    be_quiet()
    try:
        from ai_edge_litert import interpreter
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "ai_edge_litert":
            raise MissingFramework("LiteRT (ai-edge-litert)", "litert") from None
        raise LoadError(f"LiteRT is installed but needs {error.name}, which is not") from None
    except ImportError as error:
        raise LoadError(f"LiteRT is installed but cannot be imported: {error}") from None
    return interpreter


class LiteRtInstance:
    """An interpreter. One thread at a time may use it: its tensors are its own memory."""

    def __init__(self, data: bytes, entries: Sequence[Entry], threads: int, *, xnnpack: bool, clears: bool) -> None:
        """
        data     the model; the interpreter reads weights from it as long as it lives
        threads  of the kernels
        clears   variables are cleared before each run

        Raises LoadError.
        """
        module = runtime()
        kinds = module.OpResolverType
        kernels = kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self._interpreter = module.Interpreter(
                model_content=data, num_threads=threads, experimental_op_resolver_type=kernels
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise LoadError(f"LiteRT {_version()} cannot load the model: {reason(error)}") from None
        try:
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            # The sizes in the file may be none that the model takes. An operator that is not there is never found.
            if _NOT_THERE.search(str(error)):
                raise LoadError(f"LiteRT {_version()} lacks what the model needs: {reason(error)}") from None
        self._checks = SignatureTable([entry.signature for entry in entries])
        self._clears = clears
        self._entries = {entry.signature.name: entry for entry in entries}
        named = [entry.signature.name for entry in entries if entry.named]
        try:
            self._runners = {name: self._interpreter.get_signature_runner(name) for name in named}
        except ValueError as error:
            raise LoadError(f"LiteRT {_version()} cannot load the model: {reason(error)}") from None

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        check = self._checks[signature]
        check.inputs(inputs)
        wanted = check.wanted(outputs)
        interpreter = self._interpreter
        if interpreter is None:
            raise BackendError("the instance is closed")
        try:
            if self._clears:
                interpreter.reset_all_variables()
            runner = self._runners.get(signature)
            found = self._call(self._entries[signature], inputs) if runner is None else runner(**inputs)
        except (ValueError, RuntimeError) as error:
            text = reason(error)
            if check.leaves_sizes_open(inputs) and _SIZES.search(text):
                raise InvalidInput(f"the model refused its inputs: {text}") from None
            raise BackendError(f"LiteRT failed: {text}") from None
        return {name: found[name] for name in wanted}

    def _call(self, entry: Entry, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """A run of a file without signatures."""
        interpreter: Any = self._interpreter
        for name, array in inputs.items():
            interpreter.resize_tensor_input(entry.inputs[name], array.shape)
        interpreter.allocate_tensors()
        for name, array in inputs.items():
            interpreter.set_tensor(entry.inputs[name], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in entry.outputs.items()}

    def close(self) -> None:
        self._runners = {}
        self._interpreter = None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ai-edge-litert")
    except PackageNotFoundError:
        return ""


def reason(error: BaseException) -> str:
    """LiteRT's message on one line, without its source files. It says some of it twice."""
    text = " ".join(_WHERE.sub("", str(error)).split()) or type(error).__name__
    half = len(text) // 2
    if len(text) % 2 == 0 and text[:half] == text[half:]:
        text = text[:half]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
