"""Writes the schema out: docs/reference/config.yaml and settings.md, the JSON schema. A test checks that they are up to
date.

python -m inferd.server.config.render DIRECTORY      rewrites both files in a checkout
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from inferd.server.config.errors import dotted
from inferd.server.config.fields import Section
from inferd.server.config.keys import Key, all_keys, item_keys, section_at
from inferd.server.config.meanings import meanings
from inferd.server.config.schema import ModelConfig, ServerConfig

CONFIG_FILE: Final = "docs/reference/config.yaml"
DOCUMENT: Final = "docs/reference/settings.md"

_WIDTH: Final = 110
_HEAD: Final = """\
# Settings of inferd: every key with its default. What is left out has this default; nothing here is required.
#
# Times and sizes carry units: 250ms, 2s, 1m, 1h; 16KiB, 64MiB, 1GiB (also KB, MB, GB). null means "not set".
# The environment (INFERD_SERVER__STATE_DIR=/state) and flags (--set server.state_dir=/state) win over this file.
# docs/configuration.md says more. Written by `python -m inferd.server.config.render .` from the schema.
"""
_PAGE_HEAD: Final = """\
# Settings

**Task: look up a setting.** `inferd config show` prints the values in force:

```console
$ inferd config show --config config.yaml
```

[Configuration](../configuration.md) explains files, environment, flags, units and errors. [config.yaml](config.yaml) in
this folder shows every key with its default. This page is generated from the schema: do not edit it.

## config.yaml

The settings of the server. `queue`, `batching`, `instances`, `isolation` and `worker` are the defaults of all models.
`models` holds settings of single models, with the keys of model.yaml.
"""
_PAGE_MODELS: Final = """\
## model.yaml

The settings of one model, beside its versions, or under `models.<name>` in config.yaml.
"""
_EXAMPLE: Final = "digits"


def config_yaml() -> str:
    """The text of config.yaml."""
    lines = [_HEAD.rstrip(), *_keys(ServerConfig, 0)]
    lines.append("# models:")
    lines.append(f"#   {_EXAMPLE}:")
    lines.extend(f"# {line}" for line in _keys(ModelConfig, 2))
    return "\n".join(lines) + "\n"


def _keys(model: type[Section], depth: int) -> Iterator[str]:
    """The lines of all keys of a schema, indented `depth` times."""
    null: tuple[str, ...] = ("",)
    for key in all_keys(model):
        if len(key.path) == 1 and not depth:
            yield ""
        # The keys of a section that is null by default are written as comments.
        off = key.path[: len(null)] == null
        indent = "  " * (depth + len(key.path) - 1 - off)
        if key.optional:
            null = key.path
        for line in _entry(key, indent):
            yield f"{indent}#   {line.strip()}" if off else line


def key_table(model: type[Section], first: str = "") -> str:
    """The keys of a schema as a Markdown table; only those whose paths begin with `first`, if it is given."""
    rows = ["| Key | Default | Meaning |", "| --- | --- | --- |"]
    for key in all_keys(model):
        if first and key.path[0] != first:
            continue
        rows.append(_row(dotted(key.path), key))
        rows.extend(_row(name, inner) for name, inner in item_keys(key, dotted(key.path)))
    return "\n".join(rows) + "\n"


def settings_page() -> str:
    """The text of the page with every key: config.yaml by its sections, then model.yaml."""
    parts = [_PAGE_HEAD.rstrip()]
    for first in dict.fromkeys(key.path[0] for key in all_keys(ServerConfig)):
        parts.append(f"### {first}\n\n{key_table(ServerConfig, first).rstrip()}")
    parts.append(_PAGE_MODELS.rstrip())
    parts.append(key_table(ModelConfig).rstrip())
    return "\n\n".join(parts) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of config.yaml; `$defs.ModelConfig` is the schema of model.yaml."""
    schema = ServerConfig.model_json_schema(mode="validation")
    model = ModelConfig.model_json_schema(mode="validation")
    definitions = {**schema.get("$defs", {}), **model.pop("$defs", {})}
    schema["$defs"] = {**definitions, "ModelConfig": model}
    described = {"ServerConfig": schema, **schema["$defs"]}
    for section in Section.__subclasses__():
        properties = described.get(section.__name__, {}).get("properties", {})
        for name in properties.keys() & (found := meanings(section)):
            properties[name] = dict(sorted({**properties[name], "description": found[name]}.items()))
    for root, top in ((ServerConfig, schema), (ModelConfig, model)):
        for key in all_keys(root):
            holder = section_at(key.path[:-1], root)
            inner = top if holder in (root, None) else definitions[holder.__name__]
            if key.default is not ... and "default" in inner["properties"][key.path[-1]]:
                inner["properties"][key.path[-1]]["default"] = key.written
    schema["properties"]["models"]["additionalProperties"] = {"$ref": "#/$defs/ModelConfig"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def meaning_of(key: Key) -> str:
    """A key's documentation on one line: the headline of its section, if it is one, and the text under the key."""
    headline = (key.section.__doc__ or "").strip().split("\n\n")[0] if key.section is not None else ""
    return " ".join(f"{headline} {meanings(key.holder).get(key.path[-1], '')}".split())


def shown_default(key: Key) -> str:
    """A key's default as YAML on one line; "" if it has none."""
    if key.default is ...:
        return ""
    return yaml.safe_dump(key.written, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _entry(key: Key, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        meaning_of(key), _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )
    for name, inner in item_keys(key, key.path[-1]):
        first, further = f"{indent}#   {name}: ", f"{indent}#     "
        yield from textwrap.wrap(meaning_of(inner), _WIDTH, initial_indent=first, subsequent_indent=further)
    name = key.path[-1]
    if key.section is None:
        yield f"{indent}{name}: {shown_default(key)}"
    elif not key.optional:
        yield f"{indent}{name}:"
    else:
        yield f"{indent}{name}: null"


def _row(name: str, key: Key) -> str:
    default = "" if key.section is not None and not key.optional else shown_default(key)
    shown = f"`{default}`" if default else ("" if key.section is not None else "required")
    return f"| `{name}` | {shown} | {meaning_of(key).replace('|', chr(92) + '|')} |"


def main(arguments: list[str]) -> int:
    """Rewrites the full config.yaml and the page of settings in a checkout."""
    root = Path(arguments[0] if arguments else ".")
    (root / CONFIG_FILE).write_text(config_yaml(), encoding="utf-8")
    (root / DOCUMENT).write_text(settings_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
