"""Errors of a config.pbtxt in its own words: the names of its fields, and the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from inferd.server.config.errors import ConfigError, Problem

# inferd's key → the field of config.pbtxt from which `triton.translate` makes it.
_FIELDS: Final = (
    (r"instances\.count", "instance_group.count"),
    (r"instances\.device.*", "instance_group.gpus"),
    (r"instances\.threads", "parameters"),
    (r"batching\.max_batch_size", "max_batch_size"),
    (r"batching\.preferred_batch_size", "dynamic_batching.preferred_batch_size"),
    (r"batching\.max_queue_delay", "dynamic_batching.max_queue_delay_microseconds"),
    (r"batching", "dynamic_batching"),
    (r"default_priority", "dynamic_batching.default_priority_level"),
    (r"queue\.requests", "dynamic_batching.default_queue_policy.max_queue_size"),
    (r"queue\.timeout", "dynamic_batching.default_queue_policy.default_timeout_microseconds"),
    (r"queue", "dynamic_batching.default_queue_policy"),
    (r"version_policy\.latest", "version_policy.latest.num_versions"),
    (r"version_policy\.specific(.*)", r"version_policy.specific.versions\1"),
    (r"artefact", "default_model_filename"),
    (r"options(.*)", "parameters"),
    (r"signatures\[0\]\.(input|output)s", r"\1"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]", r"\1[\2]"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]\.dtype", r"\1[\2].data_type"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]\.shape(.*)", r"\1[\2].dims"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]\.reshape(.*)", r"\1[\2].reshape.shape"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]\.labels", r"\1[\2].label_filename"),
    (r"signatures\[0\]\.(input|output)s\[(\d+)\]\.(\w+)", r"\1[\2].\3"),
    (r"signatures(\[0\])?", "input"),
    (r"ensemble\[(\d+)\]\.model", r"ensemble_scheduling.step[\1].model_name"),
    (r"ensemble\[(\d+)\]\.version", r"ensemble_scheduling.step[\1].model_version"),
    (r"ensemble\[(\d+)\]\.(input|output)s(.*)", r"ensemble_scheduling.step[\1].\2_map"),
    (r"ensemble(\[\d+\])?", r"ensemble_scheduling.step\1"),
    (r"warmup\.samples\[(\d+)\]\.runs", r"model_warmup[\1].count"),
    (r"warmup\.samples(\[\d+\])?(.*)", r"model_warmup\1\2"),
)
_LAST_PART: Final = re.compile(r"(?:\[[^\]]*\]|\.?[^.\[\]]+|.)\Z", re.DOTALL)
# How `triton.translate` names an item of a list: by its name instead of its number.
_NAMED: Final = re.compile(r"(input|output|model_warmup|ensemble_scheduling\.step) '([^']*)'(?: (\w+))?.*")


def in_triton_words(error: ConfigError, source: str, pbtxt: Mapping[str, Any]) -> ConfigError:
    """The error, with those problems that come from the file `source` in its own words. `pbtxt`: the mapping of the
    file; with an attribute `lines`, see compat.pbtxt.TritonFields, the problems name the line."""
    return ConfigError(_reworded(problem, pbtxt) if problem.source == source else problem for problem in error.problems)


def _reworded(problem: Problem, pbtxt: Mapping[str, Any]) -> Problem:
    key = problem.key
    for pattern, field in _FIELDS:
        found = re.fullmatch(pattern, key)
        if found is not None:
            key = found.expand(field)
            break
    lines: Mapping[str, int] = getattr(pbtxt, "lines", {})
    line = next((lines[path] for path in _paths(key, pbtxt) if path in lines), 0)
    return replace(problem, key=key, line=line)


def _paths(key: str, pbtxt: Mapping[str, Any]) -> Iterator[str]:
    """The paths at which the field may be, the most precise one first."""
    named = _NAMED.fullmatch(key)
    if named is not None:
        kind, name, inner = named.groups()
        items: Any = pbtxt
        for part in kind.split("."):
            items = items.get(part) if isinstance(items, Mapping) else None
        for number, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, Mapping) and name in (item.get("name"), item.get("model_name")):
                yield from (f"{kind}[{number}].{inner}", f"{kind}[{number}]")
        key = kind
    while key:
        yield key
        key = _LAST_PART.sub("", key)
