"""Translates Triton's config.pbtxt to inferd's settings.

A field that cannot be honoured becomes a note for the operator. Only a field that would make answers wrong, or a file
that is no config.pbtxt, is an error. The mapping comes from the pbtxt parser and has the keys of Triton's
model_config.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferd.server.config.errors import ConfigError, Problem, shown
from inferd.server.config.model_schema import MOST_QUEUED, DeclaredSignature
from inferd.server.config.triton_options import TritonOptions

_BACKENDS: Final = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "libtorch": "torch",
    "torch_aoti": "torch",
    "tensorflow": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tflite": "litert",
    "armnn_tflite": "litert",
}
# Fields without a note: they are translated, have no effect on answers, or describe what is always the case here.
_HONOURED: Final = frozenset(
    {
        "backend",
        "default_model_filename",
        "dynamic_batching",
        "ensemble_scheduling",
        "input",
        "instance_group",
        "max_batch_size",
        "model_transaction_policy",
        "model_warmup",
        "name",
        "optimization",
        "output",
        "parameters",
        "platform",
        "version_policy",
    }
)
DEFAULT_FILES: Final = frozenset(
    {"model.onnx", "model.pt", "model.pt2", "model.savedmodel", "saved_model.pb", "model.tflite"}
)
"""Names of artefacts that need no `default_model_filename`."""
_BATCHING: Final = frozenset(
    {
        "preferred_batch_size",
        "max_queue_delay_microseconds",
        "preserve_ordering",
        "priority_levels",
        "default_priority_level",
        "default_queue_policy",
        "priority_queue_policy",
    }
)
_QUEUE_POLICY: Final = frozenset(
    {"max_queue_size", "default_timeout_microseconds", "allow_timeout_override", "timeout_action"}
)
_TENSOR: Final = frozenset(
    {"name", "data_type", "dims", "format", "reshape", "optional", "is_shape_tensor", "label_filename"}
)
_ENSEMBLE: Final = "ensemble"


@dataclass(slots=True)
class Translation:
    """Values for a ModelConfig, as a file has them, and notes on fields that are not honoured."""

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
        self._notes: dict[str, None] = {}
        self._is_ensemble = pbtxt.get("platform") == _ENSEMBLE or bool(self._mapping("ensemble_scheduling"))

    def run(self) -> Translation:
        self._identity()
        batched = self._batching()
        self._signature(batched)
        self._instances()
        self._policy()
        self._warmup(batched)
        if self._is_ensemble:
            self._ensemble()
        options = TritonOptions(self._values.get("backend", ""), self._pbtxt, self._note)
        if options.threads:
            self._values.setdefault("instances", {})["threads"] = options.threads
        if options.values:
            self._values["options"] = options.values
        for key in sorted(set(self._pbtxt) - _HONOURED):
            if self._pbtxt[key] not in (None, "", [], {}, (), False):
                self._note(f"{key} is not honoured")
        return Translation(self._values, tuple(self._notes))

    def _identity(self) -> None:
        given = self._pbtxt.get("name") or self._name
        if given != self._name:
            raise self._error("name", f"the name of the model's directory, {self._name!r}", given)
        kind = str(self._pbtxt.get("backend") or self._pbtxt.get("platform") or "")
        if kind and not self._is_ensemble:
            self._values["backend"] = _BACKENDS.get(kind, kind)
        filename = self._pbtxt.get("default_model_filename")
        if filename and filename not in DEFAULT_FILES:
            if not kind:
                raise self._error(
                    "default_model_filename", "backend or platform beside it, to say what it is", filename
                )
            self._values["artefact"] = str(filename)
        if self._mapping("model_transaction_policy").get("decoupled"):
            self._note("model_transaction_policy.decoupled is not honoured: one answer per request")

    def _batching(self) -> bool:
        """Translates the settings of batching. Returns whether the declared dims leave the batch axis out."""
        most = self._number(self._pbtxt, "max_batch_size", "max_batch_size")
        batching: dict[str, Any] = {}
        # max_batch_size alone bounds a batch and says which axis is the batch; only dynamic_batching asks for batches.
        declared = self._pbtxt.get("dynamic_batching") is not None and most != 0
        if declared and not self._is_ensemble:
            batching["mode"] = "trusted"
            self._note("dynamic_batching declares that rows are independent: batched without proof")
        if most is not None and most > 0:
            batching["max_batch_size"] = most
            if self._is_ensemble:
                batching["mode"] = "trusted"  # it runs no batches itself: this is the bound of a request
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
        self._queue_policy(dynamic)
        if batching:
            self._values["batching"] = batching
        return bool(most and most > 0)

    def _queue_policy(self, dynamic: Mapping[str, Any]) -> None:
        where = "dynamic_batching.default_queue_policy"
        policy = dynamic.get("default_queue_policy")
        policy = policy if isinstance(policy, Mapping) else {}
        queue: dict[str, Any] = {}
        room = self._number(policy, "max_queue_size", f"{where}.max_queue_size")
        if room:
            queue["requests"] = min(room, MOST_QUEUED)
        timeout = self._number(policy, "default_timeout_microseconds", f"{where}.default_timeout_microseconds")
        if timeout:
            queue["timeout"] = f"{timeout}us"
            if not policy.get("allow_timeout_override"):
                self._note(f"{where}.allow_timeout_override is always on: a request may name its own timeout")
        if policy.get("timeout_action") == "DELAY":
            self._note(f"{where}.timeout_action DELAY is not honoured: a request that waited too long is refused")
        for key in sorted(set(policy) - _QUEUE_POLICY):
            self._note(f"{where}.{key} is not honoured")
        if dynamic.get("priority_queue_policy"):
            self._note(
                "dynamic_batching.priority_queue_policy is not honoured: all priorities share one queue's limits"
            )
        if queue:
            self._values["queue"] = queue

    def _ensemble(self) -> None:
        steps = []
        where = "ensemble_scheduling.step"
        for step in self._list(self._mapping("ensemble_scheduling"), "step"):
            if not isinstance(step, Mapping) or not step.get("model_name"):
                raise self._error(where, "a step with a model_name", step)
            for key in ("input_map", "output_map"):
                if not step.get(key):
                    raise self._error(f"{where} {step['model_name']!r} {key}", "at least one entry", step.get(key))
            version = step.get("model_version", -1)
            if step.get("model_namespace"):
                self._note(f"{where} {step['model_name']!r}: model_namespace is not honoured: names are unique here")
            steps.append(
                {
                    "model": step["model_name"],
                    **({"version": version} if version != -1 else {}),
                    "inputs": dict(step["input_map"]),
                    "outputs": dict(step["output_map"]),
                }
            )
        if not steps:
            raise self._error("ensemble_scheduling", "at least one step", self._pbtxt.get("ensemble_scheduling"))
        for kind in ("input", "output"):
            if not self._list(self._pbtxt, kind):
                raise self._error(kind, f"the {kind}s of the ensemble", None)
        self._values["ensemble"] = steps

    def _warmup(self, batched: bool) -> None:
        samples: list[dict[str, Any]] = []
        for sample in self._list(self._pbtxt, "model_warmup"):
            name = str(sample.get("name") or f"sample {len(samples) + 1}")
            where = f"model_warmup {name!r}"
            rows = self._number(sample, "batch_size", f"{where} batch_size")
            inputs = {}
            for key, given in (sample.get("inputs") or {}).items():
                dims = self._dims(f"{where} input", key, given.get("dims", []))
                if -1 in dims:
                    raise self._error(f"{where} input {key!r} dims", "sizes", list(dims))
                file = given.get("input_data_file")
                inputs[key] = {
                    "dtype": self._dtype(f"{where} input", key, given),
                    "shape": [*([rows or 1] if batched else []), *dims],
                    "fill": "random" if given.get("random_data") else "zero",
                    **({"file": file} if file else {}),
                }
            if not inputs:
                raise self._error(where, "inputs", sample.get("inputs"))
            runs = self._number(sample, "count", f"{where} count")
            samples.append({"name": name, "inputs": inputs, **({"runs": runs} if runs else {})})
        if samples:
            self._values["warmup"] = {"samples": samples}

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
        dtype = self._dtype(kind, name, item)
        # inferd's own ModelConfig messages omit dims if a tensor has only the batch axis.
        dims = item.get("dims", [] if batched else None)
        reshape = item.get("reshape")
        for key in sorted(set(item) - _TENSOR):
            if item[key] not in (None, "", False, [], {}):
                self._note(f"{kind} {name!r}: {key} is not honoured")
        shape = None
        axis = [-1] if batched else []
        if dims is not None:
            shape = [*axis, *self._dims(kind, name, dims)]
        model_shape = None
        if isinstance(reshape, Mapping):
            model_shape = [*axis, *self._dims(kind, f"{name} reshape", reshape.get("shape", []))]
        return {
            "name": name,
            "dtype": dtype,
            "shape": shape,
            **({} if model_shape is None else {"reshape": model_shape}),
            **({"labels": str(item["label_filename"])} if item.get("label_filename") else {}),
            **({"optional": True} if item.get("optional") else {}),
        }

    def _dtype(self, kind: str, name: str, item: Mapping[str, Any]) -> str:
        dtype = str(item.get("data_type") or "")
        if not dtype.startswith("TYPE_") or dtype == "TYPE_INVALID":
            raise self._error(f"{kind} {name!r} data_type", "TYPE_BOOL, TYPE_INT8 ... TYPE_FP64 or TYPE_STRING", dtype)
        return dtype.removeprefix("TYPE_")

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
        self._notes[note] = None

    def _error(self, key: str, expected: str, got: Any) -> ConfigError:
        return ConfigError([Problem(self._source, key, expected, shown(got))])
