"""Triton's config.pbtxt as settings of ours.

What cannot be honoured becomes a note for the operator; only what would make answers wrong, or is no config.pbtxt, is
an error.
The mapping comes from the pbtxt parser, with the keys of Triton's model_config.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferd.server.config.errors import ConfigError, Problem, shown
from inferd.server.config.model_schema import DeclaredSignature

_BACKENDS: Final = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "libtorch": "torch",
    "torch_aoti": "torch",
    "tensorflow": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
# Read here, or without effect on answers, or saying what is so anyway.
_HONOURED: Final = frozenset(
    {
        "backend",
        "default_model_filename",
        "dynamic_batching",
        "input",
        "instance_group",
        "max_batch_size",
        "model_transaction_policy",
        "name",
        "output",
        "parameters",
        "platform",
        "version_policy",
    }
)
_DEFAULT_FILES: Final = frozenset({"model.onnx", "model.pt", "model.pt2", "model.savedmodel", "saved_model.pb"})
_BATCHING: Final = frozenset(
    {
        "preferred_batch_size",
        "max_queue_delay_microseconds",
        "preserve_ordering",
        "priority_levels",
        "default_priority_level",
        "default_queue_policy",
    }
)
_TENSOR: Final = frozenset({"name", "data_type", "dims", "format", "reshape", "optional", "is_shape_tensor"})
_THREADS: Final = "intra_op_thread_count"


@dataclass(slots=True)
class Translation:
    """Values for a ModelConfig, as written, and notes on what is not honoured."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def translate(name: str, pbtxt: Mapping[str, Any], *, source: str = "config.pbtxt") -> Translation:
    """The settings in a config.pbtxt of the model called `name`. Raises ConfigError."""
    return _Translator(name, pbtxt, source).run()


