"""The settings of the ONNX Runtime backend: `options:` of a model, checked and turned into session options.

intra_op_threads      threads within one operator; default: the model's share of the CPU budget
inter_op_threads      threads that run different operators, for execution_mode parallel; default 1
execution_mode        sequential | parallel
graph_optimization    disabled | basic | extended | layout | all
enable_mem_pattern    plan the memory of a run ahead, once for each set of shapes; default: only if every input shape is
                      fixed, because the plan of every set of shapes is kept
enable_cpu_mem_arena  keep freed memory for the next run; default true
allow_spinning        idle threads of ONNX Runtime spin instead of sleeping: a little faster on a processor of its own,
                      costly on a shared one; default false
log_severity          0 (all) to 4 (fatal only); default 4, because errors reach the caller and the server's log anyway
session_config        mapping of ONNX Runtime's own session configuration entries
provider_options      mapping of options of the CUDA provider (gpu_mem_limit, cudnn_conv_algo_search, ...)
cuda_graph            CUDA only, for models whose kernels all run on the device: the run of a set of shapes is captured
                      as a CUDA graph and replayed; at most 16 sets of shapes have one; default false
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from inferd.backends.api import LoadError

EXECUTION_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
GRAPH_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """Checked settings, described at the top of this module. None: the backend decides."""

    intra_op_threads: int | None = None
    inter_op_threads: int = 1
    execution_mode: str = "sequential"
    graph_optimization: str = "all"
    enable_mem_pattern: bool | None = None
    enable_cpu_mem_arena: bool = True
    allow_spinning: bool = False
    log_severity: int = 4
    session_config: Mapping[str, str] = field(default_factory=dict)
    provider_options: Mapping[str, str] = field(default_factory=dict)
    cuda_graph: bool = False

    @property
    def flushes_denormals(self) -> bool:
        """Whether denormal numbers are to count as zero."""
        return self.session_config.get("session.set_denormal_as_zero", "0") != "0"

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> OnnxOptions:
        """Checks a model's `options:`. Raises LoadError; the message names the key, what was expected and what was
        given."""
        known = [f.name for f in fields(cls)]
        unknown = [str(key) for key in options if key not in known]
        if unknown:
            raise LoadError(f"unknown option {unknown[0]!r} of the onnx backend; known are: {', '.join(known)}")
        read = cls(**{key: _READERS[key](key, value) for key, value in options.items()})
        if "enable_cuda_graph" in read.provider_options:
            raise LoadError(
                "option 'provider_options' of the onnx backend: set cuda_graph instead of enable_cuda_graph"
            )
        return read

    def session_options(self, runtime: Any, *, threads: int, fixed_shapes: bool) -> Any:
        """The onnxruntime.SessionOptions for an instance with `threads` CPU threads. `runtime` is the module
        onnxruntime. Raises LoadError if this version lacks the chosen graph optimization."""
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.intra_op_threads or threads
        options.inter_op_num_threads = self.inter_op_threads
        options.execution_mode = getattr(runtime.ExecutionMode, EXECUTION_MODES[self.execution_mode])
        level = getattr(runtime.GraphOptimizationLevel, GRAPH_LEVELS[self.graph_optimization], None)
        if level is None:
            raise LoadError(f"onnxruntime {runtime.__version__} has no graph_optimization {self.graph_optimization!r}")
        options.graph_optimization_level = level
        options.enable_mem_pattern = fixed_shapes if self.enable_mem_pattern is None else self.enable_mem_pattern
        options.enable_cpu_mem_arena = self.enable_cpu_mem_arena
        options.log_severity_level = self.log_severity
        spinning = "1" if self.allow_spinning else "0"
        entries = {"session.intra_op.allow_spinning": spinning, "session.inter_op.allow_spinning": spinning}
        for key, value in (entries | dict(self.session_config)).items():
            options.add_session_config_entry(key, value)
        return options


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise LoadError(
                f"option {key!r} of the onnx backend: expected a number from {low} to {high}, got {value!r}"
            )
        return value

    return read


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise LoadError(f"option {key!r} of the onnx backend: expected true or false, got {value!r}")
    return value


def _choice(choices: Mapping[str, str]) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise LoadError(f"option {key!r} of the onnx backend: expected one of {', '.join(choices)}, got {value!r}")
        return value

    return read


def _texts(key: str, value: Any) -> dict[str, str]:
    """Checks a mapping and writes its values as text, as ONNX Runtime takes them: "1" for true, digits for numbers."""
    if not isinstance(value, Mapping) or any(isinstance(v, (Mapping, list, tuple)) for v in value.values()):
        raise LoadError(f"option {key!r} of the onnx backend: expected a mapping of names to values, got {value!r}")
    return {str(k): str(int(v)) if isinstance(v, bool) else str(v) for k, v in value.items()}


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "intra_op_threads": _whole(1, 1024),
    "inter_op_threads": _whole(1, 1024),
    "execution_mode": _choice(EXECUTION_MODES),
    "graph_optimization": _choice(GRAPH_LEVELS),
    "enable_mem_pattern": _flag,
    "enable_cpu_mem_arena": _flag,
    "allow_spinning": _flag,
    "log_severity": _whole(0, 4),
    "session_config": _texts,
    "provider_options": _texts,
    "cuda_graph": _flag,
}
