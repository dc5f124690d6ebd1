"""Translates Triton's `parameters` and `optimization` of a model to options of inferd's backends.

Triton writes every parameter as text. A parameter without a counterpart becomes a note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_LARGEST: Final = 10**6

# Triton's level of graph optimization → the ONNX backend's option.
_ONNX_LEVELS: Final = {-1: "basic", 0: "all", 1: "extended", 2: "disabled"}
_THREADS: Final = frozenset(
    {"intra_op_thread_count", "INTRA_OP_THREAD_COUNT", "TF_NUM_INTRA_THREADS", "num_intra_op_threads"}
)


class TritonOptions:
    """The translated options. `note` is called with a text for each field that is not honoured.

    values    options of the backend
    threads   CPU threads of each instance; None if not given
    """

    def __init__(self, backend: str, pbtxt: Mapping[str, Any], note: Callable[[str], None]) -> None:
        self.values: dict[str, Any] = {}
        self.threads: int | None = None
        self._backend = backend
        self._note = note
        for key, given in (pbtxt.get("parameters") or {}).items():
            text = str(given.get("string_value", "")) if isinstance(given, Mapping) else str(given)
            if not self._parameter(key, text):
                note(f"parameters {key!r} is not honoured")
        self._optimization(pbtxt.get("optimization") or {})

    def _parameter(self, key: str, text: str) -> bool:
        number = _number(text)
        if key in _THREADS and number is not None:
            self.threads = number or None
            return True
        read = {"onnx": self._onnx, "torch": self._torch, "tensorflow": self._tensorflow}.get(self._backend)
        return read(key, text, number) if read is not None else False

    def _onnx(self, key: str, text: str, number: int | None) -> bool:
        if key == "inter_op_thread_count" and number is not None:
            if number:
                self.values["inter_op_threads"] = number
        elif key == "execution_mode" and number in (0, 1):
            self.values["execution_mode"] = "parallel" if number else "sequential"
        elif key == "enable_mem_arena" and number in (0, 1):
            self.values["enable_cpu_mem_arena"] = bool(number)
        elif key == "enable_mem_pattern" and number in (0, 1):
            self.values["enable_mem_pattern"] = bool(number)
        elif key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning") or key.startswith(
            "session."
        ):
            self.values.setdefault("session_config", {})[key] = text
        elif key in ("gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search"):
            self.values.setdefault("provider_options", {})[key] = text
        else:
            return False
        return True

    def _torch(self, key: str, text: str, number: int | None) -> bool:
        # One value of each parameter describes what is always the case here; the other value cannot be honoured.
        if key in ("INFERENCE_MODE", "ENABLE_TENSOR_FUSER", "ENABLE_WEIGHT_SHARING"):
            return text.lower() == ("true" if key == "INFERENCE_MODE" else "false")
        if key in ("DISABLE_OPTIMIZED_EXECUTION", "ENABLE_CACHE_CLEANING", "ENABLE_NVFUSER"):
            return text.lower() == "false"
        return key == "INTER_OP_THREAD_COUNT" and number in (0, 1)

    def _tensorflow(self, key: str, text: str, number: int | None) -> bool:
        if key == "TF_GRAPH_TAG" and text:
            self.values["tags"] = [text]
            return True
        return key == "TF_NUM_INTER_THREADS" and number == 0

    def _optimization(self, given: Mapping[str, Any]) -> None:
        for key, value in given.items():
            if key == "graph" and self._backend == "onnx" and value.get("level", 0) in _ONNX_LEVELS:
                if value.get("level"):
                    self.values["graph_optimization"] = _ONNX_LEVELS[value["level"]]
            elif key == "execution_accelerators":
                names = [str(accelerator.get("name", "")) for group in value.values() for accelerator in group]
                others = [name for name in names if name != "cuda"]
                if others:
                    self._note(f"optimization.execution_accelerators is not honoured: {', '.join(others)}")
            elif value not in (None, "", [], {}, (), False):
                self._note(f"optimization.{key} is not honoured")


def _number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    return number if number is None or number <= _LARGEST else None
