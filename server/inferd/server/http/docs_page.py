"""The page at /docs: every path with its parameters and bodies, rendered from the OpenAPI document.

The page has no script and loads nothing from other hosts, so it works without internet access.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
details { margin: .3rem 0; border: 1px solid #8886; border-radius: .4rem; padding: .3rem .8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; width: 4rem; color: #2a7; }
summary .POST { color: #c70; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: .3rem; }
td, th { text-align: left; padding-right: 1.5rem; vertical-align: top; }
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """The HTML page for an OpenAPI document. Text from the document is escaped."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    sections = "".join(_sections(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(document['info'].get('description', ''))}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{sections}</body></html>'
    )


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            for tag in operation.get("tags", ["More"]):
                by_tag.setdefault(tag, []).append(_operation(verb.upper(), path, operation, document))
    for tag, operations in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(operations)}"


def _operation(verb: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    parameters = operation.get("parameters", ())
    if parameters:
        rows = (
            f"<tr><td><code>{escape(parameter['name'])}</code><td>in the {escape(parameter['in'])}"
            f"<td><code>{escape(_schema_line(parameter.get('schema', {})))}</code></tr>"
            for parameter in parameters
        )
        parts.append(f"<table><tr><th>parameter<th><th></tr>{''.join(rows)}</table>")
    if "requestBody" in operation:
        parts.append(_content("Body", operation["requestBody"], document))
    for status, answer in operation.get("responses", {}).items():
        parts.append(_content(f"{status}: {answer.get('description', '')}", answer, document))
    summary = escape(operation.get("summary", ""))
    head = f'<b class="{verb}">{verb}</b> <code>{escape(path)}</code> {summary}'
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _content(title: str, body: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parts = [f"<h4>{escape(title)}</h4>"]
    for kind, content in body.get("content", {}).items():
        parts.append(f"<p><code>{escape(kind)}</code></p>")
        if "example" in content:
            parts.append(f"<p>Example</p><pre>{escape(json.dumps(content['example'], indent=2))}</pre>")
        schema = _resolved(content.get("schema", {}), document)
        if schema:
            parts.append(
                f"<details><summary>Schema</summary><pre>{escape(json.dumps(schema, indent=2))}</pre></details>"
            )
    return "".join(parts)


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    resolved: Mapping[str, Any] = document.get("components", {}).get("schemas", {}).get(name, {}) if name else schema
    return resolved


def _schema_line(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))
