"""TensorFlow Serving's ModelServerConfig: the models to serve, their base paths, version policies and labels.

    model_config_list {
      config { name: "m" base_path: "/models/m" model_platform: "tensorflow"
               model_version_policy { specific { versions: 1 versions: 2 } }
               version_labels { key: "stable" value: 1 } }
    }

This module reads the file. The same message in a request is read by `protocols.tfs`, into the same entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from inferd.server.compat.text_format import TextFormatError, TextMessage, Value, parse
from inferd.server.config.errors import ConfigError, Problem, shown
from inferd.server.config.layers import Layer, validated
from inferd.server.config.model_schema import PARTIAL, ModelConfig

T = TypeVar("T", int, str)

_MOST_BYTES: Final = 4 * 2**20
_BACKENDS: Final = {
    "tensorflow": "tensorflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "torch": "torch",
    "pytorch": "torch",
}
_MODEL: Final = ("name", "base_path", "model_platform", "model_type", "model_version_policy", "version_labels")
_LATEST, _ALL, _SPECIFIC = "latest", "all", "specific"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model. `policy`: a value for version_policy, empty for the newest version."""

    name: str
    base_path: str
    platform: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """The entry as keys of model.yaml. version_policy is always given: without a policy, the newest version."""
        settings: dict[str, Any] = {"version_policy": dict(self.policy) or {"latest": 1}, "labels": dict(self.labels)}
        if self.platform:
            settings["backend"] = _BACKENDS[self.platform]
        return settings


@dataclass(frozen=True, slots=True)
class ModelsFile:
    """The models of a file, in its order, and notes on fields that are not honoured."""

    entries: tuple[ModelEntry, ...] = ()
    notes: tuple[str, ...] = ()


def checked(entries: Iterable[ModelEntry], source: str) -> tuple[ModelEntry, ...]:
    """Checks the entries and removes `file://` from their paths. Raises ConfigError with all problems. `source` is
    named in the messages."""
    good: list[ModelEntry] = []
    names: set[str] = set()
    problems: list[Problem] = []
    for given in entries:
        entry = replace(given, base_path=given.base_path.removeprefix("file://"))
        where = f"model {entry.name}" if entry.name else "model_config_list.config"
        if not entry.name:
            problems.append(Problem(source, f"{where}.name", "a name", "none"))
        elif entry.name in names:
            problems.append(Problem(source, f"{where}.name", "every model once", "it twice"))
        if not entry.base_path or "://" in entry.base_path:
            expected = "a directory on this machine (or mounted here)"
            problems.append(Problem(source, f"{where}.base_path", expected, shown(entry.base_path)))
        if entry.platform not in ("", *_BACKENDS):
            expected = "tensorflow (or onnx, pytorch)"
            problems.append(Problem(source, f"{where}.model_platform", expected, shown(entry.platform)))
            continue
        try:
            validated(ModelConfig, [Layer(entry.settings(), source)], root=ModelConfig, context={PARTIAL: True})
        except ConfigError as error:
            problems += [Problem(source, f"{where}.{p.key}", p.expected, p.got, p.nearest) for p in error.problems]
        names.add(entry.name)
        good.append(entry)
    if problems:
        raise ConfigError(problems)
    return tuple(good)


def read_models_file(file: Path) -> ModelsFile:
    """Reads a ModelServerConfig in the text format. Raises ConfigError, which names file, key, expected and got."""
    return parse_models(read_text(file), str(file))


def parse_models(text: str, source: str) -> ModelsFile:
    """As `read_models_file`, from the text of the file `source`."""
    try:
        entries, notes = _entries(parse(text))
    except TextFormatError as error:
        raise ConfigError([Problem(source, "", f"a ModelServerConfig in protobuf's text format ({error})")]) from None
    return ModelsFile(checked(entries, source), tuple(notes))


def read_text(file: Path) -> str:
    """The text of a small settings file. Raises ConfigError."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError([Problem(str(file), "", f"at most {_MOST_BYTES} bytes", "more")])
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(file), "", "a readable file", error.strerror or str(error))]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(file), "", "UTF-8 text", "other bytes")]) from None


def _entries(fields: TextMessage) -> tuple[list[ModelEntry], list[str]]:
    entries: list[ModelEntry] = []
    notes: list[str] = []
    for key, value in fields:
        if key != "model_config_list":
            raise TextFormatError(f"expected model_config_list, got {key}")
        for inner, config in _message(value, key):
            if inner != "config":
                raise TextFormatError(f"{key}: expected config, got {inner}")
            entries.extend(_entry(_message(item, "config"), notes) for item in _items(config))
    return entries, notes


def _entry(fields: TextMessage, notes: list[str]) -> ModelEntry:
    texts = {"name": "", "base_path": "", "model_platform": ""}
    policy: dict[str, Any] = {}
    labels: dict[str, int] = {}
    unknown = []
    for key, value in fields:
        if key in texts:
            texts[key] = _typed(value, str, key)
        elif key == "model_version_policy":
            policy = _policy(_message(value, key))
        elif key == "version_labels":
            for item in _items(value):
                pair = dict(_message(item, key))
                labels[_typed(pair.get("key", ""), str, f"{key}.key")] = _typed(
                    pair.get("value", 0), int, f"{key}.value"
                )
        elif key not in _MODEL:
            unknown.append(key)
    notes += [f"model {texts['name']}: {key} is not honoured" for key in dict.fromkeys(unknown)]
    return ModelEntry(texts["name"], texts["base_path"], texts["model_platform"], policy, labels)


def _policy(fields: TextMessage) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    for key, value in fields:
        inner = _message(value, f"model_version_policy.{key}")
        if key == _LATEST:
            numbers = [_typed(item, int, "num_versions") for name, item in inner if name == "num_versions"]
            policy = latest(numbers[-1] if numbers else 0)
        elif key == _ALL:
            policy = {_ALL: True}
        elif key == _SPECIFIC:
            versions = [
                _typed(item, int, "versions") for name, each in inner if name == "versions" for item in _items(each)
            ]
            policy = {_SPECIFIC: versions}
        else:
            raise TextFormatError(f"model_version_policy: expected latest, all or specific, got {key}")
    return policy


def latest(count: int) -> dict[str, Any]:
    """The policy that serves the newest `count` versions. 0 means 1, as in TensorFlow Serving."""
    return {_LATEST: count or 1}


def _items(value: Value) -> list[Value]:
    return value if isinstance(value, list) and not isinstance(value, TextMessage) else [value]


def _message(value: Value, where: str) -> TextMessage:
    if isinstance(value, TextMessage):
        return value
    raise TextFormatError(f"{where}: expected {{ ... }}, got {shown(value)}")


def _typed(value: Value, kind: type[T], where: str) -> T:
    if isinstance(value, kind):
        return value
    raise TextFormatError(
        f"{where}: expected {'text in quotes' if kind is str else 'a whole number'}, got {shown(value)}"
    )