class _Translator:
    def __init__(self, name: str, pbtxt: Mapping[str, Any], source: str) -> None:
        self._name = name
        self._pbtxt = pbtxt
        self._source = source
        self._values: dict[str, Any] = {}
        self._notes: list[str] = []

    def run(self) -> Translation:
        self._identity()
        batched = self._batching()
        self._signature(batched)
        self._instances()
        self._policy()
        self._parameters()
        for key in sorted(set(self._pbtxt) - _HONOURED):
            if self._pbtxt[key] not in (None, "", [], {}, (), False):
                self._note(f"{key} is not honoured")
        return Translation(self._values, tuple(self._notes))

    def _identity(self) -> None:
        given = self._pbtxt.get("name") or self._name
        if given != self._name:
            raise self._error("name", f"the name of the model's directory, {self._name!r}", given)
        kind = str(self._pbtxt.get("backend") or self._pbtxt.get("platform") or "")
        if kind:
            self._values["backend"] = _BACKENDS.get(kind, kind)
        filename = self._pbtxt.get("default_model_filename")
        if filename and filename not in _DEFAULT_FILES:
            self._note(f"default_model_filename {filename!r} is not honoured: files have their usual names")
        if self._mapping("model_transaction_policy").get("decoupled"):
            self._note("model_transaction_policy.decoupled is not honoured: one answer per request")

    def _batching(self) -> bool:
        """Gives whether the declared dims leave the batch axis out."""
        most = self._number(self._pbtxt, "max_batch_size", "max_batch_size")
        batching: dict[str, Any] = {}
        if most is not None and most > 0:
            batching = {"mode": "trusted", "max_batch_size": most}
            self._note(f"batching is trusted, not proven: max_batch_size is {most}")
        elif most is not None:
            batching = {"mode": "off"}
        dynamic = self._mapping("dynamic_batching")
        for key in sorted(set(dynamic) - _BATCHING):
            self._note(f"dynamic_batching.{key} is not honoured")
        preferred = [size for size in self._list(dynamic, "preferred_batch_size") if isinstance(size, int) and size > 0]
        if preferred and most:
            batching["preferred_batch_size"] = min(max(preferred), most)
        delay = self._number(dynamic, "max_queue_delay_microseconds", "dynamic_batching.max_queue_delay_microseconds")
        if delay:
            batching["max_queue_delay"] = f"{delay}us"
        priority = self._number(dynamic, "default_priority_level", "dynamic_batching.default_priority_level")
        if priority:
            self._values["default_priority"] = priority
        queue = dynamic.get("default_queue_policy")
        queue = queue if isinstance(queue, Mapping) else {}
        room = self._number(queue, "max_queue_size", "dynamic_batching.default_queue_policy.max_queue_size")
        if room:
            self._values["queue"] = {"requests": room}
        for key in sorted(set(queue) - {"max_queue_size"}):
            if queue[key] not in (0, False, "REJECT", None):
                self._note(
                    f"dynamic_batching.default_queue_policy.{key} is not honoured: requests carry their own limits"
                )
        if batching:
            self._values["batching"] = batching
        return bool(most and most > 0)

    def _signature(self, batched: bool) -> None:
        inputs = [self._tensor("input", item, batched) for item in self._list(self._pbtxt, "input")]
        outputs = [self._tensor("output", item, batched) for item in self._list(self._pbtxt, "output")]
        if inputs:
            name = DeclaredSignature.model_fields["name"].default
            self._values["signatures"] = [{"name": name, "inputs": inputs, "outputs": outputs}]
        elif outputs:
            self._note("output is not honoured without input")

    def _tensor(self, kind: str, item: Any, batched: bool) -> dict[str, Any]:
        if not isinstance(item, Mapping) or not item.get("name"):
            raise self._error(kind, "a tensor with a name", item)
        name = str(item["name"])
        dtype = str(item.get("data_type") or "")
        if not dtype.startswith("TYPE_") or dtype == "TYPE_INVALID":
            raise self._error(f"{kind} {name!r} data_type", "TYPE_BOOL, TYPE_INT8 ... TYPE_FP64 or TYPE_STRING", dtype)
        # Our own ModelConfig writes a tensor that has nothing but the batch axis without dims.
        dims = item.get("dims", [] if batched else None)
        reshape = item.get("reshape")
        if isinstance(reshape, Mapping):
            # The model itself has the reshaped form, and requests reach it as they are.
            dims = reshape.get("shape", [])
            self._note(f"{kind} {name!r}: reshape is not honoured: requests use the model's own shape")
        for key in sorted(set(item) - _TENSOR):
            if item[key] not in (None, "", False, [], {}):
                self._note(f"{kind} {name!r}: {key} is not honoured")
        shape = None
        if dims is not None:
            shape = [*([-1] if batched else []), *self._dims(kind, name, dims)]
        return {
            "name": name,
            "dtype": dtype.removeprefix("TYPE_"),
            "shape": shape,
            **({"optional": True} if item.get("optional") else {}),
        }

    def _dims(self, kind: str, name: str, dims: Any) -> Sequence[int]:
        dims = list(dims) if isinstance(dims, Sequence) else [dims]
        if not all(isinstance(dim, int) and not isinstance(dim, bool) and dim >= -1 for dim in dims):
            raise self._error(f"{kind} {name!r} dims", "sizes, or -1", dims)
        return [int(dim) for dim in dims]

    def _instances(self) -> None:
        groups = [group for group in self._list(self._pbtxt, "instance_group") if isinstance(group, Mapping)]
        if not groups:
            return
        devices: list[str] = []
        counts = []
        for group in groups:
            counts.append(self._number(group, "count", "instance_group.count") or 1)
            kind = str(group.get("kind") or "KIND_AUTO")
            gpus = self._list(group, "gpus")
            if kind == "KIND_CPU":
                devices.append("cpu")
            elif gpus:
                devices.extend(f"cuda:{gpu}" for gpu in gpus)
            else:
                devices.append("auto")
                if kind == "KIND_GPU":
                    self._note("instance_group KIND_GPU without gpus is read as device auto")
            for key in sorted(set(group) - {"name", "count", "kind", "gpus"}):
                if group[key] not in (None, "", False, [], {}):
                    self._note(f"instance_group.{key} is not honoured")
        if len(set(counts)) > 1:
            self._note(f"instance groups of different count are not honoured: {max(counts)} on each device")
        devices = list(dict.fromkeys(devices))
        device = devices[0] if len(devices) == 1 else devices
        self._values["instances"] = {"count": max(counts), "device": device}

    def _policy(self) -> None:
        policy = self._mapping("version_policy")
        if "specific" in policy:
            self._values["version_policy"] = {"specific": self._list(policy["specific"] or {}, "versions")}
        elif "all" in policy:
            self._values["version_policy"] = {"all": True}
        elif "latest" in policy:
            latest = policy["latest"] if isinstance(policy["latest"], Mapping) else {}
            newest = self._number(latest, "num_versions", "version_policy.latest.num_versions")
            self._values["version_policy"] = {"latest": newest or 1}

    def _parameters(self) -> None:
        for key, value in self._mapping("parameters").items():
            text = str(value.get("string_value", "")) if isinstance(value, Mapping) else str(value)
            if key == _THREADS and text.isascii() and text.isdigit() and int(text[:9]) > 0:
                self._values.setdefault("instances", {})["threads"] = int(text)
            elif not (key == _THREADS and text == "0"):
                self._note(f"parameters {key!r} is not honoured")

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self._pbtxt.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self._error(key, "a block { }", value)
        return value or {}

    def _list(self, values: Any, key: str) -> list[Any]:
        value = values.get(key) if isinstance(values, Mapping) else None
        if value is None:
            return []
        return list(value) if isinstance(value, list | tuple) else [value]

    def _number(self, values: Mapping[str, Any], key: str, shown_as: str) -> int | None:
        value = values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._error(shown_as, "a whole number, at least 0", value)
        return value

    def _note(self, text: str) -> None:
        note = f"{self._source}: {text}"
        if note not in self._notes:
            self._notes.append(note)

    def _error(self, key: str, expected: str, got: Any) -> ConfigError:
        return ConfigError([Problem(self._source, key, expected, shown(got))])
