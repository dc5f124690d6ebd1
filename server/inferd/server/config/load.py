"""Reads the settings from all their sources.

    load_config     flags > environment > config.yaml > defaults                       -> ServerConfig
    model_config    models.<name> of the above > model.yaml > config.pbtxt > defaults   -> ModelConfig

The server's own `queue`, `batching`, `instances`, `isolation` and `worker` are the defaults of every model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from inferd.server.config import triton
from inferd.server.config.document import parse_value, read_document
from inferd.server.config.errors import ConfigError, Problem, dotted, shown
from inferd.server.config.keys import KeyPath, all_keys, annotations_at, is_mapping, takes_text
from inferd.server.config.layers import Layer, assign, validated
from inferd.server.config.model_schema import PARTIAL
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.config.triton_words import in_triton_words

T = TypeVar("T")

SERVER_ONLY: Final = (("trusted_steps",), ("worker", "python"))
"""Keys of a model that its own files may not set, because they give rights away, or name programs."""

PREFIX: Final = "INFERD_"
_FLAG_NAMES: Final = {"repository.roots": "--model-repository", "server.listen": "--listen", "server.http": "--http"}
_PART: Final = re.compile(r'"([^"]*)"|([^\s."=\[\]]+)')
_PER_MODEL: Final = ("queue", "batching", "instances", "isolation", "worker")


def load_config(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ServerConfig:
    """The settings of the server. Raises ConfigError with every problem that was found.

    environ    the process's environment; variables INFERD_SECTION__KEY are read
    sets       KEY=VALUE texts of `--set`
    flags      values of other flags by dotted key ({"repository.roots": ["models"]}); they override everything else
    defaults   values by dotted key, which everything else overrides

    Entries of `models` are validated here, so that a misspelt key is found at the start and not at the first load.
    """
    problems: list[Problem] = []
    layers: list[Layer | None] = [_flag_layer(defaults or {})]
    if file is not None:
        layers.append(_collect(problems, partial(_file_layer, file)))
    layers.append(_collect(problems, partial(_environment_layer, environ or {})))
    layers.append(_collect(problems, partial(_set_layer, sets)))
    layers.append(_flag_layer(flags or {}))
    good = [layer for layer in layers if layer is not None]
    config = _collect(problems, partial(validated, ServerConfig, good))
    names = {name: None for layer in good for name in layer.below(("models",)).values}
    for name in names:
        above = ("models", name)
        parts = [layer.below(above) for layer in good]
        _collect(problems, partial(validated, ModelConfig, parts, above=above, context={PARTIAL: True}))
    if problems or config is None:
        raise ConfigError(problems)
    return config


def model_config(
    server: ServerConfig,
    name: str,
    model_yaml: Mapping[str, Any] | None = None,
    pbtxt: Mapping[str, Any] | None = None,
    *,
    model_yaml_source: str = "model.yaml",
    pbtxt_source: str = "config.pbtxt",
) -> tuple[ModelConfig, tuple[str, ...]]:
    """The settings of one model, and notes about the parts of config.pbtxt that are not honoured. Raises ConfigError.
    If `model_yaml` is a `Document`, errors name the line."""
    for path in SERVER_ONLY:
        if _holds(model_yaml or {}, path):
            expected = f"this key in the server's own configuration only, as models.{dotted((name, *path))}"
            raise ConfigError([Problem(model_yaml_source, dotted(path), expected, "it in the model's directory")])
    given = pbtxt or {}
    try:
        return _model_config(server, name, model_yaml or {}, given, model_yaml_source, pbtxt_source)
    except ConfigError as error:
        raise in_triton_words(error, pbtxt_source, given) from None


def _holds(values: Mapping[str, Any], path: KeyPath) -> bool:
    inner = values.get(path[0])
    return path[0] in values and (len(path) == 1 or (isinstance(inner, Mapping) and _holds(inner, path[1:])))


def _model_config(
    server: ServerConfig,
    name: str,
    model_yaml: Mapping[str, Any],
    pbtxt: Mapping[str, Any],
    model_yaml_source: str,
    pbtxt_source: str,
) -> tuple[ModelConfig, tuple[str, ...]]:
    defaults = server.model_dump(mode="json", include=set(_PER_MODEL))
    translation = triton.translate(name, pbtxt, source=pbtxt_source)
    own = [
        Layer(translation.values, pbtxt_source),
        Layer(model_yaml, model_yaml_source),
        Layer(server.models.get(name, {}), f"models.{dotted((name,))} of the server's settings"),
    ]
    if not any(layer.holds(("batching", "preferred_batch_size")) == 2 for layer in own):
        # The server's default for all models must not exceed the max_batch_size of this one.
        _limit_preferred(defaults["batching"], own)
    config = validated(ModelConfig, [Layer(defaults, "the server's settings"), *own], root=ModelConfig)
    batch_first = own[0].holds(("batching", "max_batch_size")) == 2
    return config.with_batch_first() if batch_first else config, translation.notes


def _limit_preferred(batching: dict[str, Any], own: Sequence[Layer]) -> None:
    preferred = batching["preferred_batch_size"]
    for layer in own:
        inner = layer.values.get("batching")
        most = inner.get("max_batch_size") if isinstance(inner, Mapping) else None
        if isinstance(most, int) and preferred is not None and most < preferred:
            batching["preferred_batch_size"] = max(most, 1)


def _file_layer(file: Path) -> Layer:
    return Layer(read_document(file), str(file))


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for variable, path, text in _variables(environ, problems):
        source = f"environment variable {variable}"
        try:
            assign(values, path, _read_text(path, text))
        except ValueError as error:
            problems.append(Problem(source, dotted(path), str(error), shown(text, path)))
        names[path] = source
    if problems:
        raise ConfigError(problems)
    return Layer(values, "environment", names)


def _variables(environ: Mapping[str, str], problems: list[Problem]) -> Iterator[tuple[str, KeyPath, str]]:
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        parts = variable.removeprefix(PREFIX).split("__")
        path = tuple(part.lower() for part in parts)
        if path[0] == "models" and len(parts) > 1:
            # A model's name keeps its case; the keys after it are in lower case.
            path = ("models", parts[1], *path[2:])
            if len(path) > 3 and path[2] in ("options", "labels"):
                path = (*path[:3], *parts[3:])
        elif path[:2] == ("repository", "models"):
            path = (*path[:2], *parts[2:])
        if len(path) == 1 and path[0] not in ServerConfig.model_fields:
            # For a service called inferd, Kubernetes sets INFERD_PORT and others. They are no settings and no errors.
            keys = (key.path for key in all_keys(ServerConfig))
            meant = next(("__".join(key).upper() for key in keys if "_".join(key) == path[0]), None)
            if meant is not None:
                source = f"environment variable {variable}"
                expected = "two underscores between section and key"
                problems.append(Problem(source, "", expected, "one", PREFIX + meant))
            continue
        if "" in path:
            source = f"environment variable {variable}"
            problems.append(Problem(source, "", "section and key with two underscores between them", "an empty key"))
            continue
        yield variable, path, environ[variable]


def _set_layer(sets: Sequence[str]) -> Layer:
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    problems = []
    for item in sets:
        try:
            path, text = _split(item)
        except ValueError as error:
            problems.append(Problem("--set", "", str(error)))
            continue
        try:
            assign(values, path, _read_text(path, text))
        except ValueError as error:
            problems.append(Problem("--set", dotted(path), str(error), shown(text, path)))
        names[path] = f"--set {dotted(path)}"
    if problems:
        raise ConfigError(problems)
    return Layer(values, "--set", names)


def _split(item: str) -> tuple[KeyPath, str]:
    """The path and the text of KEY=VALUE. Raises ValueError, which shows the key but not the value: it may be a
    secret."""
    wanted = 'KEY=VALUE with a dotted key, such as log.level=debug or models."a.b".stateful=true'
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(item, position)
        if match is None:
            break
        parts.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        if item[position : position + 1] == "=":
            return tuple(parts), item[position + 1 :]
        if item[position : position + 1] != ".":
            break
        position += 1
    key, equals, _ = item.partition("=")
    raise ValueError(f"{wanted}, got {shown(key)}" + ("" if equals else " without ="))


def _read_text(path: KeyPath, text: str) -> Any:
    """The value of a text at a path: the text itself if the key takes text, else the YAML value. Raises ValueError."""
    try:
        value = parse_value(text)
    except ValueError:
        if takes_text(path):
            return text
        raise
    if not takes_text(path) or value is None or isinstance(value, list):
        return value
    # YAML reads "unix:" as a mapping. If the key takes no mapping, it is text.
    return value if isinstance(value, dict) and any(map(is_mapping, annotations_at(path))) else text


def _flag_layer(flags: Mapping[str, Any]) -> Layer:
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    for key, value in flags.items():
        path = tuple(key.split("."))
        assign(values, path, list(value) if isinstance(value, tuple) else value)
        names[path] = _FLAG_NAMES.get(key, "command line")
    return Layer(values, "command line", names)


def _collect(problems: list[Problem], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except ConfigError as error:
        problems.extend(error.problems)
        return None
